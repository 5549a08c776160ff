"""Which windows show a task being done: half of an agent's batches are such windows (arXiv 2509.24527, section 3.3).

Shapes: W windows, Q tasks, T frames.
"""

import numpy as np
import torch

from ..data.windows import EpisodeWindows


class RelevantWindows:
    """The windows whose mean reward for a task is high, for every task.

    Args:
        windows: labeled windows.
        quantile: a window is relevant for a task if its mean reward is above this quantile of all windows of which
            the rewards are known, or reaches it.

    Attributes:
        limits: (Q,) the mean reward from which on a window is relevant for a task.

    Raises:
        ValueError: no window has a reward for some task.
    """

    def __init__(self, windows: EpisodeWindows, quantile: float):
        means = mean_rewards(windows)
        self.chosen: list[np.ndarray] = []
        limits = []
        for column, name in enumerate(windows.labels.task_names):
            known = np.flatnonzero(~np.isnan(means[:, column]))
            if not len(known):
                raise ValueError(f"no window of {windows.window_size} frames has a reward for the task {name!r}.")
            limit = np.quantile(means[known, column], quantile)
            self.chosen.append(known[means[known, column] >= limit])
            limits.append(limit)
        self.limits = np.array(limits)

    def draw(self, generator: torch.Generator) -> tuple[int, int]:
        """Return a task and the number of a window that is relevant for it."""
        task = int(torch.randint(len(self.chosen), (), generator=generator))
        numbers = self.chosen[task]
        return task, int(numbers[int(torch.randint(len(numbers), (), generator=generator))])


def mean_rewards(windows: EpisodeWindows) -> np.ndarray:
    """Return the mean of the known rewards of every window for every task, float64 (W,Q); NaN if none is known."""
    size, stride, means = windows.window_size, windows.stride, []
    for episode, length in zip(windows.episode_ids, windows.episode_lengths):
        if length < size:
            continue
        rewards = windows.labels.rewards[int(episode)].astype(np.float64)
        is_known = ~np.isnan(rewards)
        is_known[0] = False
        starts = np.arange(0, length - size + 1, stride)
        sums, counts = (_window_sums(part, starts, size) for part in (np.where(is_known, rewards, 0), is_known))
        means.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return np.concatenate(means)


def _window_sums(values: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Return the sums of values (T,Q) over windows, (windows, Q)."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    return total[starts + size] - total[starts]


__all__ = ["RelevantWindows", "mean_rewards"]

"""Rewards and successes of dreams while they run, by the reward functions of `reward_functions`.

A reward function judges a whole episode. Here it judges each episode again with every frame, of which the last value
counts. The functions of PushT look at the current frame only, or also at the first and the previous one, and get no
others.

Shapes: N rows, R of them, H, W pixels, S numbers of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..reward_functions import reward_function


class EpisodeScores(Protocol):
    """Judges N dreams."""

    def restart(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> None:
        """Begin other episodes in R rows.

        Args:
            rows: indices of the rows.
            frames: uint8 (R, H, W, 3), or (R, V, H, W, 3) of several cameras.
            states: float32 (R, S), S = 0 for a world without a state.
        """

    def step(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rewards (N,) float64 and whether each dream is solved now, bool (N,).

        A reward that is not known is 0. The arguments are the new frames and states of all rows, as
        in `restart`.
        """


class NoScores:
    """No reward and no success; see `EpisodeScores`."""

    def restart(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> None:
        """See `EpisodeScores`."""

    def step(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `EpisodeScores`."""
        return np.zeros(len(frames)), np.zeros(len(frames), bool)


class WholeEpisodeScores:
    """Calls any reward function with all frames of an episode so far; see `EpisodeScores`."""

    def __init__(self, function, num_rows: int):
        self._function = function
        self._frames: list[list[np.ndarray]] = [[] for _ in range(num_rows)]
        self._states: list[list[np.ndarray]] = [[] for _ in range(num_rows)]

    def restart(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> None:
        """See `EpisodeScores`."""
        for row, frame, state in zip(rows, frames, states, strict=True):
            self._frames[row], self._states[row] = [frame], [state]

    def step(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `EpisodeScores`."""
        signals = []
        for row, (frame, state) in enumerate(zip(frames, states, strict=True)):
            self._frames[row].append(frame)
            self._states[row].append(state)
            known = np.stack(self._states[row]) if states.shape[1] else None
            signals.append(self._function(np.stack(self._frames[row]), known))
        return _last_of(signals)


class PushTFrameScores:
    """Calls a reward function of PushT that judges each frame alone, with the new ones; see `EpisodeScores`."""

    def __init__(self, function, num_rows: int):
        self._function = function

    def restart(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> None:
        """See `EpisodeScores`."""

    def step(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `EpisodeScores`."""
        signal = self._function(frames)
        return np.nan_to_num(signal.rewards.astype(np.float64)), signal.successes


class PushTPushScores:
    """Calls a `PushReward` with the poses of the first, the previous and the new frame; see `EpisodeScores`."""

    def __init__(self, function, num_rows: int):
        self._function = function
        self._first = np.full((num_rows, 5), np.nan)
        self._previous = self._first.copy()

    def restart(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> None:
        """See `EpisodeScores`."""
        self._first[rows] = self._previous[rows] = self._poses(frames)

    def step(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `EpisodeScores`."""
        poses = self._poses(frames)
        self._first = np.where(np.isnan(self._first), poses, self._first)
        three = np.stack([self._first, self._previous, poses], axis=1)
        self._previous = poses
        return _last_of(
            [self._function(np.broadcast_to(frame, (3, *frame.shape)), of) for frame, of in zip(frames, three)]
        )

    @staticmethod
    def _poses(frames: np.ndarray) -> np.ndarray:
        """Return the block's pose with room for the agent's position, (R, 5)."""
        from ..pusht.rewards import block_poses

        return np.pad(block_poses(frames), ((0, 0), (2, 0)), constant_values=np.nan)


def make_scores(name: str | None, num_rows: int) -> EpisodeScores | None:
    """Return what judges N rows by the reward function of a name; None for None.

    Raises:
        ValueError: there is no function of that name.
    """
    if name is None:
        return None
    function = reward_function(name)
    if not name.startswith("pusht:"):
        return WholeEpisodeScores(function, num_rows)
    return (PushTPushScores if name.startswith("pusht:push:") else PushTFrameScores)(function, num_rows)


def _last_of(signals: Sequence) -> tuple[np.ndarray, np.ndarray]:
    rewards = np.array([signal.rewards[-1] for signal in signals], np.float64)
    return np.nan_to_num(rewards), np.array([signal.successes[-1] for signal in signals], bool)


__all__ = ["EpisodeScores", "NoScores", "make_scores"]

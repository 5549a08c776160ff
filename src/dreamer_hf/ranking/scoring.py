"""What episodes are worth: reward functions by name, and their summaries at every horizon.

Shapes: N episodes, T frames after the start, H, W pixels, S state components.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..pusht.rewards import tee_centers
from ..pusht.task import GOAL_POSE, WORLD_SIZE, tee_center
from ..reward_functions import reward_function
from ..reward_signal import RewardFunction, RewardSignal

GOAL = "pusht:goal"
PUSHT_PREFIX = "pusht:"


@dataclass(frozen=True)
class EpisodeScores:
    """What N episodes were worth at each frame, the last start frame included.

    Attributes:
        rewards: float64 (N, T + 1); a frame in which nothing was found has the value of the frame before.
        successes: bool (N, T + 1).
    """

    rewards: np.ndarray
    successes: np.ndarray

    def held(self, num_frames: np.ndarray) -> "EpisodeScores":
        """Return the scores of episodes that no longer change after their first frames: int (N,), the start aside."""
        times = np.minimum(np.arange(self.rewards.shape[1]), np.asarray(num_frames)[:, None])
        return EpisodeScores(*(np.take_along_axis(each, times, 1) for each in (self.rewards, self.successes)))

    def by_horizon(self, summary: str) -> np.ndarray:
        """Return the score (N, T) of the first 1, ..., T frames; see `RankOptions.summary`."""
        start, later = self.rewards[:, :1], self.rewards[:, 1:]
        if summary == "gain":
            return later - start
        if summary == "last":
            return later
        if summary == "mean":
            return np.cumsum(later, axis=1) / np.arange(1, later.shape[1] + 1)
        if summary == "best":
            return np.maximum.accumulate(later, axis=1)
        return np.logical_or.accumulate(self.successes[:, 1:], axis=1).astype(np.float64)


def score_function(name: str) -> RewardFunction:
    """Return the reward function of a name: "pusht:goal", or one of `reward_functions`.

    Raises:
        ValueError: there is no function of that name.
    """
    return BlockToGoal(name) if name == GOAL else reward_function(name)


def reads_scenes(name: str) -> bool:
    """Return whether a reward function needs only the scene of PushT."""
    return name.startswith(PUSHT_PREFIX)


def score_episodes(
    name: str, num_frames: int, frames: Callable[[], np.ndarray], states: np.ndarray | None, scenes: np.ndarray | None
) -> EpisodeScores:
    """Score N episodes by a function's name.

    Args:
        name: of the function.
        num_frames: T + 1.
        frames: returns uint8 (N, T + 1, H, W, 3); called only if the function looks at them.
        states: float32 (N, T + 1, S), or None.
        scenes: float64 (N, T + 1, 5), the scenes of PushT, if that is what is shown.

    Raises:
        ValueError: the function is one of PushT, and this is not.
    """
    function, signals = score_function(name), []
    if reads_scenes(name):
        if scenes is None:
            raise ValueError(f"{name} is for PushT, which this world does not show: choose another --score.")
        unseen = np.broadcast_to(np.zeros(1, np.uint8), (num_frames, 1, 1, 3))
        signals = [function(unseen, scene.astype(np.float32)) for scene in scenes]
    else:
        signals = [function(video, None if states is None else states[row]) for row, video in enumerate(frames())]
    rewards = np.stack([signal.rewards for signal in signals]).astype(np.float64)
    return EpisodeScores(filled(rewards), np.stack([signal.successes for signal in signals]))


@dataclass(frozen=True)
class BlockToGoal:
    """How near PushT's block is to its goal: 1 - distance of the centers in pixels / 512; solved within 10 pixels."""

    name: str

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        goal = tee_center(np.array(GOAL_POSE))
        distance = np.linalg.norm(tee_centers(states[:, 2:].astype(np.float64)) - goal, axis=1)
        return RewardSignal((1 - distance / WORLD_SIZE).astype(np.float32), distance <= 10)


def filled(values: np.ndarray) -> np.ndarray:
    """Return values (N, T, ...) in which a NaN has the value of the frame before or, at the start, of the next one
    that has one."""
    values = values.copy()
    for time in range(1, values.shape[1]):
        values[:, time] = np.where(np.isnan(values[:, time]), values[:, time - 1], values[:, time])
    for time in range(values.shape[1] - 2, -1, -1):
        values[:, time] = np.where(np.isnan(values[:, time]), values[:, time + 1], values[:, time])
    return values


__all__ = ["GOAL", "EpisodeScores", "filled", "reads_scenes", "score_episodes", "score_function"]

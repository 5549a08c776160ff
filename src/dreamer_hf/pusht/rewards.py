"""Reward functions of PushT: reach a spot, push the block, cover the goal. Works without gym-pusht.

Agent and block are read from states where these hold them, and are found in the frames otherwise (see `state`).
Units as in `task`. Shapes: T frames.
"""

import re
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch

from ..reward_signal import RewardFunction, RewardSignal
from .state import find_pusht_agent, find_pusht_block
from .task import GOAL_POSE, WORLD_SIZE, tee_center

NAMES = ("pusht:coverage", "pusht:reach:X,Y", "pusht:push:right|left|up|down")
REACH_RANGE, REACHED = 300.0, 25.0
"""The reward falls to zero at this distance, and the task is solved within that one, in pixels."""
PUSH_UNIT, PUSHED = 10.0, 40.0
"""The block's movement that is worth 1, and its gain at which the task is solved, in pixels."""
COVERED = 0.95
"""gym-pusht counts the block as delivered above this coverage."""
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
TEE_CORNERS = (
    ((-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0)),
    ((-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0)),
)
"""Corners of bar and stem in the coordinates of the block. Together they are the T, and they do not overlap."""
TEE_AREA = 120.0 * 30 + 30 * 90
TEE_RADIUS = 80.0
"""No corner of the T is farther from its center."""


def pusht_reward(name: str, task: str) -> RewardFunction:
    """Return the reward function of a task: `coverage`, `reach:X,Y` or `push:DIRECTION`.

    Args:
        name: its full name, for the function's `name` and for errors.

    Raises:
        ValueError: there is no such task, or the spot is not on the table.
    """
    kind, _, rest = task.partition(":")
    if task == "coverage":
        return CoverageReward(name)
    if kind == "push" and rest in DIRECTIONS:
        return PushReward(name, DIRECTIONS[rest])
    if kind == "reach":
        return ReachReward(name, _spot(name, rest))
    raise ValueError(f"there is no reward function {name!r}: choose one of {', '.join(NAMES)}.")


def _spot(name: str, text: str) -> tuple[float, float]:
    number = r"\s*(\d+(?:\.\d+)?)\s*"
    match = re.fullmatch(f"{number},{number}", text)
    if match is None or max(spot := tuple(map(float, match.groups()))) > WORLD_SIZE:
        raise ValueError(f"{name!r} names no spot: write pusht:reach:X,Y with two numbers in [0, {WORLD_SIZE:g}].")
    return spot


@dataclass(frozen=True)
class ReachReward:
    """How near the agent is to a spot: 1 - min(distance, 300) / 300."""

    name: str
    spot: tuple[float, float]

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        distance = np.linalg.norm(agent_positions(frames, states) - self.spot, axis=-1)
        return _signal(1 - np.minimum(distance, REACH_RANGE) / REACH_RANGE, distance <= REACHED)


@dataclass(frozen=True)
class PushReward:
    """How far the block moved in one direction since the previous frame, in units of 10 pixels, in [-1, 1].

    The first frame has no previous one, and is worth 0.
    """

    name: str
    direction: tuple[float, float]

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        place = tee_centers(block_poses(frames, states)) @ np.array(self.direction)
        moved = np.diff(place, prepend=place[:1])
        known = place[~np.isnan(place)]
        gained = place - (known[0] if len(known) else np.nan)
        return _signal(np.clip(moved / PUSH_UNIT, -1, 1), gained >= PUSHED)


@dataclass(frozen=True)
class CoverageReward:
    """How much of the goal the block covers, as gym-pusht computes it."""

    name: str

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        coverage = np.array([_coverage(pose) for pose in block_poses(frames, states)])
        return _signal(coverage, coverage > COVERED)


def _signal(rewards: np.ndarray, successes: np.ndarray) -> RewardSignal:
    return RewardSignal(rewards.astype(np.float32), successes.astype(bool))


def agent_positions(frames: np.ndarray, states: np.ndarray | None = None) -> np.ndarray:
    """Return the agent's x, y, float64 (T, 2); NaN where it is not found.

    Args:
        frames: as for a `RewardFunction`. Of several cameras, the first one is read.
        states: (T, 2), the agent's position, or (T, 5), that and the block's pose, as `dreamer record pusht` stores
            them. States of any other size are ignored.
    """
    if states is not None and states.shape[-1] in (2, 5):
        return states[:, :2].astype(np.float64)
    return find_pusht_agent(_as_tensor(frames)).double().numpy()


def block_poses(frames: np.ndarray, states: np.ndarray | None = None) -> np.ndarray:
    """Return the block's x, y and angle as the simulator has them, float64 (T, 3); NaN where it is not found.

    The arguments are those of `agent_positions`.
    """
    if states is not None and states.shape[-1] == 5:
        return states[:, 2:].astype(np.float64)
    center, angle = (part.double().numpy() for part in find_pusht_block(_as_tensor(frames)))
    origin = np.stack([np.zeros_like(angle), np.zeros_like(angle), angle], axis=-1)
    return np.concatenate([center - tee_centers(origin), angle[:, None]], axis=-1)


def tee_centers(poses: np.ndarray) -> np.ndarray:
    """Return the centers of the T, float64 (T, 2), for poses (T, 3): `task.tee_center` of each."""
    return np.array([tee_center(pose) for pose in poses]).reshape(-1, 2)


def _as_tensor(frames: np.ndarray) -> torch.Tensor:
    """Return frames as the finders of agent and block take them."""
    if frames.ndim == 5:
        frames = frames[:, 0]
    if frames.ndim != 4 or frames.shape[1] != frames.shape[2] or frames.dtype != np.uint8:
        raise ValueError(
            f"rewards of PushT are computed from square uint8 frames (T, S, S, 3), got {frames.dtype} of shape "
            f"{frames.shape}: choose data of PushT."
        )
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2) / 255


def _coverage(pose: np.ndarray) -> float:
    """Return the area of the intersection of the T at a pose with the goal over the area of the T."""
    if np.isnan(pose).any():
        return np.nan
    if np.linalg.norm(tee_center(pose) - tee_center(np.array(GOAL_POSE))) > 2 * TEE_RADIUS:
        return 0.0
    block = [_placed(corners, pose) for corners in TEE_CORNERS]
    return sum(cv2.intersectConvexConvex(ours, goal)[0] for ours in block for goal in _goal()) / TEE_AREA


@cache
def _goal() -> list[np.ndarray]:
    return [_placed(corners, np.array(GOAL_POSE)) for corners in TEE_CORNERS]


def _placed(corners: tuple, pose: np.ndarray) -> np.ndarray:
    """Return corners (4, 2) at a pose, float32 relative to the goal: coordinates near zero round less."""
    x, y, angle = pose
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (np.array(corners) @ turn.T + np.array([x, y]) - np.array(GOAL_POSE[:2])).astype(np.float32)


__all__ = [
    "CoverageReward",
    "PushReward",
    "ReachReward",
    "agent_positions",
    "block_poses",
    "pusht_reward",
    "tee_centers",
]

"""A scripted player of PushT that brings the block to its goal, and players whose skill is graded.

Units as in `task`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .player import PushTPlayer
from .players import PLAYERS
from .task import GOAL_POSE, WORLD_SIZE, tee_center

MARGIN = PushTPlayer.margin
REACH = 15.0
"""Radius of the agent's disc."""
CLEARANCE = 105.0
"""An agent at this distance from the center of the T touches no part of it."""
TURN_LENGTH = 60.0
"""A radian of the block's angle counts as much as this way of its center: about half the length of the T."""
TRAVEL_SPEED, PUSH_SPEED = 30.0, 14.0
"""Pixels per frame; the worlds of this package take up to 35 along each axis."""
CLOSE_ENOUGH = 6.0
"""The player rests once the block is nearer than this to its goal, its turn included."""
NOISE = 30.0
"""Largest displacement along each axis, in pixels per frame, of an action at random."""


class Player(Protocol):
    """Someone who plays PushT and sees where agent and block are."""

    def reset(self, agent: np.ndarray) -> None:
        """Start an episode with the target on the agent, (2,) xy."""

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """Return the next target, (2,) float32, for the agent's xy (2,) and the block's x, y, angle (3,)."""


class GoalPlayer:
    """Pushes the block toward its goal pose, one straight push after the other.

    It chooses the place on the outline of the T where a push reduces the distance from the goal most (the block is
    taken to move as under friction: along the push, and turning in proportion to the lever), walks around the block to
    that place, and pushes until the push no longer helps.
    """

    def __init__(self):
        self._points, self._normals = _outline()

    def reset(self, agent: np.ndarray) -> None:
        """See `Player`."""
        self.target = agent.astype(np.float64)
        self._contact: int | None = None
        self._pushing = False

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """See `Player`."""
        center = tee_center(block_pose)
        points, normals = self._placed(block_pose)
        gains, distance = self._gains(points - center, normals, block_pose)
        if distance < CLOSE_ENOUGH:
            self._contact = None
            return self.target.astype(np.float32)
        if self._contact is None or not self._still_helps(agent, points, normals, gains):
            walk = np.linalg.norm(points - (REACH + 20) * normals - agent, axis=1)
            self._contact, self._pushing = int(np.argmax(gains - walk / 400)), False
        point, normal = points[self._contact], normals[self._contact]
        stand = np.clip(point - (REACH + 12) * normal, MARGIN, WORLD_SIZE - MARGIN)
        if not self._pushing and np.linalg.norm(agent - stand) < 10:
            self._pushing = True
        if self._pushing:
            self._move(agent + (PUSH_SPEED + 4) * normal + _across(point - agent, normal), PUSH_SPEED)
        else:
            self._move(_around(agent, stand, center), TRAVEL_SPEED)
        return self.target.astype(np.float32)

    def _placed(self, block_pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the outline (P, 2) and its inward normals (P, 2) on the table."""
        cos, sin = np.cos(block_pose[2]), np.sin(block_pose[2])
        turn = np.array([[cos, -sin], [sin, cos]])
        return self._points @ turn.T + block_pose[:2], self._normals @ turn.T

    def _gains(self, levers: np.ndarray, normals: np.ndarray, block_pose: np.ndarray) -> tuple[np.ndarray, float]:
        """Return how much of each push (P,) brings the block nearer to its goal, in [-1, 1], and its distance."""
        missing = tee_center(np.array(GOAL_POSE)) - tee_center(block_pose)
        turn = (GOAL_POSE[2] - block_pose[2] + np.pi) % (2 * np.pi) - np.pi
        error = np.array([*missing, TURN_LENGTH * turn])
        torques = levers[:, 0] * normals[:, 1] - levers[:, 1] * normals[:, 0]
        motion = np.column_stack([normals, torques / TURN_LENGTH])
        distance = float(np.linalg.norm(error))
        return motion @ error / (np.linalg.norm(motion, axis=1) * max(distance, 1e-6)), distance

    def _still_helps(self, agent: np.ndarray, points: np.ndarray, normals: np.ndarray, gains: np.ndarray) -> bool:
        """Return whether the present push still helps and has not slipped."""
        if not self._pushing:
            return gains[self._contact] > 0.3
        offset = agent - points[self._contact]
        slipped = np.linalg.norm(_across(offset, normals[self._contact])) > 20
        return gains[self._contact] > 0.2 and not slipped and np.linalg.norm(offset) < 60

    def _move(self, goal: np.ndarray, speed: float) -> None:
        offset = goal - self.target
        step = offset * min(1.0, speed / max(float(np.linalg.norm(offset)), 1e-6))
        self.target = np.clip(self.target + step, MARGIN, WORLD_SIZE - MARGIN)


class NoisyPlayer:
    """A player some of whose actions are replaced by movements at random.

    Args:
        player: whose play it is.
        skill: fraction of the actions that are the player's, from 0 to 1.
        rng: source of the movements.
    """

    def __init__(self, player: Player, skill: float, rng: np.random.Generator):
        self.player, self.skill, self.rng = player, skill, rng

    def reset(self, agent: np.ndarray) -> None:
        """See `Player`."""
        self.player.reset(agent)

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """See `Player`."""
        # Both are drawn at every step, so that players of different skill share their noise.
        coin, movement = self.rng.random(), self.rng.uniform(-NOISE, NOISE, size=2)
        before = self.player.target
        target = self.player.act(agent, block_pose)
        if coin >= self.skill:
            self.player.target = np.clip(before + movement, MARGIN, WORLD_SIZE - MARGIN)
            target = self.player.target.astype(np.float32)
        return target


class RestingPlayer:
    """Leaves the agent where it is: what any policy should beat."""

    def reset(self, agent: np.ndarray) -> None:
        """See `Player`."""
        self.target = agent.astype(np.float64)

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """See `Player`."""
        return self.target.astype(np.float32)


ALL_PLAYERS = PLAYERS | {"push": lambda rng: GoalPlayer(), "rest": lambda rng: RestingPlayer()}
"""Players by name: a function of a generator."""


def make_player(name: str, rng: np.random.Generator) -> Player:
    """Return a scripted player by name.

    Args:
        name: one of `PLAYERS`, "push" (brings the block to its goal), "rest", or "random"; a skill from 0 to 1 may
            follow, as in "push:0.5": the fraction of its actions that are not replaced by random movements. "random"
            is "push:0".
        rng: source of its decisions.

    Raises:
        ValueError: there is no such player, or the skill is not a number from 0 to 1.
    """
    kind, _, skill = ("push:0" if name == "random" else name).partition(":")
    if kind not in ALL_PLAYERS:
        raise ValueError(f"there is no player {kind!r}: choose one of {', '.join([*ALL_PLAYERS, 'random'])}.")
    if not skill:
        return ALL_PLAYERS[kind](rng)
    try:
        number = float(skill)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"expected a skill from 0 to 1 after the player's name, got {skill!r}: try {kind}:0.5.")
    return NoisyPlayer(ALL_PLAYERS[kind](rng), number, rng)


def _outline() -> tuple[np.ndarray, np.ndarray]:
    """Return places (P, 2) on the outline of the T in its own coordinates, and the inward normals (P, 2) there.

    Its bar is 120 by 30 pixels and its stem 30 by 90; see `state.TEE_BOXES`.
    """
    places = [((x, 0.0), (0.0, 1.0)) for x in range(-50, 51, 10)]
    places += [((x, 120.0), (0.0, -1.0)) for x in (-8, 0, 8)]
    for side in (-1, 1):
        places += [((side * x, 30.0), (0.0, -1.0)) for x in (35, 45, 54)]
        places += [((side * 60.0, y), (-side, 0.0)) for y in (8, 15, 22)]
        places += [((side * 15.0, y), (-side, 0.0)) for y in range(50, 116, 10)]
    points, normals = (np.array(part, np.float64) for part in zip(*places))
    return points, normals


def _across(offset: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the part of an offset that is perpendicular to a unit vector."""
    return offset - (offset @ normal) * normal


def _around(agent: np.ndarray, stand: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return where to go next on the way to a place next to the block, around the block."""
    here, there = agent - center, stand - center
    angle = np.arctan2(here[1], here[0])
    turn = (np.arctan2(there[1], there[0]) - angle + np.pi) % (2 * np.pi) - np.pi
    if abs(turn) < 0.35:
        return stand
    way = stand - agent
    nearest = np.clip(-(here @ way) / max(way @ way, 1e-6), 0, 1)
    if np.linalg.norm(here + nearest * way) > CLEARANCE - 15:
        return stand
    angle += np.clip(turn, -0.4, 0.4)
    return center + CLEARANCE * np.array([np.cos(angle), np.sin(angle)])


__all__ = ["GoalPlayer", "NoisyPlayer", "Player", "RestingPlayer", "make_player"]

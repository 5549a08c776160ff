"""More players of PushT, each of which shows what the others leave out. Units as in `task`.

The varied play of `player` keeps away from the walls and from abrupt moves. A world that knows only that is lost as
soon as somebody else plays.
"""

import numpy as np

from .player import PushTPlayer
from .task import WORLD_SIZE, tee_center

REACH = 112.0
"""Distance from the center of the block at which an agent touches no part of it."""
OVERSHOOT = 80.0
"""How far beyond the walls the wall player aims, in pixels. The target itself stays in the simulator's range."""
GRIPS = ((-45.0, -24.0, 0.0, 1.0), (45.0, -24.0, 0.0, 1.0), (-45.0, 54.0, 0.0, -1.0), (45.0, 54.0, 0.0, -1.0))
"""Where a push turns the block, in its own coordinates: x and y of the agent, x and y of the push. The ends of the
bar, from both sides."""
STEM_GRIPS = ((-39.0, 105.0, 1.0, 0.0), (39.0, 105.0, -1.0, 0.0))
"""The same for the end of the stem."""


class BoldPlayer(PushTPlayer):
    """The same habits at up to twice the speed, with abrupt moves, up to the walls."""

    margin = 10.0
    speeds = (24.0, 70.0)
    smoothings = (0.0, 0.4)


class WaypointPlayer(PushTPlayer):
    """Straight lines between places drawn anywhere, at constant speed, through whatever lies between them."""

    margin = 0.0
    speeds = (4.0, 40.0)
    smoothings = (0.0, 0.1)

    def choose_habits(self) -> dict:
        return {self._wander: 1.0}


class WallPlayer(PushTPlayer):
    """Drives against the walls and along them, and pushes the block into them."""

    margin = 0.0
    speeds = (8.0, 48.0)

    def choose_habits(self) -> dict:
        return {self._wander: 0.5, self._shove: 0.4, self._rest: 0.1}

    def _draw_waypoint(self) -> np.ndarray:
        place = self.rng.uniform(-OVERSHOOT, WORLD_SIZE + OVERSHOOT, size=2)
        axis = self.rng.integers(2)
        place[axis] = self.rng.choice([-OVERSHOOT, WORLD_SIZE + OVERSHOOT])
        return place

    def _shove(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Push the block outward from the middle of the table."""
        outward = center - WORLD_SIZE / 2
        direction = outward / max(float(np.linalg.norm(outward)), 1e-6)
        stand = center - REACH * direction
        if np.linalg.norm(agent - stand) < 35:
            self.striking = True
        return center + 150 * direction if self.striking else self._detour(stand, center)

    def _detour(self, place: np.ndarray, center: np.ndarray) -> np.ndarray:
        return detour(self.target, place, center)


class AroundPlayer(PushTPlayer):
    """Walks around the block and pushes it from all sides, a little each time."""

    speeds = (10.0, 42.0)
    smoothings = (0.1, 0.6)

    def choose_habits(self) -> dict:
        return {self._visit: 0.8, self._orbit: 0.2}

    def _visit(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        direction = np.array([np.cos(self.heading), np.sin(self.heading)])
        stand = center - REACH * direction
        if np.linalg.norm(agent - stand) < 25:
            self.striking = True
        if self.striking and np.linalg.norm(agent - center) < 55:  # far enough: on to another side
            self.heading += float(self.rng.uniform(0.7, 2.4) * self.rng.choice([-1, 1]))
            self.striking = False
        return center + 60 * direction if self.striking else detour(self.target, stand, center)


class SolverPlayer(PushTPlayer):
    """Works toward the goal: gentle pushes with corrections, mostly near the solution."""

    speeds = (5.0, 24.0)

    def choose_habits(self) -> dict:
        return {self._nudge: 0.85, self._orbit: 0.1, self._rest: 0.05}


class TurningPlayer(PushTPlayer):
    """Long pushes at an end of the block that turn it, while the agent follows the end around."""

    margin = 12.0
    speeds = (8.0, 40.0)

    def choose_habits(self) -> dict:
        return {self._turn: 1.0}

    def _choose_habit(self) -> None:
        super()._choose_habit()
        self.frames_left = int(self.rng.integers(25, 61))
        grips = GRIPS + STEM_GRIPS
        self.grip = np.array(grips[self.rng.integers(len(grips))])

    def _turn(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        rotation = np.array([[cosine, -sine], [sine, cosine]])
        origin = center - tee_center(np.array([0.0, 0.0, self.angle]))
        place, push = origin + rotation @ self.grip[:2], rotation @ self.grip[2:]
        if np.linalg.norm(agent - place) < 22:
            self.striking = True
        elif np.linalg.norm(agent - place) > 90:
            self.striking = False  # slipped off
        return place + 55 * push if self.striking else detour(self.target, place, center)


class StillPlayer(PushTPlayer):
    """Stands still, with now and then a short move."""

    speeds = (1.0, 12.0)

    def choose_habits(self) -> dict:
        return {self._rest: 0.85, self._wander: 0.15}


class HandPlayer(PushTPlayer):
    """The habits of the first player, moved as a human hand moves: in bursts, with tremor, pauses and corrections."""

    margin = 8.0
    speeds = (10.0, 60.0)
    smoothings = (0.2, 0.7)

    def reset(self, agent: np.ndarray) -> None:
        super().reset(agent)
        self.tremor = np.zeros(2)
        self.pause = 0
        self.roughness = float(self.rng.uniform(0.5, 4.0))  # pixels

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """See `PushTPlayer.act`."""
        self.tremor = 0.6 * self.tremor + self.rng.normal(0, self.roughness, size=2)
        if self.pause > 0:
            self.pause -= 1
            self.velocity *= 0.3
        else:
            super().act(agent, block_pose)
            if self.rng.random() < 0.04:
                self.pause = int(self.rng.integers(3, 16))
        return np.clip(self.target + self.tremor, 0, WORLD_SIZE).astype(np.float32)


class StrokePlayer(PushTPlayer):
    """Separate strokes with a smooth speed profile, most of them through the block, and a rest after each.

    Meant for evaluation: `TRAINING_PLAYERS` leaves it out.
    """

    def choose_habits(self) -> dict:
        return {self._rest: 1.0}

    def reset(self, agent: np.ndarray) -> None:
        super().reset(agent)
        self.path: list[np.ndarray] = []

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """See `PushTPlayer.act`."""
        if not self.path:
            self.path = self._draw_stroke(tee_center(block_pose))
        self.target = self.path.pop(0)
        return self.target.astype(np.float32)

    def _draw_stroke(self, center: np.ndarray) -> list[np.ndarray]:
        """Return the targets of one stroke and of the rest after it."""
        goal = self.rng.uniform(15, WORLD_SIZE - 15, size=2)
        if self.rng.random() < 0.7:
            through = center + self.rng.normal(0, 35, size=2)
            away = through - self.target
            goal = through + away / max(float(np.linalg.norm(away)), 1e-6) * self.rng.uniform(20, 130)
        goal = np.clip(goal, 15, WORLD_SIZE - 15)
        fastest = self.rng.uniform(15, 45)
        steps = max(3, int(np.ceil(1.875 * np.linalg.norm(goal - self.target) / fastest)))
        time = np.arange(1, steps + 1) / steps
        share = time**3 * (10 - 15 * time + 6 * time**2)  # the least jerk; its peak speed is 1.875 times the mean
        stroke = self.target + share[:, None] * (goal - self.target)
        return [*stroke, *[goal] * int(self.rng.integers(1, 8))]


def detour(start: np.ndarray, goal: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return where to head from `start` to get to `goal` without touching a block at `center`; all (2,) xy."""
    way, to_center = goal - start, center - start
    length = max(float(np.linalg.norm(way)), 1e-6)
    along = float(np.clip(way @ to_center / length**2, 0, 1))
    if np.linalg.norm(start + along * way - center) > 85 or np.linalg.norm(to_center) > 200:
        return goal
    angles = [float(np.arctan2(*(place - center)[::-1])) for place in (start, goal)]
    turn = (angles[1] - angles[0] + np.pi) % (2 * np.pi) - np.pi
    if abs(turn) < 0.5:  # it lies on this side of the block
        return goal
    angle = angles[0] + np.clip(turn, -0.7, 0.7)
    return center + (REACH + 8) * np.array([np.cos(angle), np.sin(angle)])


PLAYERS = {
    "varied": PushTPlayer,
    "bold": BoldPlayer,
    "waypoints": WaypointPlayer,
    "walls": WallPlayer,
    "around": AroundPlayer,
    "solver": SolverPlayer,
    "turning": TurningPlayer,
    "still": StillPlayer,
    "hand": HandPlayer,
    "strokes": StrokePlayer,
}
"""Every player by the name that `--players` gives it."""
TRAINING_PLAYERS = tuple(name for name in PLAYERS if name != "strokes")
"""The players that a world learns from by default; the other one shows what it makes of a stranger."""

__all__ = ["PLAYERS", "TRAINING_PLAYERS", "detour"]

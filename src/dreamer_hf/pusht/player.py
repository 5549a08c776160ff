"""A scripted player of PushT whose play is varied: a world model needs many skills, not expert episodes.

Units as in `task`.
"""

import numpy as np

from .task import GOAL_POSE, WORLD_SIZE, tee_center


class PushTPlayer:
    """Smooth, varied play: the target wanders, circles the block, rests, shoves the block from every side, and nudges
    it toward the goal.

    Each habit lasts one to three seconds, then another one is drawn. An episode of 80 frames shows several of
    them, at speeds between a crawl and a strike.

    The players of `players` are variations: they set other ranges, or draw from other habits.

    Args:
        rng: source of every decision. The same generator state gives the same play.
    """

    margin = 30.0
    """The target stays this far from the walls: any closer, the agent squeezes the block through them."""
    speeds = (6.0, 36.0)
    """Pixels per frame of the slowest and of the fastest habit."""
    smoothings = (0.3, 0.8)
    """How much of its velocity the target keeps from frame to frame."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.habits = self.choose_habits()

    def choose_habits(self) -> dict:
        """Return the habits with their probabilities: functions of the agent's and the block's position that return
        where to go."""
        return {self._wander: 0.2, self._push: 0.4, self._nudge: 0.2, self._orbit: 0.12, self._rest: 0.08}

    def reset(self, agent: np.ndarray) -> None:
        """Start an episode with the target on the agent, (2,) xy."""
        self.target = agent.astype(np.float64)
        self.velocity = np.zeros(2)
        self._choose_habit()

    def act(self, agent: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """Return the next target position, (2,) float32 in [0, 512].

        Args:
            agent: (2,) xy of the agent.
            block_pose: (3,) x, y, angle of the block.
        """
        if self.frames_left == 0:
            self._choose_habit()
        self.frames_left -= 1
        self.angle = float(block_pose[2])
        self._move_towards(self.habit(agent, tee_center(block_pose)))
        return self.target.astype(np.float32)

    def _choose_habit(self) -> None:
        habits = list(self.habits)
        self.habit = habits[self.rng.choice(len(habits), p=list(self.habits.values()))]
        self.frames_left = int(self.rng.integers(10, 31))
        self.speed = float(self.rng.uniform(*self.speeds))
        self.smoothing = float(self.rng.uniform(*self.smoothings))
        self.heading = float(self.rng.uniform(-np.pi, np.pi))
        self.turn = float(self.rng.choice([-1, 1]) * self.rng.uniform(0.1, 0.3))  # radians per frame
        self.waypoint = self._draw_waypoint()
        self.striking = False

    def _draw_waypoint(self) -> np.ndarray:
        return self.rng.uniform(25, WORLD_SIZE - 25, size=2)

    def _move_towards(self, goal: np.ndarray) -> None:
        offset = goal - self.target
        distance = np.linalg.norm(offset)
        wanted = offset * min(1.0, self.speed / max(distance, 1e-6))
        self.velocity = self.smoothing * self.velocity + (1 - self.smoothing) * wanted
        self.target = np.clip(self.target + self.velocity, self.margin, WORLD_SIZE - self.margin)

    def _wander(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        if np.linalg.norm(self.waypoint - self.target) < 20:
            self.waypoint = self._draw_waypoint()
        return self.waypoint

    def _push(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Move to one side of the block, then strike through it to the other side.

        A block near a wall is brought back to the middle: the simulator's walls let a hard push through.
        """
        inwards = WORLD_SIZE / 2 - center
        if np.abs(inwards).max() > 120 and not self.striking:
            self.heading = float(np.arctan2(inwards[1], inwards[0]))
        direction = np.array([np.cos(self.heading), np.sin(self.heading)])
        stand = np.clip(center - 110 * direction, 20, WORLD_SIZE - 20)
        if np.linalg.norm(agent - stand) < 35:
            self.striking = True
        return np.clip(center + 90 * direction, 120, WORLD_SIZE - 120) if self.striking else stand

    def _nudge(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Push the block gently toward the goal, off its center so that it also turns toward the goal's angle."""
        to_goal = tee_center(np.array(GOAL_POSE)) - center
        distance = max(float(np.linalg.norm(to_goal)), 1e-6)
        direction = to_goal / distance
        missing_turn = (GOAL_POSE[2] - self.angle + np.pi) % (2 * np.pi) - np.pi
        side = np.array([-direction[1], direction[0]]) * -30 * np.clip(missing_turn / 0.5, -1, 1)
        self.speed = min(self.speed, 16.0)
        stand = np.clip(center + side - 100 * direction, 20, WORLD_SIZE - 20)
        if np.linalg.norm(agent - stand) < 30:
            self.striking = True
        # The agent stops where its push has brought the block's center onto the goal's.
        return stand + direction * min(distance + 30, 100) if self.striking else stand

    def _orbit(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        self.heading += self.turn
        return center + 120 * np.array([np.cos(self.heading), np.sin(self.heading)])

    def _rest(self, agent: np.ndarray, center: np.ndarray) -> np.ndarray:
        return self.target


__all__ = ["PushTPlayer"]

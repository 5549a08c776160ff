"""Policies of the simulator that know nothing of an agent: the floors and the ceiling that agents are compared with.

Shapes: B episodes.
"""

from collections.abc import Sequence

import numpy as np

from ..action_space import ActionSpace
from ..start_frames import StartFrames
from .player import PushTPlayer
from .simulator import PushTSimulator


class Resting:
    """Does nothing: no change of the target, or the place where the agent is."""

    def begin(self, starts: StartFrames, simulators: Sequence[PushTSimulator]) -> None:
        self._simulators = simulators

    def act(self) -> np.ndarray:
        return np.stack([_towards(simulator, simulator.target) for simulator in self._simulators])

    def observe(self, frames: np.ndarray, actions: np.ndarray) -> None:
        pass


class UniformlyRandom(Resting):
    """Draws every action evenly from the range of the data.

    Args:
        space: the world's actions.
        seed: of the draws. Defaults to 0.
    """

    def __init__(self, space: ActionSpace, seed: int = 0):
        self._space, self._rng = space, np.random.default_rng(seed)

    def act(self) -> np.ndarray:
        return self._rng.uniform(self._space.low, self._space.high, (len(self._simulators), 2)).astype(np.float32)


class ScriptedPlay(Resting):
    """Plays as the recordings do that worlds of PushT learn from.

    Args:
        seed: of the play. Defaults to 0.
    """

    def __init__(self, seed: int = 0):
        self._seed = seed

    def begin(self, starts: StartFrames, simulators: Sequence[PushTSimulator]) -> None:
        super().begin(starts, simulators)
        self._players = [PushTPlayer(np.random.default_rng([self._seed, row])) for row in range(len(simulators))]
        for player, simulator in zip(self._players, simulators):
            player.reset(simulator.agent)

    def act(self) -> np.ndarray:
        pairs = zip(self._players, self._simulators)
        targets = [player.act(simulator.agent, simulator.block_pose) for player, simulator in pairs]
        return np.stack([_towards(simulator, target) for simulator, target in zip(self._simulators, targets)])


class StraightLine(Resting):
    """Moves the agent straight to a spot, which is about the best that can be done.

    Args:
        spots: x, y of each episode.
        speed: largest change of the target per frame, in pixels. Defaults to 30.
    """

    def __init__(self, spots: Sequence[tuple[float, float]], speed: float = 30.0):
        self._spots, self._speed = np.asarray(spots, np.float64), speed

    def act(self) -> np.ndarray:
        actions = []
        for simulator, spot in zip(self._simulators, self._spots):
            way = spot - simulator.target
            step = way * min(1.0, self._speed / max(float(np.linalg.norm(way)), 1e-6))
            actions.append(_towards(simulator, simulator.target + step))
        return np.stack(actions)


def _towards(simulator: PushTSimulator, target: np.ndarray) -> np.ndarray:
    """Return the action, in the form that the world takes, which sets the target."""
    return np.asarray(target - simulator.target if simulator.relative else target, np.float32)


__all__ = ["Resting", "ScriptedPlay", "StraightLine", "UniformlyRandom"]

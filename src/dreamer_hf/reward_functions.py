"""Reward functions by name: what an episode was worth, computed from its frames and states. NumPy in, NumPy out."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .reward_signal import RewardFunction, RewardSignal

KNOWN_NAMES = ("pusht:coverage", "pusht:reach:X,Y", "pusht:push:right|left|up|down", "package.module:function")


def reward_function(name: str) -> RewardFunction:
    """Return the reward function of a name.

    Args:
        name: one of
            - `pusht:coverage`: how much of the goal the block covers, in [0, 1]; solved above 0.95.
            - `pusht:reach:X,Y`: how near the agent is to a spot, in pixels of the simulator's 512:
              1 - min(distance, 300) / 300; solved within 25 pixels.
            - `pusht:push:right` (`left`, `up`, `down`): how far the block moved in that direction since the previous
              frame, 10 pixels being worth 1, clipped to [-1, 1]; solved once it has gained 40 pixels.
            - `package.module:function`: a Python function that is called as `RewardFunction` and returns a
              `RewardSignal`. Modules of the current folder are found, too.

    Raises:
        ValueError: there is no function of that name.
    """
    room, _, rest = name.partition(":")
    if room == "pusht":
        from .pusht.rewards import pusht_reward

        return pusht_reward(name, rest)
    if not room or not rest:
        raise ValueError(f"there is no reward function {name!r}: choose one of {', '.join(KNOWN_NAMES)}.")
    return PythonReward(name, _imported(name, room, rest))


@dataclass(frozen=True)
class PythonReward:
    """A user's function as a `RewardFunction` whose result is checked."""

    name: str
    function: Callable

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        signal = self.function(frames, states)
        if not isinstance(signal, RewardSignal):
            raise ValueError(
                f"{self.name} returned {type(signal).__name__}: return a dreamer_hf.reward_signal.RewardSignal."
            )
        rewards, successes = np.asarray(signal.rewards, np.float32), np.asarray(signal.successes, bool)
        if rewards.shape != (len(frames),) or successes.shape != (len(frames),):
            raise ValueError(
                f"{self.name} returned rewards of shape {rewards.shape} and successes of shape {successes.shape} for "
                f"{len(frames)} frames: return one of each for every frame."
            )
        return RewardSignal(rewards, successes)


def _imported(name: str, module: str, attribute: str) -> Callable:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the reward function {name!r} cannot be imported ({error}): choose one of {', '.join(KNOWN_NAMES)}."
        ) from error
    if not callable(found):
        raise ValueError(f"expected {name!r} to be a function of frames and states: name one.")
    return found


__all__ = ["KNOWN_NAMES", "reward_function"]

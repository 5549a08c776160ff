"""What a reward function returns, and how it is called. See `reward_functions` for those that have a name."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class RewardSignal:
    """What the T frames of one episode were worth.

    Attributes:
        rewards: float32 (T,). `rewards[t]` is what arriving at frame t was worth; NaN where that cannot be determined,
            for example because nothing is found in the frame.
        successes: bool (T,), whether the task is solved at each frame. False where it cannot be determined.
    """

    rewards: np.ndarray
    successes: np.ndarray


class RewardFunction(Protocol):
    """Computes the rewards of one episode.

    Attributes:
        name: what `reward_functions.reward_function` was given.
    """

    name: str

    def __call__(self, frames: np.ndarray, states: np.ndarray | None = None) -> RewardSignal:
        """Return the rewards and successes of an episode of T frames.

        Args:
            frames: uint8 RGB (T, H, W, 3), or (T, V, H, W, 3) of V cameras, in order.
            states: float32 (T, S) in the units of the data, or None if they are not known.
        """


__all__ = ["RewardFunction", "RewardSignal"]

"""Opening policies by name. A policy acts in N episodes side by side.

Shapes: N episodes, A action components.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .observations import Observation, WorldView

NOISE_SUFFIX = "@noise="
FORMS = "a folder or repository of a LeRobot policy, player:push, or package.module:function"


class Policy(Protocol):
    """What acts.

    Attributes:
        image_side: side in pixels of the square frames that it was made for; None if it takes those of the world.
        gives_positions: whether its actions are positions; None if it does not know.
    """

    image_side: int | None
    gives_positions: bool | None

    def check_fits(self, view: WorldView) -> None:
        """Raise a ValueError that names both sides unless it can act on what a world shows."""

    def reset(self, seeds: Sequence[int], observation: Observation) -> None:
        """Begin N episodes; all of the policy's randomness follows from their seeds."""

    def act(self, observation: Observation) -> np.ndarray:
        """Return the actions (N, A)."""


@dataclass(frozen=True)
class PolicyName:
    """A policy's name, taken apart.

    Attributes:
        name: as given.
        place: the name without its suffix.
        noise: standard deviation of the noise added to the actions, in half-widths of the range of the world's
            actions.
    """

    name: str
    place: str
    noise: float = 0.0

    @classmethod
    def parse(cls, name: str) -> PolicyName:
        """Take a name apart.

        Raises:
            ValueError: the suffix is not a number of 0 or more.
        """
        place, separator, amount = name.partition(NOISE_SUFFIX)
        if not separator:
            return cls(name, name)
        try:
            noise = float(amount)
        except ValueError:
            noise = -1.0
        if not 0 <= noise < float("inf") or not place:
            raise ValueError(f"cannot read the policy {name!r}: write the noise as a number, such as PATH@noise=0.2.")
        return cls(name, place, noise)


def open_policy(name: str, device: str = "cpu") -> Policy:
    """Return the policy of a name; see `RankOptions.policies`.

    Raises:
        ValueError: there is no such policy.
    """
    parsed = PolicyName.parse(name)
    if parsed.place.startswith("player:"):
        from .player_policies import PlayerPolicy

        return PlayerPolicy(parsed.place.removeprefix("player:"))
    module, _, function = parsed.place.partition(":")
    if function and not os.path.exists(parsed.place) and "/" not in module:
        return FunctionPolicy(parsed.place, imported(parsed.place, "policy"))
    from .lerobot_policies import LeRobotPolicy

    return LeRobotPolicy(parsed.place, device)


def imported(place: str, what: str) -> Callable:
    """Return a function by its place, "package.module:function"; modules of the current folder are found, too.

    Args:
        place: where it is.
        what: what it is for, for the error.

    Raises:
        ValueError: it cannot be imported or is not a function.
    """
    module, _, function = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the {what} {place!r} cannot be imported ({error}): check its name.") from error
    if not callable(found):
        raise ValueError(f"the {what} {place!r} is not a function: name one.")
    return found


class FunctionPolicy:
    """A Python function as a policy. It is called with an `Observation` and returns actions (N, A).

    Args:
        name: for errors.
        function: the function.
    """

    image_side = None

    def __init__(self, name: str, function: Callable[[Observation], np.ndarray]):
        self.name, self._function = name, function
        self.gives_positions: bool | None = None

    def check_fits(self, view: WorldView) -> None:
        """See `Policy`: what a function can act on is not known."""

    def reset(self, seeds: Sequence[int], observation: Observation) -> None:
        """See `Policy`: a function keeps nothing."""

    def act(self, observation: Observation) -> np.ndarray:
        """See `Policy`."""
        return np.asarray(self._function(observation), np.float64)


__all__ = ["FORMS", "FunctionPolicy", "Policy", "PolicyName", "imported", "open_policy"]

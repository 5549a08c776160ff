"""From what a hand does on a device, in [-1, 1], to actions in the units of the data that a world was trained on."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..action_space import ActionSpace
from .options import CONTROLS


class Control(Protocol):
    """How device axes (A,) in [-1, 1] become the next raw action (A,)."""

    def __call__(self, axes: np.ndarray) -> np.ndarray: ...

    def resume_from(self, action: np.ndarray) -> None:
        """Tells the control which action the world saw last (after a reset or a rewind)."""


class DirectControl:
    """The stick is the action: released it is `space.rest`, at its ends it is `space.low` and `space.high`.

    For actions that are displacements or velocities.
    """

    def __init__(self, space: ActionSpace):
        self.space = space

    def __call__(self, axes: np.ndarray) -> np.ndarray:
        rest = self.space.rest
        reach = np.where(axes < 0, rest - self.space.low, self.space.high - rest)
        return self.space.valid(rest + axes * reach)

    def resume_from(self, action: np.ndarray) -> None:
        pass


class TargetControl:
    """The stick moves the action: released it stays where it is, at its ends it moves at full speed.

    For actions that are positions to go to. A full deflection crosses the range in `seconds_across` seconds of the
    world's own time.
    """

    def __init__(self, space: ActionSpace, fps: float, seconds_across: float = 1.5):
        self.space = space
        self.step_size = (space.high - space.low) / (fps * seconds_across)
        self.target = space.rest

    def __call__(self, axes: np.ndarray) -> np.ndarray:
        self.target = np.clip(self.target + axes * self.step_size, self.space.low, self.space.high)
        return self.space.valid(self.target)

    def resume_from(self, action: np.ndarray) -> None:
        self.target = self.space.valid(action)


class PositionControl:
    """The axes are a place in the range: -1 is `space.low`, 1 is `space.high`. For a mouse over absolute actions."""

    def __init__(self, space: ActionSpace):
        self.space = space

    def __call__(self, axes: np.ndarray) -> np.ndarray:
        return self.space.valid(self.space.low + (axes + 1) / 2 * (self.space.high - self.space.low))

    def resume_from(self, action: np.ndarray) -> None:
        pass


def make_control(space: ActionSpace, fps: float, kind: str = "auto", pointer: bool = False) -> Control:
    """Builds the control that suits a world and a device.

    Args:
        kind: "direct", "target", or "auto": direct for a world of displacements.
        pointer: whether the device gives places (a mouse) rather than deflections (a stick, keys). Over absolute
            actions a place is the action itself.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in CONTROLS:
        raise ValueError(f"unknown control {kind!r}: choose one of {', '.join(CONTROLS)}.")
    if kind == "auto":
        kind = "direct" if space.is_relative else "target"
    if kind == "direct":
        return DirectControl(space)
    return PositionControl(space) if pointer else TargetControl(space, fps)


def fit_axes(values: Sequence[float], size: int) -> np.ndarray:
    """Cuts or pads the axes that a device has to the A dimensions of the actions; missing axes rest at 0."""
    axes = np.zeros(size, dtype=np.float32)
    used = min(size, len(values))
    axes[:used] = values[:used]
    return axes

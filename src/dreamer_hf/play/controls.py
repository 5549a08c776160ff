"""From the axes of an input device, in [-1, 1], to actions in the units of the data that a world was trained on."""

from collections.abc import Sequence

import numpy as np

from ..action_space import ActionSpace
from .play_options import CONTROLS

KEY_PAIRS = (
    ("left", "right"),
    ("up", "down"),
    ("a", "d"),
    ("w", "s"),
    ("q", "e"),
    ("z", "x"),
    ("f", "h"),
    ("t", "g"),
    ("j", "l"),
    ("i", "k"),
    ("u", "o"),
    ("n", "m"),
    ("3", "4"),
    ("1", "2"),
)
"""Keys for the low and the high end of each action dimension, in the window and in the browser. As on a screen, up is
the low end."""


class Control:
    """Turns axes (A,) in [-1, 1] into the next raw action (A,) float32.

    A direct component is deflected: at rest it is `space.rest`, at its ends `space.low` and `space.high`. That suits
    displacements and velocities. The other components are targets, which suits positions to go to: a stick moves them
    at a speed that crosses the range in `seconds_across`, and they stay where they are when it is released. A pointer
    sets them: -1 is `space.low`, 1 is `space.high`.

    Args:
        space: actions of the world.
        fps: frame rate of the world.
        direct: bool (A,), the direct components.
        pointer: whether the axes are a place, as those of a mouse, instead of the deflection of a stick or of keys.
        seconds_across: seconds of the world's time.
    """

    def __init__(
        self,
        space: ActionSpace,
        fps: float,
        direct: np.ndarray,
        pointer: bool = False,
        seconds_across: float = 1.5,
    ):
        self.space, self.direct, self.pointer = space, direct, pointer
        self.step_size = (space.high - space.low) / (fps * seconds_across)
        self.rest = self.target = space.rest

    def __call__(self, axes: np.ndarray) -> np.ndarray:
        space, rest = self.space, self.rest
        reach = np.where(axes < 0, rest - space.low, space.high - rest)
        if self.pointer:
            self.target = space.low + (axes + 1) / 2 * (space.high - space.low)
        else:
            self.target = np.clip(self.target + axes * self.step_size, space.low, space.high)
        return space.valid(np.where(self.direct, rest + axes * reach, self.target))

    def resume_from(self, action: np.ndarray) -> None:
        """Continue from the action (A,) that the world saw last, after a reset or a rewind."""
        self.target = self.space.valid(action)


def make_control(space: ActionSpace, fps: float, kind: str = "auto", pointer: bool = False) -> Control:
    """Make the control for a world and an input device.

    Args:
        space: actions of the world.
        fps: frame rate of the world.
        kind: "direct" or "target" for all components; "auto": direct for those that are displacements
            (`space.relative`), target for the others.
        pointer: see `Control`.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in CONTROLS:
        raise ValueError(f"unknown control {kind!r}: choose one of {', '.join(CONTROLS)}.")
    return Control(space, fps, space.relative if kind == "auto" else np.full(space.size, kind == "direct"), pointer)


def fit_axes(values: Sequence[float], size: int) -> np.ndarray:
    """Cut or pad the axes of a device to the A dimensions of the actions; missing axes are 0."""
    axes = np.zeros(size, dtype=np.float32)
    used = min(size, len(values))
    axes[:used] = values[:used]
    return axes

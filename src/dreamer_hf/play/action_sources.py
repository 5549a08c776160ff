"""Where the actions of a played world come from: an input device, a file, or a pattern."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..action_space import ActionSpace
from ..data.action_data import read_action_table
from .controls import Control
from .play_options import PATTERNS


class ActionSource(Protocol):
    """Gives the action of each step. Steps count from 0 at the start frames, so a rewind counts back."""

    def action(self, step: int) -> np.ndarray | None:
        """Return the raw action (A,) float32 of a step, or None if there are no more."""

    def resume_from(self, action: np.ndarray) -> None:
        """Continue from the action (A,) that the world saw last, after a reset or a rewind."""


class AxesDevice(Protocol):
    """An input device, as far as actions are concerned; `devices.InputDevice` adds events."""

    pointer: bool

    def axes(self) -> np.ndarray:
        """Return one axis in [-1, 1] for each action dimension, (A,) float32."""


class DeviceActions:
    """The actions of a person: the axes of a device, some of them inverted, through a control."""

    def __init__(self, device: AxesDevice, control: Control, invert: Sequence[int] = ()):
        self.device = device
        self.control = control
        self.invert = list(invert)

    def action(self, step: int) -> np.ndarray:
        axes = self.device.axes()
        axes[self.invert] *= -1
        return self.control(axes)

    def resume_from(self, action: np.ndarray) -> None:
        self.control.resume_from(action)


class ScriptedActions:
    """A fixed list of raw actions (N, A); there are no more after the last one."""

    def __init__(self, actions: np.ndarray):
        self.actions = np.asarray(actions, dtype=np.float32)

    def action(self, step: int) -> np.ndarray | None:
        return self.actions[step] if step < len(self.actions) else None

    def resume_from(self, action: np.ndarray) -> None:
        pass


class PatternActions:
    """Endless smooth movement inside the middle of the action range, to try a world without an input device.

    Args:
        space: actions of the world.
        pattern: "circle" moves neighboring dimensions a quarter turn apart; "sweep" moves one dimension after the
            other and shows what each of them does.
        period: steps of one turn.
        reach: half the width of the movement, as a fraction of half the range.
    """

    def __init__(self, space: ActionSpace, pattern: str = "circle", period: int = 40, reach: float = 0.6):
        if pattern not in PATTERNS:
            raise ValueError(f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}.")
        self.space, self.pattern, self.period, self.reach = space, pattern, period, reach

    def action(self, step: int) -> np.ndarray:
        turn = 2 * np.pi * step / self.period
        if self.pattern == "circle":
            axes = np.cos(turn - np.pi / 2 * np.arange(self.space.size))
        else:
            axes = np.zeros(self.space.size)
            axes[step // self.period % self.space.size] = np.sin(turn)
        middle, half = (self.space.low + self.space.high) / 2, (self.space.high - self.space.low) / 2
        return self.space.valid(middle + self.reach * half * axes)

    def resume_from(self, action: np.ndarray) -> None:
        pass


def load_script(script: str | None, space: ActionSpace) -> ScriptedActions | PatternActions:
    """Read scripted actions.

    Args:
        script: a `.npy` or `.csv` file with one row of A raw actions per step, the name of a pattern ("circle",
            "sweep"), or None for "circle". A CSV file may start with a row of names.
        space: actions of the world.

    Raises:
        FileNotFoundError: it is neither a file nor a pattern.
        ValueError: the file does not hold finite actions of the world's width.
    """
    if script is None or script in PATTERNS:
        return PatternActions(space, script or "circle")
    path = Path(script)
    if not path.is_file():
        raise FileNotFoundError(f"no script at {path}: give a .npy or .csv file or one of {', '.join(PATTERNS)}.")
    actions = read_action_table(path)[0].astype(np.float32)
    if actions.shape[1] != space.size:
        raise ValueError(
            f"{path} holds actions of shape {actions.shape}: this world takes (steps, {space.size}), "
            f"one column for each of {', '.join(space.names)}."
        )
    if not np.isfinite(actions).all():
        row = int(np.argwhere(~np.isfinite(actions))[0, 0])
        raise ValueError(f"{path} holds a value in row {row} that is not a finite number: replace it.")
    return ScriptedActions(actions)

"""Where the actions of a played world come from: a hand on a device, a file, or a pattern."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..action_space import ActionSpace
from .actions import Control
from .commands import Command
from .options import PATTERNS


class ActionSource(Protocol):
    """Gives the action of each step. `step` counts from 0 at the start frames, so a rewind simply counts back."""

    def action(self, step: int) -> np.ndarray | None:
        """The raw action (A,) float32 of a step, or None when there are no more."""

    def resume_from(self, action: np.ndarray) -> None:
        """Tells the source which action the world saw last (after a reset or a rewind)."""


class InputDevice(Protocol):
    """What a hand moves.

    Attributes:
        labels: the name of the control that moves each action dimension, for as many as the device has.
        pointer: whether it gives places (a mouse) rather than deflections.
    """

    labels: Sequence[str]
    pointer: bool

    def handle(self, event) -> Command | None:
        """Follows a pygame event; returns the command that it stands for, if any."""

    def axes(self) -> np.ndarray:
        """One axis (A,) float32 in [-1, 1] for each action dimension."""


class DeviceActions:
    """The actions of a person: a device's axes, some of them inverted, through a control."""

    def __init__(self, device: InputDevice, control: Control, invert: Sequence[int] = ()):
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
    """A fixed list of raw actions (N, A); the session ends after the last one."""

    def __init__(self, actions: np.ndarray):
        self.actions = np.asarray(actions, dtype=np.float32)

    def action(self, step: int) -> np.ndarray | None:
        return self.actions[step] if step < len(self.actions) else None

    def resume_from(self, action: np.ndarray) -> None:
        pass


class PatternActions:
    """Endless smooth movement inside the middle of the action range, for trying a world without a hand.

    Args:
        pattern: "circle" moves neighboring dimensions a quarter turn apart; "sweep" moves one dimension after the
            other and shows what each of them does.
        period: steps for one turn.
        reach: half the width of the movement, as a part of half the range.
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
    """Reads scripted actions.

    Args:
        script: a `.npy` or `.csv` file with one row of A raw actions per step (a CSV may start with a line of
            names), the name of a pattern ("circle", "sweep"), or None for "circle".

    Raises:
        FileNotFoundError: when it is neither a file nor a pattern.
        ValueError: when the file does not hold finite actions of the world's width.
    """
    if script is None or script in PATTERNS:
        return PatternActions(space, script or "circle")
    path = Path(script)
    if not path.is_file():
        raise FileNotFoundError(f"no script at {path}: give a .npy or .csv file or one of {', '.join(PATTERNS)}.")
    try:
        actions = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_csv(path)
        actions = np.asarray(actions, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold a table of numbers: save actions as .npy or .csv ({error})."
        ) from error
    if actions.ndim != 2 or actions.shape[1] != space.size or len(actions) == 0:
        raise ValueError(
            f"{path} holds actions of shape {actions.shape}: this world takes (steps, {space.size}), "
            f"one column for each of {', '.join(space.names)}."
        )
    if not np.isfinite(actions).all():
        row = int(np.argwhere(~np.isfinite(actions))[0, 0])
        raise ValueError(f"{path} holds a value in row {row} that is not a finite number: replace it.")
    return ScriptedActions(actions)


def _read_csv(path: Path) -> np.ndarray:
    """Reads comma-separated numbers, (rows, columns); a first line that is not numeric is a header."""
    lines = path.read_text().splitlines()
    try:
        [float(cell) for cell in lines[0].split(",")] if lines else None
        header = 0
    except ValueError:
        header = 1
    return np.loadtxt(lines[header:], delimiter=",", ndmin=2)

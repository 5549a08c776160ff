"""Input devices for playing: joystick, keyboard and mouse, as axes in [-1, 1] and as commands.

Also the one place that imports pygame: prepared before SDL starts, without its messages, and with a sentence that says
how to install it.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

import numpy as np

from ..action_space import ActionSpace
from .action_sources import AxesDevice
from .controls import KEY_PAIRS, fit_axes

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
# Without this, SDL ignores joysticks whenever another window has the focus.
os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pygame 2.6 imports pkg_resources
        import pygame
except ImportError as error:
    raise ValueError("playing in a window needs pygame: pip install 'dreamer_hf[play]'.") from error

DEAD_ZONE = 0.12
TRIGGER_REST = -0.5
"""Axes that rest below this are triggers: a released trigger reads -1, a released stick about 0."""


class Command(Enum):
    """What a player can ask for, apart from moving."""

    PAUSE = auto()  # pause or continue
    STEP = auto()  # one frame, then pause
    RESET = auto()  # continue with the next start frames
    REWIND = auto()  # ten frames back
    HAND_OVER = auto()  # the agent or the player acts, in turns
    QUIT = auto()
    UNPLUGGED = auto()  # the joystick was unplugged
    PLUGGED = auto()  # the joystick is plugged in again


JOYSTICK_COMMANDS = {
    0: Command.PAUSE,  # A, as SDL numbers the buttons of an Xbox-style pad
    1: Command.REWIND,  # B
    2: Command.RESET,  # X
    3: Command.STEP,  # Y
    6: Command.HAND_OVER,  # back
    7: Command.PAUSE,  # start
}
LEFT_BUMPER, RIGHT_BUMPER = 4, 5


class InputDevice(AxesDevice, Protocol):
    """What a person plays with.

    Attributes:
        labels: name of the control that moves each action dimension, for as many as the device has.
        pointer: whether its axes are a place (a mouse) instead of a deflection.
    """

    labels: Sequence[str]

    def handle(self, event) -> Command | None:
        """Follow a pygame event; return the command that it stands for, if any."""


class Keyboard:
    """One pair of keys for each action dimension; follows the events of key presses.

    A key that was pressed and released between two frames counts for one frame, so that no tap is lost.
    """

    pointer = False

    def __init__(self, size: int):
        self.size = size
        self._pairs = [tuple(pygame.key.key_code(name) for name in pair) for pair in KEY_PAIRS[:size]]
        self._held: set[int] = set()
        self._tapped: set[int] = set()

    @property
    def labels(self) -> Sequence[str]:
        return [f"{low} / {high}" for low, high in KEY_PAIRS[: self.size]]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Follow key presses; returns no command, since the keys of commands belong to the window."""
        if event.type == pygame.KEYDOWN:
            self._held.add(event.key)
            self._tapped.add(event.key)
        elif event.type == pygame.KEYUP:
            self._held.discard(event.key)
        elif event.type == pygame.WINDOWFOCUSLOST:  # the release of a key will not be reported
            self._held.clear()
        return None

    def axes(self) -> np.ndarray:
        """Return the axes (A,) float32 of the keys pressed since the last call; opposite keys cancel."""
        pressed = self._held | self._tapped
        self._tapped.clear()
        return fit_axes([(high in pressed) - (low in pressed) for low, high in self._pairs], self.size)


class Mouse:
    """The position of the pointer in the image, for the first two dimensions: left and top are -1, right and bottom 1.

    Args:
        size: number of action dimensions A.
        image: returns the rectangle of the image in the window.
    """

    pointer = True

    def __init__(self, size: int, image: Callable[[], "pygame.Rect"]):
        self.size = size
        self._image = image
        self._axes = np.zeros(2, dtype=np.float32)

    @property
    def labels(self) -> Sequence[str]:
        return ["mouse x", "mouse y"][: self.size]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Follow the pointer; outside of the image, the nearest position in it counts."""
        if event.type == pygame.MOUSEMOTION:
            (x, y), image = event.pos, self._image()
            position = np.array([(x - image.x) / image.w, (y - image.y) / image.h])
            self._axes = np.clip(2 * position - 1, -1, 1)
        return None

    def axes(self) -> np.ndarray:
        """Return the axes (A,) float32 of the pointer's last position."""
        return fit_axes(self._axes, self.size)


class Joystick:
    """The first joystick that is plugged in, calibrated to where its axes rest when it is opened.

    Action dimensions take, in this order: the stick axes, each pair of triggers (right minus left), the x and the y of
    each hat, the bumpers (right minus left). As on a screen, up is -1.

    Raises:
        ValueError: no joystick is plugged in.
    """

    pointer = False

    def __init__(self, size: int, dead_zone: float = DEAD_ZONE):
        self.size = size
        self.dead_zone = dead_zone
        if not self.available():
            raise ValueError("no joystick is plugged in.")
        self._open(0)

    @staticmethod
    def available() -> bool:
        """Return whether a joystick is plugged in."""
        pygame.joystick.init()
        pygame.event.pump()
        return pygame.joystick.get_count() > 0

    @property
    def labels(self) -> Sequence[str]:
        return [label for label, _ in self._sources[: self.size]]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Turn buttons into commands, and notice when the joystick is unplugged or plugged in again."""
        if event.type == pygame.JOYDEVICEADDED and self._stick is None:
            self._open(event.device_index)
            return Command.PLUGGED
        if self._stick is None or getattr(event, "instance_id", None) != self._stick.get_instance_id():
            return None
        if event.type == pygame.JOYDEVICEREMOVED:
            self._stick = None
            return Command.UNPLUGGED
        return JOYSTICK_COMMANDS.get(event.button) if event.type == pygame.JOYBUTTONDOWN else None

    def axes(self) -> np.ndarray:
        """Return the current axes (A,) float32; all at rest while the joystick is unplugged."""
        if self._stick is None:
            return np.zeros(self.size, dtype=np.float32)
        return fit_axes([read() for _, read in self._sources], self.size)

    def _open(self, device_index: int) -> None:
        self._stick = pygame.joystick.Joystick(device_index)
        pygame.event.pump()
        self._rest = [self._stick.get_axis(i) for i in range(self._stick.get_numaxes())]
        self._sources = self._list_sources()

    def _list_sources(self) -> list[tuple[str, Callable[[], float]]]:
        sticks = [i for i, rest in enumerate(self._rest) if rest > TRIGGER_REST]
        triggers = [i for i, rest in enumerate(self._rest) if rest <= TRIGGER_REST]
        sources = [(f"stick axis {i}", lambda i=i: self._axis(i)) for i in sticks]
        for left, right in zip(triggers[::2], triggers[1::2]):
            sources.append(("triggers", lambda left=left, right=right: self._axis(right) - self._axis(left)))
        for hat in range(self._stick.get_numhats()):
            sources.append(("hat x", lambda hat=hat: self._stick.get_hat(hat)[0]))
            sources.append(("hat y", lambda hat=hat: -self._stick.get_hat(hat)[1]))
        if self._stick.get_numbuttons() > RIGHT_BUMPER:
            sources.append(("bumpers", lambda: self._button(RIGHT_BUMPER) - self._button(LEFT_BUMPER)))
        return sources

    def _axis(self, index: int) -> float:
        """Return an axis relative to where it rests: a trigger gives [0, 1], and a worn stick still centers."""
        value, rest = self._stick.get_axis(index), self._rest[index]
        room = 1 - rest if value > rest else 1 + rest
        return apply_dead_zone(np.clip((value - rest) / max(room, 1e-3), -1.0, 1.0), self.dead_zone)

    def _button(self, index: int) -> int:
        return int(self._stick.get_button(index))


def apply_dead_zone(value: float, dead_zone: float = DEAD_ZONE) -> float:
    """Map [-1, 1] onto itself, with 0 inside the dead zone and no jump at its edge."""
    return float(np.sign(value) * max(0.0, abs(value) - dead_zone) / (1.0 - dead_zone))


def open_device(name: str | None, space: ActionSpace, image: Callable[[], "pygame.Rect"] | None = None) -> InputDevice:
    """Open "joystick", "keyboard" or "mouse"; None takes the joystick if there is one, otherwise the keyboard.

    Prints what a player could not know: that no joystick was found, or that the device has fewer axes than the world
    has actions.

    Args:
        name: of the device.
        space: actions of the world.
        image: where a mouse points; see `Mouse`.
    """
    pygame.display.init()  # the events of every device come through it
    if name == "joystick" and not Joystick.available():
        print("No joystick is plugged in: playing with the keyboard instead.")
        name = "keyboard"
    if name == "mouse":
        device: InputDevice = Mouse(space.size, image)
    elif name == "joystick" or (name is None and Joystick.available()):
        device = Joystick(space.size)
    else:
        device = Keyboard(space.size)
    if len(device.labels) < space.size:
        resting = ", ".join(space.names[len(device.labels) :])
        print(
            f"This device moves {len(device.labels)} of the world's {space.size} actions; "
            f"these stay at rest: {resting}."
        )
    return device


__all__ = ["Command", "InputDevice", "Joystick", "Keyboard", "Mouse", "apply_dead_zone", "open_device", "pygame"]

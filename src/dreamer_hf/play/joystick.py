"""An Xbox-style joystick as axes in [-1, 1]."""

from collections.abc import Callable, Sequence

import numpy as np

from .actions import fit_axes
from .commands import Command
from .pygame_import import pygame

DEAD_ZONE = 0.12
TRIGGER_REST = -0.5  # a released trigger reads -1, a released stick about 0
# Buttons of an Xbox-style pad, as SDL numbers them.
A_BUTTON, B_BUTTON, X_BUTTON, Y_BUTTON, LEFT_BUMPER, RIGHT_BUMPER, START_BUTTON = 0, 1, 2, 3, 4, 5, 7
COMMANDS = {
    A_BUTTON: Command.PAUSE,
    START_BUTTON: Command.PAUSE,
    B_BUTTON: Command.REWIND,
    X_BUTTON: Command.RESET,
    Y_BUTTON: Command.STEP,
}


def apply_dead_zone(value: float, dead_zone: float = DEAD_ZONE) -> float:
    """Maps [-1, 1] to itself with nothing inside the dead zone and no jump at its edge."""
    return float(np.sign(value) * max(0.0, abs(value) - dead_zone) / (1.0 - dead_zone))


class Joystick:
    """The first joystick that is plugged in, calibrated to where its axes rest when it is opened.

    Action dimensions take, in this order: the stick axes, each pair of triggers (right minus left), the x and the y of
    each hat, the bumpers (right minus left). As on a screen, up is -1.

    Raises:
        ValueError: when no joystick is plugged in.
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
        """Whether a joystick is plugged in."""
        pygame.joystick.init()
        pygame.event.pump()
        return pygame.joystick.get_count() > 0

    @property
    def labels(self) -> Sequence[str]:
        return [label for label, _ in self._sources[: self.size]]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Turns buttons into commands, and notices when the joystick goes or comes back."""
        if (
            event.type == pygame.JOYDEVICEREMOVED
            and self._stick
            and event.instance_id == self._stick.get_instance_id()
        ):
            self._stick = None
            return Command.UNPLUGGED
        if event.type == pygame.JOYDEVICEADDED and self._stick is None:
            self._open(event.device_index)
            return Command.PLUGGED
        if event.type == pygame.JOYBUTTONDOWN and self._stick and event.instance_id == self._stick.get_instance_id():
            return COMMANDS.get(event.button)
        return None

    def axes(self) -> np.ndarray:
        """The axes (A,) float32 as they are now; all at rest while the joystick is unplugged."""
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
        """One axis measured from where it rests, so that a trigger gives [0, 1] and a worn stick still centers."""
        value, rest = self._stick.get_axis(index), self._rest[index]
        room = 1 - rest if value > rest else 1 + rest
        return apply_dead_zone(np.clip((value - rest) / max(room, 1e-3), -1.0, 1.0), self.dead_zone)

    def _button(self, index: int) -> int:
        return int(self._stick.get_button(index))

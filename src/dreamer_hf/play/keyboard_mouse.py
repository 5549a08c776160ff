"""Keyboard and mouse as axes in [-1, 1]."""

from collections.abc import Sequence

import numpy as np

from .actions import fit_axes
from .commands import Command
from .keys import KEY_PAIRS
from .pygame_import import pygame


class Keyboard:
    """One pair of keys for each action dimension; the keys held now are tracked from events.

    A key that was pressed and let go between two frames counts for one frame, so that no tap is lost.
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
        """Follows key presses; returns no command (those keys are the window's)."""
        if event.type == pygame.KEYDOWN:
            self._held.add(event.key)
            self._tapped.add(event.key)
        elif event.type == pygame.KEYUP:
            self._held.discard(event.key)
        elif event.type == pygame.WINDOWFOCUSLOST:  # the window hears no more of keys let go elsewhere
            self._held.clear()
        return None

    def axes(self) -> np.ndarray:
        """The axes (A,) float32 of the keys pressed since the last call; opposite keys cancel."""
        pressed = self._held | self._tapped
        self._tapped.clear()
        return fit_axes([(high in pressed) - (low in pressed) for low, high in self._pairs], self.size)


class Mouse:
    """The pointer's place in the picture: left and top are -1, right and bottom are 1, for the first two dimensions.

    Args:
        picture: the rectangle of the picture in the window.
    """

    pointer = True

    def __init__(self, size: int, picture: "pygame.Rect"):
        self.size = size
        self._picture = picture
        self._axes = np.zeros(2, dtype=np.float32)

    @property
    def labels(self) -> Sequence[str]:
        return ["mouse x", "mouse y"][: self.size]

    def handle(self, event: "pygame.event.Event") -> Command | None:
        """Follows the pointer; outside of the picture the nearest place in it counts."""
        if event.type == pygame.MOUSEMOTION:
            x, y = event.pos
            place = np.array([(x - self._picture.x) / self._picture.w, (y - self._picture.y) / self._picture.h])
            self._axes = np.clip(2 * place - 1, -1, 1)
        return None

    def axes(self) -> np.ndarray:
        """The axes (A,) float32 of the pointer's last place."""
        return fit_axes(self._axes, self.size)

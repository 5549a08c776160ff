"""The window of an environment: the one of play, without a player."""

import numpy as np

from ..action_space import ActionSpace
from ..pacing import PacingClock
from ..play.devices import pygame
from ..play.window import PlayWindow, View, open_display


class DreamViewer:
    """Shows what an agent does in a dream, at the world's own frame rate.

    Args:
        frame_size: height and width of a frame in pixels.
        space: the actions that the bars show.
        fps: frames a second.

    Raises:
        ValueError: there is no display, or no pygame.
    """

    def __init__(self, frame_size: tuple[int, int], space: ActionSpace, fps: float):
        open_display()
        self._window = PlayWindow(frame_size, space, title="Dream", help_lines=())
        self._clock = PacingClock(fps)

    def show(self, frame: np.ndarray, action: np.ndarray, step: int) -> None:
        """Waits until a frame, uint8 (H,W,3), is due and draws it with the raw action (A,) that led to it."""
        self._clock.tick()
        pygame.event.pump()
        self._window.draw(View((frame,), action, f"step {step}"))

    def close(self) -> None:
        """Closes the window."""
        self._window.close()

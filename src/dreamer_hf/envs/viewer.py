"""The window of an environment: that of play, without a player."""

import numpy as np

from ..action_space import ActionSpace
from ..pacing import PacingClock
from ..play.devices import pygame
from ..play.window import PlayWindow, View, open_display
from ..state_space import StateSpace


class DreamViewer:
    """Shows what an agent does in a dream, at the world's own frame rate.

    Args:
        frame_size: height and width of a frame in pixels.
        space: the actions that the bars show.
        fps: frame rate.
        state_space: the state that the gauges show. Defaults to none.

    Raises:
        ValueError: there is no display, or pygame is missing.
    """

    def __init__(
        self, frame_size: tuple[int, int], space: ActionSpace, fps: float, state_space: StateSpace | None = None
    ):
        open_display()
        self._window = PlayWindow(frame_size, space, title="Dream", help_lines=(), state_space=state_space)
        self._clock = PacingClock(fps)

    def show(self, frame: np.ndarray, action: np.ndarray, step: int, state: np.ndarray | None = None) -> None:
        """Wait until a frame, uint8 (H, W, 3), is due, and draw it with the raw action (A,) that led to it and the
        state (S,) if there is one."""
        self._clock.tick()
        for event in pygame.event.get():
            self._window.handle(event)  # follows changes of the window's size; the other events have no meaning here
        self._window.draw(View((frame,), action, f"step {step}", state=state))

    def close(self) -> None:
        """Close the window."""
        self._window.close()

"""Steady pacing at a world's own frame rate."""

import time
from collections import deque


class PacingClock:
    """Holds a loop to `fps` ticks a second and measures the rate it reaches.

    A tick that comes late shortens the wait for the next one, but never by more than a period: a slow model is
    played slowly, without bursts.
    """

    def __init__(self, fps: float, window: int = 20):
        self.period = 1.0 / fps
        self._due = time.perf_counter()
        self._ticks: deque[float] = deque(maxlen=window + 1)

    def tick(self) -> None:
        """Waits until the next tick is due."""
        time.sleep(max(0.0, self._due - time.perf_counter()))
        now = time.perf_counter()
        self._due = max(self._due, now - self.period) + self.period
        self._ticks.append(now)

    def restart(self) -> None:
        """Forgets the ticks so far, after a pause: it is no slow frame."""
        self._ticks.clear()
        self._due = time.perf_counter()

    @property
    def rate(self) -> float | None:
        """Ticks a second over the last ones; None before there are two."""
        if len(self._ticks) < 2:
            return None
        return (len(self._ticks) - 1) / (self._ticks[-1] - self._ticks[0])

"""A steady rate for loops that show frames: the play window, environment viewers and the server's engine."""

import time
from collections import deque


class PacingClock:
    """Schedules `fps` ticks per second and measures the rate that a loop reaches.

    A late tick shortens the wait for the next one, but never by more than one period: a slow model plays slowly,
    without bursts.

    A loop that has nothing else to wait for calls `tick`. A loop that waits for events, too, waits for at most
    `seconds_left` and then calls `tick_if_due`.

    Args:
        fps: ticks per second.
        window: number of periods that `rate` is averaged over.
    """

    def __init__(self, fps: float, window: int = 20):
        self.period = 1.0 / fps
        self._due = time.perf_counter()
        self._ticks: deque[float] = deque(maxlen=window + 1)

    @property
    def seconds_left(self) -> float:
        """Seconds until the next tick is due, at least 0."""
        return max(0.0, self._due - time.perf_counter())

    def tick_if_due(self) -> bool:
        """Count a tick and schedule the next one if one is due; return whether it was."""
        now = time.perf_counter()
        if now < self._due:
            return False
        self._due = max(self._due, now - self.period) + self.period
        self._ticks.append(now)
        return True

    def tick(self) -> None:
        """Wait until the next tick is due."""
        while not self.tick_if_due():
            time.sleep(self.seconds_left)

    def restart(self) -> None:
        """Forget the ticks so far, so that a pause does not count as a slow frame."""
        self._ticks.clear()
        self._due = time.perf_counter()

    @property
    def rate(self) -> float | None:
        """Ticks per second over the last `window` periods; None before the second tick."""
        if len(self._ticks) < 2:
            return None
        return (len(self._ticks) - 1) / (self._ticks[-1] - self._ticks[0])

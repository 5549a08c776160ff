"""How fast a client may send."""

import time


class TokenBucket:
    """Lets `rate` messages a second through on average, and as many at once as two seconds bring (at least one)."""

    def __init__(self, rate: float):
        self.rate, self.capacity = rate, max(1.0, 2 * rate)
        self._tokens, self._filled_at = self.capacity, time.monotonic()

    def take(self) -> bool:
        """Whether one more message is within the limit."""
        now = time.monotonic()
        self._tokens = min(self.capacity, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

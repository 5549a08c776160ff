"""Waiting for something that another thread, process or page does."""

import time

TIMEOUT = 90  # seconds; nothing takes that long, but the machine may be busy


def wait_until(condition, what="this", seconds=TIMEOUT):
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)
    return value

"""The pacing of the loop, in real time."""

import time

import pytest

from dreamer_hf.play.clock import PacingClock


def seconds_of_20_ticks() -> float:
    clock = PacingClock(fps=50)
    clock.tick()
    begun = time.perf_counter()
    for _ in range(20):
        time.sleep(0.008)
        clock.tick()
    seconds = time.perf_counter() - begun
    assert clock.rate == pytest.approx(20 / seconds, rel=0.05)
    return seconds


def test_it_keeps_the_rate_whatever_the_work_takes():
    # The best of several, since other processes may take the machine for a while.
    assert min(seconds_of_20_ticks() for _ in range(5)) == pytest.approx(0.4, rel=0.1)


def test_slow_work_is_not_followed_by_a_burst():
    clock = PacingClock(fps=50)
    clock.tick()
    time.sleep(0.3)
    begun = time.perf_counter()
    for _ in range(5):
        clock.tick()
    assert time.perf_counter() - begun > 2.5 / 50


def test_a_pause_is_forgotten():
    clock = PacingClock(fps=100)
    assert clock.rate is None
    for _ in range(3):
        clock.tick()
    assert clock.rate is not None
    clock.restart()
    assert clock.rate is None

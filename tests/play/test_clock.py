"""The pacing of the loop, in real time."""

import time

import pytest

from dreamer_hf.play.clock import PacingClock


def test_it_keeps_the_rate_whatever_the_work_takes():
    clock = PacingClock(fps=50)
    clock.tick()
    begun = time.perf_counter()
    for _ in range(20):
        time.sleep(0.008)
        clock.tick()
    assert time.perf_counter() - begun == pytest.approx(0.4, rel=0.2)
    assert clock.rate == pytest.approx(50, rel=0.2)


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
    time.sleep(0.1)
    clock.restart()
    assert clock.rate is None
    for _ in range(5):
        clock.tick()
    assert clock.rate == pytest.approx(100, rel=0.3)

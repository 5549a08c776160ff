"""PacingClock in real time."""

import time

import pytest

from dreamer_hf.pacing import PacingClock


def seconds_of_20_ticks() -> float:
    clock = PacingClock(fps=50)
    clock.tick()
    started = time.perf_counter()
    for _ in range(20):
        time.sleep(0.008)
        clock.tick()
    seconds = time.perf_counter() - started
    assert clock.rate == pytest.approx(20 / seconds, rel=0.05)
    return seconds


def test_the_rate_does_not_depend_on_the_work_between_ticks():
    # The best of several attempts: other processes may occupy the machine for a while.
    assert min(seconds_of_20_ticks() for _ in range(5)) == pytest.approx(0.4, rel=0.1)


def test_slow_work_is_not_followed_by_a_burst():
    clock = PacingClock(fps=50)
    clock.tick()
    time.sleep(0.3)
    started = time.perf_counter()
    for _ in range(5):
        clock.tick()
    assert time.perf_counter() - started > 2.5 / 50


def test_a_restart_forgets_the_ticks_so_far():
    clock = PacingClock(fps=100)
    assert clock.rate is None
    for _ in range(3):
        clock.tick()
    assert clock.rate is not None
    clock.restart()
    assert clock.rate is None


def test_a_loop_that_waits_for_events_asks_whether_a_tick_is_due():
    clock = PacingClock(fps=10)
    assert clock.seconds_left == 0 and clock.tick_if_due()
    assert not clock.tick_if_due() and 0 < clock.seconds_left <= 0.1
    time.sleep(clock.seconds_left)
    assert clock.tick_if_due()

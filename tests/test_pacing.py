"""PacingClock, in a time that the tests let pass, and once in real time."""

import time
from types import SimpleNamespace

import pytest

from dreamer_hf import pacing
from dreamer_hf.pacing import PacingClock


@pytest.fixture
def fake_time(monkeypatch):
    """Time that passes only while the clock sleeps or a test works (`sleep`); `late`: how much too long it sleeps."""
    fake = SimpleNamespace(now=100.0, late=0.0)

    def sleep(seconds: float) -> None:
        fake.now += seconds + fake.late

    fake.sleep = sleep
    monkeypatch.setattr(pacing, "time", SimpleNamespace(perf_counter=lambda: fake.now, sleep=sleep))
    return fake


@pytest.mark.parametrize("work", [0.0, 0.008, 0.019])
@pytest.mark.parametrize("late", [0.0, 0.0005])
def test_the_rate_does_not_depend_on_the_work_between_ticks(fake_time, work, late):
    clock, fake_time.late = PacingClock(fps=50), late
    clock.tick()
    started = fake_time.now
    for _ in range(20):
        fake_time.sleep(work - late if work else 0.0)
        clock.tick()
    seconds = fake_time.now - started
    assert seconds == pytest.approx(0.4, abs=0.001)
    assert clock.rate == pytest.approx(20 / seconds)


def test_slow_work_lowers_the_rate(fake_time):
    clock = PacingClock(fps=50)
    for _ in range(20):
        clock.tick()
        fake_time.sleep(0.05)
    assert clock.rate == pytest.approx(20)


def test_slow_work_is_not_followed_by_a_burst(fake_time):
    clock = PacingClock(fps=50)
    clock.tick()
    fake_time.sleep(0.3)
    started = fake_time.now
    for _ in range(5):
        clock.tick()
    assert fake_time.now - started > 2.5 / 50


def test_a_restart_forgets_the_ticks_so_far(fake_time):
    clock = PacingClock(fps=100)
    assert clock.rate is None
    for _ in range(3):
        clock.tick()
    assert clock.rate is not None
    clock.restart()
    assert clock.rate is None


def test_a_loop_that_waits_for_events_asks_whether_a_tick_is_due(fake_time):
    clock = PacingClock(fps=10)
    assert clock.seconds_left == 0 and clock.tick_if_due()
    assert not clock.tick_if_due() and clock.seconds_left == pytest.approx(0.1)
    fake_time.sleep(0.06)
    assert not clock.tick_if_due()
    fake_time.sleep(clock.seconds_left)
    assert clock.tick_if_due()


def test_in_real_time_no_tick_comes_early():
    clock = PacingClock(fps=50)
    clock.tick()
    started = time.perf_counter()
    for _ in range(5):
        clock.tick()
    assert time.perf_counter() - started >= 5 / 50 - 0.001

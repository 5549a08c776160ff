"""The number of CPU threads that is chosen for some work."""

from types import SimpleNamespace

import pytest
import torch

from dreamer_hf import threads
from dreamer_hf.threads import choose_threads


@pytest.fixture(autouse=True)
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def work_that_takes(monkeypatch):
    """Make work whose duration depends on the number of threads, measured by a fake clock."""
    now = [0.0]
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def make(seconds):
        def work():
            now[0] += seconds[torch.get_num_threads()]

        return work

    return make


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.02, 2: 0.018}, 1),
        ({1: 0.02, 2: 0.4}, 1),
        ({1: 0.08, 2: 0.04, 4: 0.038}, 2),
        ({1: 0.16, 2: 0.08, 4: 0.04, 8: 0.02}, 8),
    ],
    ids=["tiny", "busy machine", "small", "large"],
)
def test_threads_are_added_while_that_pays(work_that_takes, seconds, expected):
    choice = choose_threads(work_that_takes(seconds))
    assert choice.threads == torch.get_num_threads() == expected and choice.available == 8
    assert set(choice.seconds) == set(seconds)
    assert str(choice).startswith(f"{expected} of 8 CPU threads (") and " ms per step" in str(choice)


def test_a_number_that_is_not_a_power_of_two_is_reached(work_that_takes):
    torch.set_num_threads(6)
    assert choose_threads(work_that_takes({1: 0.08, 2: 0.04, 4: 0.02, 6: 0.01})).threads == 6


def test_a_given_number_is_used_without_measuring():
    def work():
        raise AssertionError("measured")

    assert str(choose_threads(work, 2)) == "2 of 8 CPU threads" and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert choose_threads(work).threads == 1
    with pytest.raises(ValueError, match="expected a positive int for --threads, got 0"):
        choose_threads(work, 0)

"""Reward functions by name, without a simulator."""

import numpy as np
import pytest

from dreamer_hf.reward_functions import reward_function
from dreamer_hf.reward_signal import RewardSignal

FRAMES = np.zeros((4, 8, 8, 3), np.uint8)
MODULE = """
import numpy as np
from dreamer_hf.reward_signal import RewardSignal

def brightness(frames, states=None):
    value = frames.mean(axis=(1, 2, 3))
    return RewardSignal(value, value > 1)

def too_short(frames, states=None):
    return RewardSignal(np.zeros(1), np.zeros(1, bool))

def bare(frames, states=None):
    return np.zeros(len(frames))

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    yield "my_rewards"
    __import__("sys").modules.pop("my_rewards", None)


def test_a_function_of_a_module_in_the_current_folder(module):
    function = reward_function(f"{module}:brightness")
    signal = function(FRAMES + np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1))
    assert function.name == "my_rewards:brightness" and isinstance(signal, RewardSignal)
    assert signal.rewards.tolist() == [0, 1, 2, 3] and signal.rewards.dtype == np.float32
    assert signal.successes.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("function", "message"), [("too_short", "one of each for every frame"), ("bare", "return a dreamer_hf")]
)
def test_results_of_another_form_are_refused(module, function, message):
    with pytest.raises(ValueError, match=message):
        reward_function(f"{module}:{function}")(FRAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coverage", "there is no reward function 'coverage'"),
        ("no_such_package.rewards:f", "cannot be imported"),
        ("my_rewards:nothing", "cannot be imported"),
        ("my_rewards:NUMBER", "to be a function"),
    ],
)
def test_names_that_lead_nowhere_are_refused(module, name, message):
    with pytest.raises(ValueError, match=message):
        reward_function(name)

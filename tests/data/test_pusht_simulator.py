"""The simulator as worlds know it: what their actions mean there, and where episodes begin."""

import numpy as np
import pytest

from dreamer_hf.pusht.simulator import PushTSimulator

SIZE = 32


@pytest.mark.parametrize("relative", [False, True])
def test_the_played_frames_go_on_under_their_own_actions(relative):
    """Handed over after four frames and given the action that the player gave then, it shows the player's fifth."""
    simulator = PushTSimulator(SIZE, relative)
    played = simulator.begin(3, 8)
    assert played.frames.shape == (8, SIZE, SIZE, 3) and played.frames.dtype == np.uint8
    assert played.action_mask.tolist() == [False] + [True] * 7
    begun = simulator.begin(3, 4)
    np.testing.assert_array_equal(begun.frames, played.frames[:4])
    for time in range(4, 8):
        simulator.step(played.actions[time])
        np.testing.assert_array_equal(simulator.picture(), played.frames[time])
    assert len(np.unique(played.frames, axis=0)) == 8  # something moves


def test_relative_actions_are_differences_of_the_targets():
    absolute, relative = (PushTSimulator(SIZE, form).begin(5, 6).actions for form in (False, True))
    np.testing.assert_allclose(relative[2:], np.diff(absolute[1:], axis=0), atol=1e-4)
    assert not relative[:2].any()


def test_an_action_beside_a_frame_is_carried_out_after_it():
    beside, before = (PushTSimulator(SIZE, relative=False, action_offset=offset) for offset in (0, 1))
    played, expected = beside.begin(5, 6), before.begin(5, 6)
    np.testing.assert_array_equal(played.actions[:-1], expected.actions[1:])
    assert played.action_mask.tolist() == [True] * 5 + [False]
    agents = []
    for action in ([50.0, 50.0], [400.0, 400.0]):
        beside.begin(5, 6)
        steps = []
        for _ in range(2):
            beside.step(np.array(action))
            steps.append(beside.agent)
        agents.append(steps)
    np.testing.assert_array_equal(agents[0][0], agents[1][0])
    assert np.linalg.norm(agents[0][1] - agents[1][1]) > 20


def test_a_slower_world_takes_several_ticks_at_a_time():
    slow, fast = PushTSimulator(SIZE, relative=False, fps=5), PushTSimulator(SIZE, relative=False)
    np.testing.assert_array_equal(slow.begin(2, 3).frames, fast.begin(2, 5).frames[::2])
    for fps in (20, 4, 3):
        with pytest.raises(ValueError, match="does not divide the simulator's 10"):
            PushTSimulator(SIZE, relative=False, fps=fps)


def test_targets_stay_on_the_table():
    simulator = PushTSimulator(SIZE, relative=True)
    simulator.begin(0, 1)
    for _ in range(5):
        simulator.step(np.array([400.0, -400.0]))
    assert simulator.target.tolist() == [512, 0]

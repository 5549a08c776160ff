"""The simulator as worlds see it: what their actions mean, and how episodes start."""

import numpy as np
import pytest
import torch

from dreamer_hf.pusht.simulator import PushTSimulator

SIZE = 32


@pytest.mark.parametrize("relative", [False, True])
def test_the_played_frames_continue_under_their_own_actions(relative):
    """After four frames, the action that the player chose next leads to the player's fifth frame."""
    simulator = PushTSimulator(SIZE, relative)
    played = simulator.reset(3, 8)
    frames = played.pixel_values_videos[0].permute(0, 2, 3, 1).numpy()
    assert frames.shape == (8, SIZE, SIZE, 3) and frames.dtype == np.uint8
    assert played.action_mask.tolist() == [[False] + [True] * 7]
    started = simulator.reset(3, 4)
    assert torch.equal(started.pixel_values_videos, played.pixel_values_videos[:, :4])
    for time in range(4, 8):
        simulator.step(played.actions[0, time].numpy())
        np.testing.assert_array_equal(simulator.render(), frames[time])
    assert len(np.unique(frames, axis=0)) == 8  # something moves


def test_relative_actions_are_differences_of_the_targets():
    absolute, relative = (PushTSimulator(SIZE, form).reset(5, 6).actions[0] for form in (False, True))
    np.testing.assert_allclose(relative[2:], np.diff(absolute[1:], axis=0), atol=1e-4)
    assert not relative[:2].any()


def test_an_action_paired_with_a_frame_is_executed_after_it():
    paired, before = (PushTSimulator(SIZE, relative=False, action_offset=offset) for offset in (0, 1))
    played, expected = paired.reset(5, 6), before.reset(5, 6)
    np.testing.assert_array_equal(played.actions[0, :-1], expected.actions[0, 1:])
    assert played.action_mask.tolist() == [[True] * 5 + [False]]
    agents = []
    for action in ([50.0, 50.0], [400.0, 400.0]):
        paired.reset(5, 6)
        steps = []
        for _ in range(2):
            paired.step(np.array(action))
            steps.append(paired.agent)
        agents.append(steps)
    np.testing.assert_array_equal(agents[0][0], agents[1][0])
    assert np.linalg.norm(agents[0][1] - agents[1][1]) > 20


def test_a_slower_world_takes_several_ticks_at_a_time():
    slow, fast = PushTSimulator(SIZE, relative=False, fps=5), PushTSimulator(SIZE, relative=False)
    assert torch.equal(slow.reset(2, 3).pixel_values_videos, fast.reset(2, 5).pixel_values_videos[:, ::2])
    for fps in (20, 4, 3):
        with pytest.raises(ValueError, match="does not divide the simulator's 10"):
            PushTSimulator(SIZE, relative=False, fps=fps)


def test_targets_stay_on_the_table():
    simulator = PushTSimulator(SIZE, relative=True)
    simulator.reset(0, 1)
    for _ in range(5):
        simulator.step(np.array([400.0, -400.0]))
    assert simulator.target.tolist() == [512, 0]

"""Dreams in a batch whose members come, wait and go are those that rollouts of their own dream."""

import gc
import weakref

import numpy as np
import pytest
import torch
from serving import alone

from dreamer_hf.serve.dreams import Dreams
from tiny import make_starts

TURNS = [[0], [0, 1], [0, 1, 2], [2], [0, 1, 2], [1], [1], [1], [1], [1], [0, 1, 2], [2, 0], [0, 1, 2]]


def action_of(dream, step):
    return np.array([100 + 50 * dream + 10 * step, 300 - 20 * step], dtype=np.float32)


def test_frames_do_not_depend_on_who_else_dreams(world, starts):
    dreams = Dreams(world, starts)
    beginnings = [(0, 5), (1, 6), (0, 7)]
    members = [dreams.begin(*beginning) for beginning in beginnings]
    rollouts = [alone(world, starts, *beginning) for beginning in beginnings]
    np.testing.assert_array_equal(members[1].frame, starts.pixel_values_videos[1, -1].permute(1, 2, 0))
    for turn in TURNS:
        chosen = [members[index] for index in turn]
        actions = [action_of(index, members[index].step) for index in turn]
        dreams.step(chosen, actions)
        for index, action in zip(turn, actions):
            expected = rollouts[index].step(torch.from_numpy(action)[None]).pixel_values[0].permute(1, 2, 0)
            difference = np.abs(members[index].frame - 255 * expected.numpy())
            assert difference.max() <= 0.51
            np.testing.assert_array_equal(members[index].action, action)
    assert [member.step for member in members] == [sum(index in turn for turn in TURNS) for index in range(3)]


def test_the_same_company_keeps_its_batch_and_a_batch_left_by_all_is_freed(world, starts):
    dreams = Dreams(world, starts)
    members = [dreams.begin(0, seed) for seed in range(3)]
    actions = [action_of(0, 0)] * 3
    dreams.step(members, actions)
    batch = weakref.ref(members[0].batch)
    dreams.step(members, actions)
    assert members[2].batch is batch()
    dreams.end(members[1])
    dreams.step(members[:1], actions[:1])  # one has gone, one waits
    gc.collect()
    assert batch() is None
    assert members[0].batch.rollout.batch_size == members[2].batch.rollout.batch_size == 1


def test_starts_of_another_world_and_wrong_step_counts_are_refused(world, starts):
    with pytest.raises(ValueError, match="width 3"):
        Dreams(world, make_starts(action_dim=3))
    with pytest.raises(ValueError, match="power of two"):
        Dreams(world, starts, num_inference_steps=3)

"""Dreams that step together, wait, restart, branch and rewind show the frames of rollouts that do nothing else."""

import gc
import weakref

import numpy as np
import pytest
import torch

from dreamer_hf.dreams import Dreams
from dreamer_hf.seeded_noise import SeededNoise
from tiny import make_starts, make_world

# Which of three dreams step, turn by turn: alone, in twos and threes, with waits longer than the window (4 frames).
TURNS = [[0], [0, 1], [0, 1, 2], [2], [0, 1, 2], [1], [1], [1], [1], [1], [0, 1, 2], [2, 0], [0, 1, 2]]
STARTS, SEEDS = [0, 1, 0], [5, 6, 7]


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture
def starts():
    return make_starts()


@pytest.fixture
def dreams(world, starts):
    return Dreams(world, starts)


def action_of(dream, step):
    return np.array([100 + 50 * dream + 10 * step, 300 - 20 * step], dtype=np.float32)


def members_of(dreams, together):
    """A dream at each of `STARTS`: as the rows of one rollout, or of one each."""
    if together:
        return dreams.begin(STARTS, SEEDS)
    return [dreams.begin([start], [seed])[0] for start, seed in zip(STARTS, SEEDS)]


def alone(world, starts, start, seed):
    """The plain rollout that a dream has to equal."""
    return world.start_rollout(starts[start], generator=SeededNoise(seed))


def frames_alone(world, starts, start, seed, actions):
    rollout = alone(world, starts, start, seed)
    outputs = [rollout.step(torch.from_numpy(action)[None]).pixel_values[0] for action in actions]
    return np.stack([(pixels * 255).round().byte().permute(1, 2, 0) for pixels in outputs])


def step(dreams, members, actions):
    dreams.step(members, actions)
    return np.stack([member.frame for member in members])


def assert_same_frames(ours, theirs):
    """To rounding: a batch adds up in another order than a single row, which may move a value across a half."""
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_a_seed_gives_the_plain_rollout_bit_for_bit(dreams, world, starts):
    actions = [action_of(0, t) for t in range(6)]
    members = dreams.begin([1], [3])
    frames = [step(dreams, members, [action])[0] for action in actions]
    np.testing.assert_array_equal(frames, frames_alone(world, starts, 1, 3, actions))
    dreams.restart(members, [0], [4])
    frames = [step(dreams, members, [action])[0] for action in actions]
    np.testing.assert_array_equal(frames, frames_alone(world, starts, 0, 4, actions))


def test_a_dream_begins_with_the_last_start_frame_and_action(dreams, world, starts):
    starts.action_mask[0] = False
    for _ in range(2):
        first, second = members = dreams.begin([0, 1], SEEDS[:2])
        np.testing.assert_array_equal(second.frame, starts.pixel_values_videos[1, -1].permute(1, 2, 0))
        np.testing.assert_array_equal(second.action, starts.actions[1, -1])
        np.testing.assert_array_equal(first.action, dreams.space.rest)
        with torch.no_grad():
            latents = world.tokenizer.encode(starts).latents[:, -1]
        torch.testing.assert_close(torch.stack([first.latents, second.latents]), latents)
        assert [(member.start, member.seed, member.step) for member in members] == [(0, 5, 0), (1, 6, 0)]
        dreams.step(members, [action_of(0, 0)] * 2)
        dreams.restart(members, [0, 1], SEEDS[:2])


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
def test_frames_do_not_depend_on_the_other_dreams(dreams, world, starts, together):
    members = members_of(dreams, together)
    rollouts = [alone(world, starts, *each) for each in zip(STARTS, SEEDS)]
    for turn in TURNS:
        chosen = [members[index] for index in turn]
        actions = [action_of(index, members[index].step) for index in turn]
        dreams.step(chosen, actions)
        for index, action in zip(turn, actions):
            expected = rollouts[index].step(torch.from_numpy(action)[None])
            pixels = expected.pixel_values[0].permute(1, 2, 0)
            assert np.abs(members[index].frame - 255 * pixels.numpy()).max() <= 0.51
            torch.testing.assert_close(members[index].latents, expected.latents[0], atol=1e-4, rtol=1e-4)
            np.testing.assert_array_equal(members[index].action, action)
    assert [member.step for member in members] == [sum(index in turn for turn in TURNS) for index in range(3)]


def test_a_restarted_row_is_a_fresh_dream_and_its_neighbors_continue(dreams, world, starts):
    members = dreams.begin(STARTS, SEEDS)
    actions = [[action_of(index, t) for t in range(10)] for index in range(3)]
    expected = [frames_alone(world, starts, *each, actions[i]) for i, each in enumerate(zip(STARTS, SEEDS))]
    rollout = members[0].rollout
    for t in range(10):
        if t == 4:
            dreams.restart([members[1]], [0], [9])
            expected[1] = [*expected[1][:4], *frames_alone(world, starts, 0, 9, actions[1][4:])]
        frames = step(dreams, members, [each[t] for each in actions])
        assert_same_frames(frames, [each[t] for each in expected])
    assert members[0].rollout is rollout and (members[1].step, members[1].seed) == (6, 9)


def test_frames_that_are_given_start_a_dream(dreams, world, starts):
    (given,) = dreams.begin(starts[1], [3])
    assert given.start is None
    actions = [action_of(0, t) for t in range(3)]
    frames = [step(dreams, [given], [action])[0] for action in actions]
    np.testing.assert_array_equal(frames, frames_alone(world, starts, 1, 3, actions))


@pytest.mark.parametrize("waits", [False, True], ids=["together", "after a wait"])
def test_a_clone_has_the_same_future_and_a_rewind_brings_it_back(dreams, waits):
    members = dreams.begin(STARTS, SEEDS)
    inputs = [[action_of(index, t) for index in range(3)] for t in range(8)]
    for actions in inputs[:3]:
        dreams.step(members, actions)
    if waits:
        dreams.step(members[:1], inputs[0][:1])
    copies = dreams.clone(members)
    assert [copy.step for copy in copies] == [member.step for member in members]
    expected = [step(dreams, members, actions) for actions in inputs[3:]]
    kept = dreams.clone(copies)
    np.testing.assert_array_equal([step(dreams, copies, actions) for actions in inputs[3:]], expected)
    dreams.rewind(members, kept)
    np.testing.assert_array_equal([each.frame for each in members], [each.frame for each in kept])
    assert [each.step for each in members] == [each.step for each in kept]
    np.testing.assert_array_equal([step(dreams, members, actions) for actions in inputs[3:]], expected)


def test_one_of_several_dreams_can_be_rewound(dreams):
    members = dreams.begin(STARTS, SEEDS)
    actions = [action_of(index, 0) for index in range(3)]
    (moment,) = dreams.clone(members[1:2])
    first = step(dreams, members, actions)
    dreams.rewind(members[1:2], [moment])
    assert_same_frames(step(dreams, members[1:2], actions[1:2])[0], first[1])


def test_the_same_dreams_keep_their_rollout_and_an_unused_one_is_freed(dreams):
    members = [dreams.begin([0], [seed])[0] for seed in SEEDS]
    actions = [action_of(0, 0)] * 3
    dreams.step(members, actions)
    rollout = weakref.ref(members[0].rollout)
    dreams.step(members, actions)
    assert members[2].rollout is rollout() and dreams.rollout(members) is rollout()
    del members[1]
    dreams.step(members[:1], actions[:1])  # one has gone, one waits
    gc.collect()
    assert rollout() is None
    assert members[0].rollout.batch_size == members[1].rollout.batch_size == 1


def test_what_does_not_fit_is_refused(world, starts, dreams):
    with pytest.raises(ValueError, match="width 3"):
        Dreams(world, make_starts(action_dim=3))
    with pytest.raises(ValueError, match="power of two"):
        Dreams(world, starts, num_inference_steps=3)
    with pytest.raises(ValueError, match="width 3"):
        dreams.begin(make_starts(1, action_dim=3), [0])
    for index in (2, -1):
        with pytest.raises(ValueError, match="choose from 0 to 1"):
            dreams.begin([index], [0])


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False])
def test_reserved_rollouts_hold_every_set_of_dreams_without_changing_a_frame(dreams, world, starts, together):
    """Sets of one to three dreams, in rollouts of one, two and four rows that stay the same objects."""
    dreams.reserve([1, 2, 4], compile=False)
    reserved = list(dreams._reserved.values())
    members = members_of(dreams, together)
    rollouts = [alone(world, starts, *each) for each in zip(STARTS, SEEDS)]
    for turn in TURNS:
        chosen = [members[index] for index in turn]
        actions = [action_of(index, members[index].step) for index in turn]
        frames = step(dreams, chosen, actions)
        for index, action, frame in zip(turn, actions, frames):
            pixels = rollouts[index].step(torch.from_numpy(action)[None]).pixel_values[0].permute(1, 2, 0)
            assert np.abs(frame - 255 * pixels.numpy()).max() <= 0.51
        used = chosen[0].rollout
        assert any(used is rollout for rollout in reserved) and used.batch_size in (1, 2, 4)
        assert len(chosen) <= used.batch_size < 2 * len(chosen) + 1


def test_rewinding_and_restarting_in_reserved_rollouts(dreams, starts):
    dreams.reserve([2, 4], compile=False)
    members = dreams.begin(STARTS, SEEDS)
    actions = [action_of(index, 0) for index in range(3)]
    dreams.step(members, actions)
    moments = dreams.clone(members)
    first = step(dreams, members, actions)
    dreams.rewind(members, moments)
    assert [member.step for member in members] == [1, 1, 1]
    assert_same_frames(step(dreams, members, actions), first)
    dreams.restart([members[1]], [0], [9])
    (fresh,) = dreams.begin([0], [9])
    assert_same_frames(step(dreams, members, actions)[1], step(dreams, [fresh], [actions[1]])[0])


def test_a_set_larger_than_every_reserved_rollout_still_steps(dreams):
    dreams.reserve([2], compile=False)
    members = dreams.begin(STARTS, SEEDS)
    dreams.step(members, [action_of(index, 0) for index in range(3)])
    assert members[0].rollout.batch_size == 3 and [member.step for member in members] == [1, 1, 1]

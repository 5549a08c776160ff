"""Rows that leave a batch and join it again dream what their own rollouts would dream."""

import pytest
import torch

from dreamer_hf import DreamerRollout
from tiny import rand, randn, tiny_world

WORLDS = {
    "one group": ({}, {"num_hidden_layers": 4}),
    "several groups": ({"num_encoder_layers": 8, "num_decoder_layers": 8}, {"num_hidden_layers": 12}),
    "all options": ({}, {"num_key_value_heads": 2, "qk_norm": True, "attn_logit_softcapping": 2.0}),
}
CONTEXTS = (1, 5, 2)
# Which rows step together, one after another: alone, in twos and threes, with waits longer than the window (3).
TURNS = [[0], [0, 1], [0, 1], [0, 1, 2], [1, 2], [2], [2], [2], [2], [2], [0, 2], [2, 1, 0], [0, 1, 2], [1], [0, 1]]


def starts_of(world, merge_commit):
    rollouts = [
        world.start_rollout(
            rand(1, frames, 3, 16, 16, seed=row),
            randn(1, frames, 2, seed=row),
            context_noise=randn(1, frames, 3, 5, seed=row),
        )
        for row, frames in enumerate(CONTEXTS)
    ]
    for rollout in rollouts:
        rollout.latent_rollout.merge_commit = merge_commit
    return rollouts


def inputs_of(row, step):
    """Action, start noise and commit noise of a row's step."""
    seed = 1000 * row + 10 * step
    return randn(1, 2, seed=seed), randn(1, 3, 5, seed=seed + 1), randn(1, 3, 5, seed=seed + 2)


@pytest.mark.slow
@pytest.mark.parametrize("merge_commit", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_rows_that_wait_and_rows_that_continue_dream_what_they_dream_alone(world, merge_commit):
    world = tiny_world(*world)
    alone, waiting = starts_of(world, merge_commit), starts_of(world, merge_commit)
    steps = [0] * len(CONTEXTS)
    for rows in TURNS:
        batch = DreamerRollout.join([waiting[row] for row in rows])
        inputs = [inputs_of(row, steps[row]) for row in rows]
        actions, start_noise, commit_noise = (torch.cat(column) for column in zip(*inputs))
        output = batch.step(actions, start_noise=start_noise, commit_noise=commit_noise)
        for place, row in enumerate(rows):
            waiting[row] = batch.clone(rows=[place])
            action, start, commit = inputs[place]
            expected = alone[row].step(action, start_noise=start, commit_noise=commit)
            torch.testing.assert_close(output.latents[place], expected.latents[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.pixel_values[place], expected.pixel_values[0], atol=1e-4, rtol=1e-4)
            steps[row] += 1
    assert min(steps) > 2 * 3


def test_a_row_that_leaves_is_a_copy():
    world = tiny_world()
    batch = DreamerRollout.join(starts_of(world, True))
    batch.step(randn(3, 2))
    taken = batch.clone(rows=[1])
    before = [layer.keys.clone() for layer in taken.latent_rollout.cache.ring_layers]
    batch.step(randn(3, 2))
    assert all(torch.equal(a, b.keys) for a, b in zip(before, taken.latent_rollout.cache.ring_layers))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def dream(rollout, actions):
    """Steps through actions (B,F,a); returns latents (B,F,N_z,d_z)."""
    return torch.stack([rollout.step(actions[:, i]).latents for i in range(actions.shape[1])], dim=1)


def rollouts_of(world, generators):
    return [
        world.start_rollout(rand(1, 2 + row, 3, 16, 16, seed=row), generator=generator)
        for row, generator in enumerate(generators)
    ]


def test_rows_bring_their_noise_and_the_joined_rollouts_stay_unchanged():
    world, actions = tiny_world(), randn(2, 6, 2)
    alone = rollouts_of(world, [seeded(0), seeded(1)])
    rollouts = rollouts_of(world, [seeded(0), [seeded(1)]])
    for each in (alone[0], rollouts[0]):
        dream(each, actions[:1, :2])
    batch = DreamerRollout.join(rollouts)
    assert batch.batch_size == 2 and batch.frame_index == 4
    expected = torch.cat([dream(each, actions[row : row + 1]) for row, each in enumerate(alone)])
    torch.testing.assert_close(dream(batch, actions), expected, atol=1e-4, rtol=1e-4)
    for row, each in enumerate(rollouts):
        torch.testing.assert_close(dream(each, actions[row : row + 1]), expected[row : row + 1], atol=1e-4, rtol=1e-4)


def test_joined_rows_of_one_generator_draw_in_turn():
    world, shared = tiny_world(), seeded(0)
    batch = DreamerRollout.join(rollouts_of(world, [shared, shared]))
    first, second = batch.latent_rollout.generator
    assert first is second and first is not shared


def test_a_joined_rollout_resets_to_its_contexts_where_these_are_of_one_length():
    world, actions, noise = tiny_world(), randn(2, 4, 2), randn(2, 3, 3, 5)
    frames = rand(2, 3, 3, 16, 16)
    expected = dream(world.start_rollout(frames, generator=[seeded(0), seeded(1)], context_noise=noise), actions)
    rollouts = [
        world.start_rollout(frames[row : row + 1], generator=seeded(row), context_noise=noise[row : row + 1])
        for row in range(2)
    ]
    batch = DreamerRollout.join(rollouts)
    dream(batch, actions)
    batch.reset(context_noise=noise, generator=[seeded(0), seeded(1)])
    torch.testing.assert_close(dream(batch, actions), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="contexts of different lengths"):
        DreamerRollout.join(rollouts_of(world, [None, None])).reset()


def test_what_cannot_be_joined_is_refused():
    world = tiny_world()
    first, second = rollouts_of(world, [None, None])
    with pytest.raises(ValueError, match="one model and one schedule"):
        DreamerRollout.join([first, world.start_rollout(rand(1, 2, 3, 16, 16), num_inference_steps=2)])
    with pytest.raises(ValueError, match="one model and one schedule"):
        DreamerRollout.join([first, *rollouts_of(tiny_world(), [None])])
    with pytest.raises(ValueError, match="every row has a generator, or none"):
        DreamerRollout.join([first, *rollouts_of(world, [seeded(0)])])
    for rows in ([], [2], [-1], [True], [0.0], [[0]]):
        with pytest.raises(ValueError, match="indices from 0 to 1 for rows, got"):
            DreamerRollout.join([first, second]).clone(rows=rows)

"""Rows taken out of a batch and joined again dream what rollouts of their own dream."""

import pytest
import torch

from dreamer_hf.rollout_rows import join_rows, take_row
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
    return [
        world.start_rollout(
            rand(1, frames, 3, 16, 16, seed=row),
            randn(1, frames, 2, seed=row),
            context_noise=randn(1, frames, 3, 5, seed=row),
            merge_commit=merge_commit,
        )
        for row, frames in enumerate(CONTEXTS)
    ]


def inputs_of(row, step):
    """Action, start noise and commit noise of a row's step."""
    seed = 1000 * row + 10 * step
    return randn(1, 2, seed=seed), randn(1, 3, 5, seed=seed + 1), randn(1, 3, 5, seed=seed + 2)


@pytest.mark.parametrize("merge_commit", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_rows_that_wait_and_rows_that_go_on_dream_what_they_dream_alone(world, merge_commit):
    world = tiny_world(*world)
    alone, waiting = starts_of(world, merge_commit), starts_of(world, merge_commit)
    steps = [0] * len(CONTEXTS)
    for rows in TURNS:
        batch = join_rows([waiting[row] for row in rows])
        inputs = [inputs_of(row, steps[row]) for row in rows]
        actions, start_noise, commit_noise = (torch.cat(column) for column in zip(*inputs))
        output = batch.step(actions, start_noise=start_noise, commit_noise=commit_noise)
        for place, row in enumerate(rows):
            waiting[row] = take_row(batch, place)
            action, start, commit = inputs[place]
            expected = alone[row].step(action, start_noise=start, commit_noise=commit)
            torch.testing.assert_close(output.latents[place], expected.latents[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.pixel_values[place], expected.pixel_values[0], atol=1e-4, rtol=1e-4)
            steps[row] += 1
    assert min(steps) > 2 * 3


def test_a_row_taken_out_is_a_copy():
    world = tiny_world()
    batch = join_rows(starts_of(world, True))
    batch.step(randn(3, 2))
    taken = take_row(batch, 1)
    before = [layer.keys.clone() for layer in taken.latent_rollout._cache.ring_layers]
    batch.step(randn(3, 2))
    assert all(torch.equal(a, b.keys) for a, b in zip(before, taken.latent_rollout._cache.ring_layers))

"""Seeded noise: the published values of Philox, the moments of the normal distribution, and its use in rollouts."""

import numpy as np
import pytest
import torch

import tiny
from dreamer_hf.seeded_noise import MAX_SEED, SeededNoise, draw_normal, draw_normals, philox


# Known answers of the authors' library Random123, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter, key, expected):
    words = philox([np.array([value], np.uint32) for value in counter], np.array([key], np.uint64))
    assert words.tolist() == [expected]


def test_noise_is_normal_and_independent_of_the_batch():
    noise = SeededNoise(3).normal((1000, 100))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01 and abs((noise**4).mean() - 3) < 0.1
    together = draw_normal([SeededNoise(seed) for seed in (3, MAX_SEED)], (7,))
    np.testing.assert_array_equal(together, [SeededNoise(seed).normal((7,)) for seed in (3, MAX_SEED)])


def test_draws_differ_and_repeat():
    noise = SeededNoise(5)
    first, second = noise.normal((4,)), noise.normal((4,))
    assert not np.array_equal(first, second)
    noise.set_state(1)
    np.testing.assert_array_equal(noise.copy().normal((4,)), second)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="from 0 to"):
        SeededNoise(seed)


def test_rollouts_draw_context_start_and_commit_noise_in_this_order():
    world = tiny.tiny_world()
    frames = torch.rand(2, 3, 3, *world.config.tokenizer_config.frame_size)
    actions = torch.zeros(2, world.config.dynamics_config.action_dim)
    seeded = world.start_rollout(frames, generator=[SeededNoise(1), SeededNoise(2)])
    config = world.config.dynamics_config
    frame_shape = (config.num_latent_tokens, config.latent_dim)
    sources = [SeededNoise(1), SeededNoise(2)]
    given = world.start_rollout(frames, context_noise=draw_normal(sources, (3, *frame_shape)))
    for _ in range(3):
        start, commit = draw_normal(sources, frame_shape), draw_normal(sources, frame_shape)
        expected = given.step(actions, start_noise=start, commit_noise=commit).latents
        torch.testing.assert_close(seeded.step(actions).latents, expected, rtol=0, atol=0)


def test_draws_together_are_the_draws_one_after_another():
    together, apart = ([SeededNoise(3), SeededNoise(4)] for _ in range(2))
    apart[1].num_draws = together[1].num_draws = 7
    both = draw_normals(together, (3, 2), 2)
    np.testing.assert_array_equal(both, [draw_normal(apart, (3, 2)), draw_normal(apart, (3, 2))])
    assert [source.num_draws for source in together] == [2, 9]

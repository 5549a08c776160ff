"""A context may be longer than what can influence a dream: it costs no more, and changes nothing."""

import pytest
import torch

from tiny import rand, randn, tiny_world

LONG = 90
# Frames that can influence a dream, and how they are encoded: the window is 3 or 8 frames, chunks have 32.
WORLDS = {
    "reach 4, one chunk": ({}, {}, 6),
    "reach 35 through 21, two chunks": (
        {"context_length": 8, "num_encoder_layers": 6, "num_decoder_layers": 6, "time_every": 2},
        {"context_length": 8, "num_hidden_layers": 10, "time_every": 2},
        56,
    ),
    "the decoder reaches further": (
        {"context_length": 8, "num_decoder_layers": 20},
        {"context_length": 2, "num_hidden_layers": 4},
        42,
    ),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def start(length):
    """Frames, actions and mask of a context."""
    return rand(2, LONG, 3, 16, 16)[:, -length:], randn(2, LONG, 2)[:, -length:], (rand(2, LONG) < 0.8)[:, -length:]


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_long_context_equals_the_full_history(world):
    world = tiny_world(*world[:2])
    frames, actions, mask = start(LONG)
    actions, mask = torch.cat([actions, randn(2, 5, 2, seed=1)], 1), torch.cat([mask, mask[:, :5]], 1)
    cached, full = (
        world.generate(frames, actions, mask, generator=seeded(), use_cache=use_cache) for use_cache in (True, False)
    )
    torch.testing.assert_close(cached.latents, full.latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cached.pixel_values_videos, full.pixel_values_videos, atol=1e-4, rtol=1e-4)
    latents = world.encode(frames).latents.detach()
    alone = world.dynamics.generate(latents, actions, mask, generator=seeded()).latents
    torch.testing.assert_close(alone, full.latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_what_cannot_influence_a_dream_is_not_computed(world):
    *changes, expected = world
    world = tiny_world(*changes)
    encoded = []
    world.tokenizer.encoder.register_forward_pre_hook(lambda module, inputs: encoded.append(inputs[0].shape[1]))
    rollout = world.start_rollout(*start(LONG))
    assert sum(encoded) == expected and max(encoded) <= 32
    assert rollout.frame_index == rollout.latent_rollout.context.num_frames == LONG
    encoded.clear()
    world.start_rollout(*start(3))
    assert encoded == [3]


@pytest.mark.parametrize("rows", [None, [1]])
def test_resets_to_long_contexts(rows):
    world, actions = tiny_world(), randn(2, 6, 2, seed=2)
    noise = [(randn(2, 3, 5, seed=100 + i), randn(2, 3, 5, seed=200 + i)) for i in range(6)]

    def dream(rollout):
        outputs = [rollout.step(actions[:, i], None, *noise[i]) for i in range(6)]
        return torch.stack([output.latents for output in outputs]), outputs[-1].pixel_values

    frames, *steering = start(LONG)
    context_noise = randn(2, LONG, 3, 5, seed=3)
    expected = dream(world.start_rollout(frames, *steering, context_noise=context_noise))
    rollout = world.start_rollout(frames[:, -2:])
    rollout.step(actions[:, 0])
    chosen = slice(None) if rows is None else rows
    first = frames[chosen], *(values[chosen] for values in steering)
    latents = rollout.reset(*first, rows=rows, context_noise=context_noise[chosen])
    torch.testing.assert_close(latents[:, -1], world.encode(first[0]).latents[:, -1], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(dream(rollout), expected):
        ours, theirs = (x[..., chosen, :, :] if x.ndim == 4 and len(x) == 6 else x[chosen] for x in (ours, theirs))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    if rows is None:  # the first context is the long one now
        rollout.reset(context_noise=context_noise)
        assert rollout.frame_index == LONG
        torch.testing.assert_close(dream(rollout)[0], expected[0], atol=1e-4, rtol=1e-4)

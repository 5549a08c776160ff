"""The fast models equal the reference that computes one number at a time, for every option of the paper."""

import elementwise_dreamer4 as elementwise
import pytest
import torch

from tiny import rand, randn, tiny_dynamics, tiny_tokenizer

OPTIONS = {
    "published": {},
    "grouped queries": {"num_key_value_heads": 2},
    "QK-norm": {"qk_norm": True},
    "soft capping": {"attn_logit_softcapping": 2.0},
    "all of them": {"num_key_value_heads": 1, "qk_norm": True, "attn_logit_softcapping": 1.5},
    "another base": {"rope_theta": 100.0},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokenizer(options):
    tokenizer = tiny_tokenizer(image_mean=[0.9, 0.5, 0.2], image_std=[0.1, 0.5, 0.3], **options)
    frames = rand(2, 5, 3, 16, 16)
    patch_mask = rand(2, 5, 4, seed=1) < 0.4
    with torch.no_grad():
        output = tokenizer(frames, patch_mask=patch_mask)
        for row in range(2):
            latents = elementwise.encode(frames[row], tokenizer, patch_mask[row])
            torch.testing.assert_close(output.latents[row].double(), latents, atol=1e-5, rtol=1e-4)
            expected = elementwise.decode(latents, tokenizer)
            torch.testing.assert_close(output.reconstruction[row].double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": [16, 40]},
        {"image_size": [24, 8], "latent_dim": 6, "latent_group_size": 3},
        {"image_size": [16, 32], "patch_size": 4, "num_latent_tokens": 8, "spatial_latents": True},
        {
            "image_size": [16, 24],
            "num_latent_tokens": 3,
            "latent_dim": 4,
            "latent_group_size": 2,
            "spatial_latents": True,
        },
        {
            "image_size": [16, 24],
            "num_latent_tokens": 4,
            "latent_dim": 4,
            "latent_group_size": 2,
            "spatial_latents": True,
            "num_whole_frame_tokens": 2,
        },
        {"image_size": [16, 40], "patch_positions": True},
    ],
    ids=[
        "wide frames",
        "grouped latents",
        "spatial latents",
        "grouped spatial latents",
        "cells and the whole frame",
        "positions",
    ],
)
def test_tokenizer_of_other_frames_and_bottlenecks(options):
    tokenizer = tiny_tokenizer(**options)
    config = tokenizer.config
    frames = rand(1, 5, 3, *config.frame_size)
    with torch.no_grad():
        output = tokenizer(frames)
        assert output.reconstruction.shape == frames.shape
        assert output.latents.shape[2:] == (config.num_latent_tokens, config.latent_dim)
        latents = elementwise.encode(frames[0], tokenizer)
        torch.testing.assert_close(output.latents[0].double(), latents, atol=1e-5, rtol=1e-4)
        expected = elementwise.decode(latents, tokenizer)
        torch.testing.assert_close(output.reconstruction[0].double(), expected, atol=1e-4, rtol=1e-4)


def test_latent_noise_is_decoded_but_not_returned():
    tokenizer, frames = tiny_tokenizer(), rand(1, 3, 3, 16, 16)
    with torch.no_grad():
        latents = tokenizer(frames).latents
        noise = 0.3 * randn(*latents.shape)
        noisy = tokenizer(frames, latent_noise=noise)
        expected = elementwise.decode(latents[0] + noise[0], tokenizer)
    torch.testing.assert_close(noisy.latents, latents)
    torch.testing.assert_close(noisy.reconstruction[0].double(), expected, atol=1e-4, rtol=1e-4)


ACTIONS = {
    "one action token": {},
    "three action tokens": {"num_action_tokens": 3},
    "statistics": {"action_stats": {"mean": [1.0, -2.0], "std": [3.0, 0.5]}},
    "binary and continuous": {"action_dim": 3, "action_num_classes": [0, 2, 0]},
    "categorical alone": {"action_dim": 2, "action_num_classes": [4, 3]},
}


@pytest.mark.parametrize("options", [*OPTIONS.values(), *ACTIONS.values()], ids=[*OPTIONS, *ACTIONS])
def test_dynamics(options):
    dynamics = tiny_dynamics(**options)
    config = dynamics.config
    latents, frames = randn(2, 5, 3, 5), (2, 5)
    signal_ids = torch.randint(config.num_signal_levels, frames)
    step_ids = torch.randint(5, frames)
    actions = torch.randint(2, (*frames, config.action_dim)).float()
    action_mask = rand(*frames, seed=2) < 0.6
    with torch.no_grad():
        output = dynamics(latents, signal_ids, step_ids, actions, action_mask).latents
        for row in range(2):
            arguments = (latents[row], signal_ids[row], step_ids[row], actions[row], action_mask[row])
            expected = elementwise.denoise(*arguments, dynamics)
            torch.testing.assert_close(output[row].double(), expected, atol=1e-4, rtol=1e-4)


def test_missing_actions_may_hold_any_values():
    dynamics = tiny_dynamics(action_dim=2, action_num_classes=[0, 3])
    latents, ids = randn(1, 4, 3, 5), torch.zeros(1, 4, dtype=torch.long)
    actions = torch.tensor([[[0.5, 1.0], [torch.nan, torch.inf], [0.1, 2.0], [torch.nan, -7.0]]])
    action_mask = torch.tensor([[True, False, True, False]])
    with torch.no_grad():
        output = dynamics(latents, ids, ids, actions, action_mask).latents
        cleaned = dynamics(latents, ids, ids, actions.nan_to_num(0, 0, 0).clamp(0, 2), action_mask).latents
        unlabeled = dynamics(latents, ids, ids, actions, torch.zeros_like(action_mask)).latents
        without = dynamics(latents, ids, ids).latents
    assert torch.equal(output, cleaned)
    assert torch.equal(unlabeled, without)
    assert not torch.allclose(output, without)

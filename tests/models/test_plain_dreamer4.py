"""The plain PyTorch models, which students read and benchmarks time, compute what ours compute."""

import pytest
import torch
from plain_dreamer4 import (
    DynamicsConfig,
    PlainDynamics,
    PlainRollout,
    PlainTokenizer,
    TokenizerConfig,
    plain_dynamics,
    plain_tokenizer,
    shortcut_loss,
    split_projections,
)

from dreamer_hf.losses import FrameConditions, shortcut_forcing_loss
from dreamer_hf.scheduling_shortcut import sample_training_grid
from tiny import rand, randn, tiny_dynamics, tiny_tokenizer, tiny_world

OPTIONS = {
    "published": {},
    "all options": {"num_key_value_heads": 2, "qk_norm": True, "attn_logit_softcapping": 2.0, "rope_theta": 100.0},
}
BOTTLENECKS = {
    "spatial latents": {"spatial_latents": True, "num_latent_tokens": 4},
    "cells and the whole frame": {"spatial_latents": True, "num_latent_tokens": 6, "num_whole_frame_tokens": 2},
    "positions": {"image_size": [24, 16], "patch_positions": True},
    "grouped latents": {"image_size": [24, 16], "latent_dim": 6, "latent_group_size": 3},
}
ACTIONS = {
    "statistics": {"num_action_tokens": 3, "action_stats": {"mean": [1.0, -2.0], "std": [3.0, 0.5]}},
    "binary and continuous": {"action_dim": 3, "action_num_classes": [0, 2, 0]},
    "categorical": {"action_num_classes": [4, 3]},
}
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.mark.parametrize("options", (OPTIONS | BOTTLENECKS).values(), ids=OPTIONS | BOTTLENECKS)
def test_tokenizer(options):
    tokenizer = tiny_tokenizer(image_mean=[0.9, 0.5, 0.2], image_std=[0.1, 0.5, 0.3], **options)
    plain, frames = plain_tokenizer(tokenizer), rand(2, 5, 3, *tokenizer.config.frame_size)
    patch_mask = rand(2, 5, tokenizer.config.num_patches, seed=1) < 0.4
    with torch.no_grad():
        masked = tokenizer(frames, patch_mask=patch_mask)
        torch.testing.assert_close(plain.encode(frames, patch_mask), masked.latents, **CLOSE)
        torch.testing.assert_close(plain.encode(frames), tokenizer.encode(frames).latents, **CLOSE)
        decoded = tokenizer.decode(masked.latents).pixel_values_videos
        torch.testing.assert_close(plain.decode(masked.latents), decoded, **CLOSE)


@pytest.mark.parametrize("options", (OPTIONS | ACTIONS).values(), ids=OPTIONS | ACTIONS)
def test_objective_and_its_gradients(options):
    dynamics, rows, frames = tiny_dynamics(**options).train(), 6, 5
    plain = plain_dynamics(dynamics)
    signal_ids, step_ids = sample_training_grid((rows, frames), 16, torch.Generator().manual_seed(0), "cpu")
    step_ids[:2] = 0  # two flow rows, for which only the plain form takes all three passes
    actions, action_mask = rand(rows, frames, dynamics.config.action_dim).round(), rand(rows, frames, seed=1) < 0.7
    latents, noise = randn(rows, frames, 3, 5), randn(rows, frames, 3, 5, seed=2)
    conditions = FrameConditions(signal_ids, step_ids, actions, action_mask)
    expected = shortcut_loss(plain, latents, actions, action_mask, signal_ids, step_ids, noise)
    expected.backward()
    result = shortcut_forcing_loss(dynamics, latents, noise, conditions)
    result.loss.backward()
    torch.testing.assert_close(result.loss, expected, **CLOSE)
    gradients = {name: parameter.grad for name, parameter in dynamics.named_parameters()}
    gradients = split_projections(gradients, dynamics.config)
    assert gradients.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, **CLOSE)


@pytest.mark.parametrize("context_frames", [1, 2, 5])
def test_rollout_past_several_windows(context_frames):
    world = tiny_world()
    frames, noise = rand(2, context_frames, 3, 16, 16), randn(2, context_frames, 3, 5)
    plain = PlainRollout(plain_tokenizer(world.tokenizer), plain_dynamics(world.dynamics), frames, noise)
    ours = world.start_rollout(frames, context_noise=noise)
    for step in range(9):
        action, start, commit = randn(2, 2, seed=step), randn(2, 3, 5, seed=50 + step), randn(2, 3, 5, seed=90 + step)
        pixels, latents = plain.step(action, start, commit)
        output = ours.step(action, start_noise=start, commit_noise=commit)
        torch.testing.assert_close(latents, output.latents, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pixels, output.pixel_values, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_plain_models_work_without_the_package():
    """With their default sizes and new weights: a training step of each, and two frames of a rollout."""
    torch.manual_seed(0)
    tokenizer, dynamics = PlainTokenizer(TokenizerConfig()), PlainDynamics(DynamicsConfig())
    frames, noise = torch.rand(2, 3, 3, 64, 64), torch.randn(2, 3, 16, 8)
    latents = tokenizer.encode(frames, torch.rand(2, 3, 64) < 0.5)
    (tokenizer.decode(latents) - frames).square().mean().backward()
    levels, steps = torch.full((2, 3), 64), torch.tensor([[0, 3, 6]] * 2)
    mask = torch.ones(2, 3, dtype=torch.bool)
    loss = shortcut_loss(dynamics, latents.detach(), torch.zeros(2, 3, 2), mask, levels, steps, noise)
    loss.backward()
    assert loss.isfinite() and dynamics.latent_head.weight.grad.any()
    rollout = PlainRollout(tokenizer, dynamics, frames, noise)
    for _ in range(2):
        pixels, latents = rollout.step(torch.zeros(2, 2), noise[:, 0], noise[:, 1])
    assert pixels.shape == (2, 3, 64, 64) and latents.shape == (2, 16, 8)

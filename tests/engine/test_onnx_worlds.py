"""Exports of small worlds of every kind dream what PyTorch dreams."""

import numpy as np
import pytest
import torch

from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.onnx.export_world import export_onnx
from dreamer_hf.seeded_noise import SeededNoise
from tiny import tiny_world

KINDS = {
    "plain": ({}, {}),
    "qk_norm, softcap and grouped queries": (
        {"qk_norm": True, "attn_logit_softcapping": 20.0, "num_key_value_heads": 2},
        {"qk_norm": True, "attn_logit_softcapping": 20.0, "num_key_value_heads": 2},
    ),
    "velocity without step sizes": ({}, {"prediction": "v", "step_size_conditioning": False}),
    "several time layers in the tokenizer": ({"time_every": 2, "context_length": 5}, {"time_every": 2}),
    "a tokenizer of single frames": ({"context_length": 1}, {}),
    "a dynamics model of single frames": ({}, {"context_length": 1}),
    "frames that are not square": ({"image_size": (16, 32)}, {}),
    "spatial latents in groups": (
        {"spatial_latents": True, "num_latent_tokens": 4, "latent_group_size": 1},
        {"num_latent_tokens": 4},
    ),
    "a draft and a refiner": (
        {"image_size": (16, 32), "draft_patch_size": 4, "refiner_channels": 3, "refiner_layers": 3},
        {},
    ),
    "a refiner alone": ({"refiner_channels": 2, "refiner_layers": 2}, {}),
    "cells, the whole frame, and positions": (
        {
            "spatial_latents": True,
            "num_latent_tokens": 6,
            "latent_group_size": 1,
            "num_whole_frame_tokens": 2,
            "patch_positions": True,
        },
        {"num_latent_tokens": 6},
    ),
    "categorical actions": (
        {},
        {
            "action_dim": 3,
            "action_num_classes": [0, 4, 2],
            "action_stats": {"mean": [1.0, 0.0, 0.0], "std": [2.0, 1.0, 1.0], "min": [-3.0, 0, 0], "max": [5.0, 3, 1]},
        },
    ),
    "only categorical actions": ({}, {"action_dim": 1, "action_num_classes": [5]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_dreams_what_pytorch_dreams(kind, tmp_path):
    world = tiny_world(*KINDS[kind])
    export_onnx(world, tmp_path / "export", max_error=1.0)
    engine = OnnxWorld.from_pretrained(tmp_path / "export", threads=1)
    generator = torch.Generator().manual_seed(0)
    height, width = world.config.tokenizer_config.frame_size
    frames = torch.randint(0, 256, (2, 5, 3, height, width), generator=generator, dtype=torch.uint8)
    space = engine.space
    random = np.random.default_rng(0)
    draw = lambda *shape: np.stack(  # noqa: E731
        [space.valid(action) for action in random.uniform(space.low, space.high, (np.prod(shape), space.size))]
    ).reshape(*shape, space.size)
    actions, mask = draw(2, 5), np.array([[False, True, True, False, True], [True] * 5])
    seeds = [3, 4]
    theirs = world.start_rollout(
        frames, torch.from_numpy(actions), torch.from_numpy(mask), generator=[SeededNoise(seed) for seed in seeds]
    )
    ours = engine.start_rollout(frames.numpy(), actions, mask, generator=[SeededNoise(seed) for seed in seeds])
    for index in range(8):
        action, has_action = draw(2), np.array([index % 3 > 0, True])
        expected = theirs.step(torch.from_numpy(action), torch.from_numpy(has_action))
        output = ours.step(action, has_action)
        np.testing.assert_allclose(output.latents, expected.latents.numpy(), atol=2e-4)
        np.testing.assert_allclose(output.pixel_values, expected.pixel_values.numpy(), atol=2e-4)

"""Compares an export with the PyTorch model it was made from: the same frames, actions and noise in both.

Shapes: B rows, C context frames, F generated frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..seeded_noise import SeededNoise
from .graph_session import Graph
from .manifest import Manifest
from .onnx_world import OnnxWorld

ROWS, FRAMES = 4, 8
"""B and F, the dreams and their frames that are compared. They are short: where a world is chaotic, as untrained ones
are, rounding errors grow with every frame."""

CONTEXT_FRAMES = 4
"""C of made-up context frames, for worlds without start frames."""


def compare_with_pytorch(
    world, folder: Path, manifest: Manifest, starts, num_frames: int = FRAMES
) -> dict[str, float]:
    """Dream with both engines and return how far they are apart.

    Args:
        world: the `DreamerWorldModel` in float32 on the CPU.
        folder: where the exported graphs are.
        manifest: their manifest.
        starts: the world's `StartFrames`; None for random frames.
        num_frames: F.

    Returns:
        `max_latent_error`, `max_pixel_error`, `mean_pixel_error` (of frames in [0, 1]) and `frames`.
    """
    graphs = {name: Graph(folder, entry) for name, entry in manifest.graphs.items()}
    engine = OnnxWorld(manifest, graphs, None)
    frames, actions, mask = _context(world, starts)
    seeds = range(len(frames))
    rollout = engine.start_rollout(frames.numpy(), actions.numpy(), mask.numpy(), generator=_sources(seeds))
    expected = world.start_rollout(frames, actions, mask, generator=_sources(seeds))
    latent_errors, pixel_errors = [], []
    for action in _actions(engine, num_frames, len(frames)):
        ours, theirs = rollout.step(action), expected.step(torch.from_numpy(action))
        latent_errors.append(np.abs(ours.latents - theirs.latents.numpy()).max())
        pixel_errors.append(np.abs(ours.pixel_values - theirs.pixel_values.numpy()))
    return {
        "max_latent_error": float(np.max(latent_errors)),
        "max_pixel_error": float(np.max(pixel_errors)),
        "mean_pixel_error": float(np.mean(pixel_errors)),
        "frames": num_frames,
    }


def _sources(seeds: Sequence[int]) -> list[SeededNoise]:
    return [SeededNoise(seed) for seed in seeds]


def _context(world, starts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return frames, actions and mask of B rows: the start frames in turn, or random ones."""
    if starts is not None:
        chosen = starts.select([index % len(starts) for index in range(ROWS)])
        return chosen.pixel_values_videos, chosen.actions, chosen.action_mask
    config = world.config.tokenizer_config
    generator = torch.Generator().manual_seed(0)
    shape = ROWS, CONTEXT_FRAMES, config.num_channels, *config.frame_size
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    actions = torch.zeros(*shape[:2], world.config.dynamics_config.action_dim)
    return frames, actions, torch.zeros(shape[:2], dtype=torch.bool)


def _actions(engine: OnnxWorld, num_frames: int, rows: int) -> np.ndarray:
    """Return random valid actions, float32 (F,B,a)."""
    space, random = engine.space, np.random.default_rng(0)
    values = random.uniform(space.low, space.high, (num_frames, rows, space.size))
    return np.stack([[space.valid(action) for action in frame] for frame in values]).astype(np.float32)


__all__ = ["compare_with_pytorch"]

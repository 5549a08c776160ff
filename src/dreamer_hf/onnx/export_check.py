"""Compares an export with the PyTorch model it was made from: the same frames, actions and noise in both.

Shapes: B rows, C context frames, F generated frames, V cameras, S state components.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..seeded_noise import SeededNoise
from ..start_frames import StartFrames
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
        `max_latent_error`, `max_pixel_error`, `mean_pixel_error` (of frames in [0, 1]), `frames`, and for a world with
        a state `max_state_error` (as a share of the range of each component).
    """
    graphs = {name: Graph(folder, entry) for name, entry in manifest.graphs.items()}
    engine = OnnxWorld(manifest, graphs, None)
    context = _made_up_context(world, engine) if starts is None else _repeated(starts)
    seeds = range(len(context))
    rollout = engine.start_rollout(context, generator=_sources(seeds))
    expected = world.start_rollout(context, generator=_sources(seeds))
    latent_errors, pixel_errors, state_errors = [], [], []
    for action in _actions(engine, num_frames, len(context)):
        ours, theirs = rollout.step(action), expected.step(torch.from_numpy(action))
        latent_errors.append(np.abs(ours.latents - theirs.latents.numpy()).max())
        pixel_errors.append(np.abs(ours.pixel_values - theirs.pixel_values.numpy()))
        if engine.has_state:
            state_errors.append(np.abs(ours.state - theirs.state.numpy()) / engine.state_space.extent)
    check = {
        "max_latent_error": float(np.max(latent_errors)),
        "max_pixel_error": float(np.max(pixel_errors)),
        "mean_pixel_error": float(np.mean(pixel_errors)),
        "frames": num_frames,
    }
    return check | {"max_state_error": float(np.max(state_errors))} if engine.has_state else check


def _sources(seeds: Sequence[int]) -> list[SeededNoise]:
    return [SeededNoise(seed) for seed in seeds]


def _repeated(starts: StartFrames) -> StartFrames:
    """Return B rows, the start frames in turn."""
    return starts.select([index % len(starts) for index in range(ROWS)])


def _made_up_context(world, engine: OnnxWorld) -> StartFrames:
    """Return random frames, and random states of all but the first frame of each row, without actions."""
    config = world.config.tokenizer_config
    generator = torch.Generator().manual_seed(0)
    frames = ROWS, CONTEXT_FRAMES
    cameras = () if engine.num_cameras == 1 else (engine.num_cameras,)
    shape = *frames, *cameras, config.num_channels, *config.frame_size
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    actions, mask = torch.zeros(*frames, engine.space.size), torch.zeros(frames, dtype=torch.bool)
    if not engine.has_state:
        return StartFrames(images, actions, mask)
    space = engine.state_space
    states = np.random.default_rng(0).uniform(space.low, space.high, (*frames, len(space))).astype(np.float32)
    known = torch.ones(frames, dtype=torch.bool)
    known[:, 0] = False
    return StartFrames(images, actions, mask, torch.from_numpy(states), known)


def _actions(engine: OnnxWorld, num_frames: int, rows: int) -> np.ndarray:
    """Return random valid actions, float32 (F,B,a)."""
    space, random = engine.space, np.random.default_rng(0)
    values = random.uniform(space.low, space.high, (num_frames, rows, space.size))
    return np.stack([[space.valid(action) for action in frame] for frame in values]).astype(np.float32)


__all__ = ["compare_with_pytorch"]

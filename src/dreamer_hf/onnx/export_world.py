"""Exports a world as ONNX graphs: `dreamer export onnx`, `DreamerWorldModel.save_onnx` and the cache of exports."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from .. import __version__
from ..action_space import ActionSpace
from ..data.files import flush_to_disk, new_output_folder
from ..start_frames import StartFrames, load_start_frames, save_start_frames
from ..state_space import StateSpace
from .manifest import (
    MANIFEST_NAME,
    GraphEntry,
    Manifest,
    actions_entry,
    file_sha256,
    format_version,
    state_entry,
)
from .onnx_starts import START_LATENTS_NAME

MAX_ERRORS = {"float32": 1e-3, "float16": 2e-2, "int8": 0.1}
"""Largest error of a pixel in [0, 1], and of a state as a share of its range, over the dreams of the check, by type of
the weights."""

MISSING = "exporting needs onnx and onnxruntime: pip install 'dreamer_hf[export]'."


def export_onnx(
    world,
    output_dir: str | os.PathLike,
    dtype: str = "float32",
    starts: StartFrames | None = None,
    max_error: float | None = None,
    name: str | None = None,
) -> Manifest:
    """Write a world as ONNX graphs with a manifest, completely or not at all.

    The export then dreams the same frames as PyTorch under the same noise, or it is refused.

    Args:
        world: the `DreamerWorldModel`.
        output_dir: folder to write, which must not exist or be empty.
        dtype: how weights are stored: "float32"; "float16", which halves the files and computes in float32; or "int8",
            whose matrix products are of integers.
        starts: start frames to write with it. Default: those that the world was saved with, if any.
        max_error: largest error against PyTorch, over dreams of 8 frames, of a pixel in [0, 1] and of a state as a
            share of its range. Default: 0.001 for float32, 0.02 for float16 and 0.1 for int8.
        name: name of the world, for people. Default: the last part of where it was loaded from.

    Returns:
        The manifest.

    Raises:
        ValueError: an unknown dtype, packages are missing, or the export is off by more than `max_error`.
        FileExistsError: the folder is not empty.
    """
    check_export(dtype, max_error)
    from .export_check import compare_with_pytorch

    world = _in_float32(world)
    starts = load_starts(world.name_or_path, world) if starts is None else starts
    if starts is not None:
        starts = starts.to("cpu")
        starts.check_fits(world.config)
    with new_output_folder(output_dir) as folder:
        graphs = _write_graphs(world, folder, dtype)
        manifest = _manifest(world, graphs, dtype, name or Path(world.name_or_path or "world").name)
        if starts is not None:
            manifest.starts = _write_starts(world, folder, starts, dtype)
        manifest.check = compare_with_pytorch(world, folder, manifest, starts)
        _check_errors(manifest.check, dtype, MAX_ERRORS[dtype] if max_error is None else max_error)
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)  # any host may serve them
            flush_to_disk(file)
    return manifest


def _check_errors(check: dict[str, float], dtype: str, limit: float) -> None:
    for name, place in (("max_pixel_error", "in a pixel"), ("max_state_error", "of the range of the state")):
        error = check.get(name, 0.0)
        if not error <= limit:
            raise ValueError(
                f"the {dtype} export is off by {error:.2g} {place}, more than {limit:g}: choose a more precise "
                "--dtype, or allow it with --max_error."
            )


def check_export(dtype: str, max_error: float | None = None) -> None:
    """Raise a ValueError for an unknown dtype, an impossible limit, or packages that exporting needs and are
    missing."""
    if dtype not in MAX_ERRORS:
        raise ValueError(f"expected one of {', '.join(MAX_ERRORS)} as the dtype of an export, got {dtype!r}.")
    if max_error is not None and not max_error > 0:
        raise ValueError(f"expected max_error to be above 0, got {max_error}.")
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ValueError(MISSING) from error
    _ = onnx, onnxruntime


def fingerprint(world) -> str:
    """Return the SHA-256 of a world's config and weights, which identifies what an export was made from."""
    config = world.config.to_dict()
    for key in ("_name_or_path", "transformers_version", "dtype"):
        config.pop(key, None)
    settings = vars(world.generation_config) if world.generation_config else {}
    steps = {key: settings.get(key) for key in ("num_inference_steps", "context_signal_level")}
    dynamics = world.config.dynamics_config
    version = format_version(dynamics.state_dim > 0, dynamics.num_cameras)
    digest = hashlib.sha256(json.dumps([version, config, steps], sort_keys=True, default=str).encode())
    for key, tensor in sorted(world.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_starts(path_or_repo: str, world) -> StartFrames | None:
    """Return the start frames that are saved with a world or an adapter; None if there are none that fit."""
    try:
        starts = load_start_frames(path_or_repo)
        starts.check_fits(world.config)
    except ValueError:
        return None
    return starts


def _in_float32(world):
    """Return the world itself, or a copy, in eval mode and in float32 on the CPU."""
    tensors = [*world.parameters(), *world.buffers()]
    if all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors) and not world.training:
        return world
    return copy.deepcopy(world).float().cpu().eval()


def _write_graphs(world, folder: Path, dtype: str) -> dict[str, GraphEntry]:
    from .graph_weights import write_graph
    from .world_graphs import world_graphs

    entries = {}
    for name, graph in world_graphs(world):
        path = folder / f"{name}.onnx"
        data_files = write_graph(graph.model, path, dtype)
        entries[name] = GraphEntry(
            file=path.name,
            sha256=file_sha256(path),
            context_length=graph.context_length,
            head_dim=graph.head_dim,
            rope_theta=graph.rope_theta,
            cache_heads=graph.cache_heads,
            reach=graph.reach,
            data_files={file.name: file_sha256(file) for file in data_files},
        )
    return entries


def _manifest(world, graphs: dict[str, GraphEntry], dtype: str, name: str) -> Manifest:
    config, schedule = world.config.dynamics_config, world.rollout_schedule()
    classes = [int(count) for count in config.action_num_classes or [0] * config.action_dim]
    return Manifest(
        name=name,
        dtype=dtype,
        fingerprint=fingerprint(world),
        fps=config.fps,
        frame_size=list(world.config.tokenizer_config.frame_size),
        latents={"num_tokens": config.num_latent_tokens, "dim": config.latent_dim},
        generation={
            "num_inference_steps": schedule.num_inference_steps,
            "context_signal_level": schedule.context_signal_level,
            "num_signal_levels": schedule.num_signal_levels,
        },
        actions=actions_entry(ActionSpace.from_config(config), classes, config.action_offset),
        graphs=graphs,
        starts=None,
        check={},
        dreamer_hf_version=__version__,
        state=_state(world.dynamics),
        cameras=list(config.camera_names) if config.num_cameras > 1 else None,
    )


def _state(dynamics) -> dict | None:
    if dynamics.state_coder is None:
        return None
    return state_entry(StateSpace.from_config(dynamics.config), dynamics.state_coder.state_std.numpy())


@torch.no_grad()
def _write_starts(world, folder: Path, starts: StartFrames, dtype: str) -> dict:
    """Write start frames and their latents, and return their entry of the manifest."""
    latents = world.encode(starts.pixel_values_videos).latents.float()
    latents = latents if dtype == "float32" else latents.half()
    tensors = {"latents": latents, "actions": starts.actions, "action_mask": starts.action_mask.to(torch.uint8)}
    if world.config.dynamics_config.state_dim and starts.states is not None:
        tensors |= {"states": starts.states, "state_mask": starts.state_mask.to(torch.uint8)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / START_LATENTS_NAME)
    save_start_frames(folder, starts)
    count, frames = starts.action_mask.shape
    return {"file": START_LATENTS_NAME, "count": count, "context_frames": frames}


__all__ = ["MAX_ERRORS", "check_export", "export_onnx", "fingerprint", "load_starts"]

"""Opening a world and its start frames with the engine that is asked for, or that suits this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..onnx.export_cache import cache_folder, export_key, load_or_export
from ..onnx.manifest import MANIFEST_NAME
from ..worlds import resolve_model, shipped_worlds
from .engine_choice import EXPORTERS, EngineChoice, choose_engine, is_installed
from .world_engine import is_start

SHIPPED_EXPORT = "onnx"
"""Subfolder of a shipped world that holds its export."""
NO_EXPORT = (
    "{model} is not exported for ONNX Runtime, and exporting needs more packages: pip install 'dreamer_hf[export]', "
    "or give a folder that `dreamer export onnx` wrote."
)


class OpenedWorld(NamedTuple):
    """A world and its start frames.

    Attributes:
        world: a `DreamerWorldModel` in eval mode, or an `OnnxWorld`.
        starts: where its dreams can begin.
        note: one line for people: the engine, and why.
    """

    world: Any
    starts: Any
    note: str


def open_world(model: str, options, announce: Callable[[str], object] = print) -> OpenedWorld:
    """Open a world with PyTorch or ONNX Runtime.

    Args:
        model: name of a shipped world, folder, or Hub repository; or an export of one.
        options: `WorldOptions`, or the `DreamOptions` of an environment.
        announce: called with a line of text before something takes long.

    Raises:
        ValueError, OSError: there is no such world, or no start frames that fit it, or the options ask for something
            that the engine cannot do.
    """
    choice = choose_engine(options, is_export(model), lambda: ready_export(model) is not None)
    if choice.name == "onnx":
        return _open_onnx(model, options, choice, announce)
    return _open_torch(model, options, choice.reason)


def read_starts_for(world, options):
    """Return the start frames that `options.start` names, for a loaded model.

    Raises:
        ValueError, FileNotFoundError: there are none, or they do not fit the world.
    """
    return options.start if is_start(options.start) else _read_starts(options, world.config)


def _open_onnx(model: str, options, choice: EngineChoice, announce: Callable[[str], object]) -> OpenedWorld:
    folder = ready_export(model)
    if folder is None and not all(map(is_installed, EXPORTERS)):
        export_key(model)  # raises if there is no such world, which then is the reason
        raise ValueError(NO_EXPORT.format(model=model))
    if folder is None:
        from ..loading import check_world

        check_world(model)  # before anything is said about exporting it
        announce(f"Exporting {model} for ONNX Runtime. This happens once, and the export is kept in {cache_folder()}.")
    try:
        world = load_or_export(folder or model, threads=options.threads)
    except Exception as error:  # those of PyTorch's exporter have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if choice.is_certain and isinstance(error, (ValueError, OSError)):
            raise
        if choice.is_certain:
            raise ValueError(f"{model} cannot be exported ({reason}): choose --engine torch.") from error
        return _open_torch(model, options, f"as ONNX Runtime cannot be used ({reason})")
    return OpenedWorld(
        world, _onnx_starts(model, world, options), f"Engine: ONNX Runtime on the CPU, {choice.reason}."
    )


def _open_torch(model: str, options, reason: str) -> OpenedWorld:
    from ..loading import load_world
    from ..start_frames import load_start_frames

    world = load_world(model, options.device, options.adapter, options.int8)
    starts = read_starts_for(world, options) if options.start else load_start_frames(options.adapter or model)
    return OpenedWorld(world, starts, f"Engine: PyTorch, {reason}.")


def is_export(model: str) -> bool:
    """Return whether a folder holds an export and no model."""
    folder = Path(model)
    return (folder / MANIFEST_NAME).is_file() and not (folder / "config.json").is_file()


def ready_export(model: str) -> Path | None:
    """Return the folder of an export of a world that is there already: the world itself, shipped with it, or kept.

    Args:
        model: name of a shipped world, folder, or Hub repository.
    """
    if is_export(model):
        return Path(model)
    shipped = Path(resolve_model(model)) / SHIPPED_EXPORT
    if model in shipped_worlds() and (shipped / MANIFEST_NAME).is_file():
        return shipped
    try:
        kept = cache_folder() / export_key(model)
    except ValueError:  # there is no such world, as opening it will say
        return None
    return kept if (kept / MANIFEST_NAME).is_file() else None


def _onnx_starts(model: str, world, options):
    if is_start(options.start):
        return options.start
    if options.start:
        if not is_installed("torch") or is_export(model):
            raise ValueError(
                "--start needs PyTorch and the model itself: leave it out, or give the model that was exported."
            )
        from transformers import AutoConfig

        return _read_starts(options, AutoConfig.from_pretrained(resolve_model(model)))
    if world.starts is None:
        raise ValueError(f"{model} carries no start_frames.safetensors: give start frames with --start.")
    return world.starts


def _read_starts(options, config):
    from ..start_frames import read_start_frames

    return read_start_frames(options.start, config, options.image_key, options.action_key)


__all__ = ["OpenedWorld", "is_export", "open_world", "read_starts_for", "ready_export"]

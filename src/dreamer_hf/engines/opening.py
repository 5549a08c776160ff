"""Opening a world and its start frames with the engine that is asked for, or that suits this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .engine_choice import EXPORTERS, EngineChoice, choose_engine, is_installed
from .export_cache import is_export, kept_folder, ready_export
from .world_engine import is_start

NO_EXPORT = (
    "{model} is not exported for ONNX Runtime, and exporting needs more packages: pip install 'dreamer_hf[export]', or give "
    "a folder that `dreamer export onnx` wrote."
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
        announce: told before something takes long.

    Raises:
        ValueError, OSError: there is no such world, or no start frames that fit it, or the options ask for something
            that the engine cannot do.
    """
    choice = choose_engine(options, is_export(model), lambda: ready_export(model) is not None)
    if choice.name == "onnx":
        return _open_onnx(model, options, choice, announce)
    from ..loading import load_world

    world = load_world(model, options.device, options.adapter, options.int8)
    return OpenedWorld(world, _torch_starts(model, world, options), f"Engine: PyTorch, {choice.reason}.")


def read_starts_for(world, options):
    """Return the start frames that `options.start` names, for a loaded model.

    Raises:
        ValueError, FileNotFoundError: there are none, or they do not fit the world.
    """
    return options.start if is_start(options.start) else _read_starts(options, world.config)


def _torch_starts(model: str, world, options):
    from ..start_frames import load_start_frames

    return read_starts_for(world, options) if options.start else load_start_frames(options.adapter or model)


def _open_onnx(model: str, options, choice: EngineChoice, announce: Callable[[str], object]) -> OpenedWorld:
    folder = ready_export(model)
    if folder is None:
        try:
            folder = _export(model, announce)
        except _ExportFailed as failure:
            if choice.is_certain:
                raise ValueError(str(failure)) from failure
            note = f"Engine: PyTorch, as the export to ONNX failed ({failure})."
            return OpenedWorld(failure.world, _torch_starts(model, failure.world, options), note)
    from ..onnx import OnnxWorld

    world = OnnxWorld.from_pretrained(folder, options.threads)
    return OpenedWorld(
        world, _onnx_starts(model, world, options), f"Engine: ONNX Runtime on the CPU, {choice.reason}."
    )


class _ExportFailed(Exception):
    def __init__(self, reason: str, world):
        super().__init__(reason)
        self.world = world


def _export(model: str, announce: Callable[[str], object]) -> Path:
    """Export a world into the cache and return the folder.

    Raises:
        ValueError: there is no such world, or packages are missing.
        _ExportFailed: it cannot be exported.
    """
    if not all(map(is_installed, EXPORTERS)):
        raise ValueError(NO_EXPORT.format(model=model))
    from ..loading import load_world
    from ..onnx.export_world import export_onnx

    world, folder = load_world(model, "cpu"), kept_folder(model)
    announce(f"Exporting {model} to ONNX once, into {folder} ...")
    try:
        export_onnx(world, folder, name=Path(model).name)
    except FileExistsError:
        if ready_export(model) is None:  # otherwise another process has just made it
            raise
    except Exception as error:  # those of PyTorch's exporter have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise _ExportFailed(reason, world) from error
    return folder


def _onnx_starts(model: str, world, options):
    if is_start(options.start):
        return options.start
    if options.start:
        if not is_installed("torch") or is_export(model):
            raise ValueError(
                "--start needs PyTorch and the model itself: leave it out, or give the model that was exported."
            )
        from transformers import AutoConfig

        from ..worlds import resolve_model

        return _read_starts(options, AutoConfig.from_pretrained(resolve_model(model)))
    if world.starts is None:
        raise ValueError(f"{model} carries no start frames: give some with --start, or export it with start frames.")
    return world.starts


def _read_starts(options, config):
    from ..start_frames import read_start_frames

    return read_start_frames(options.start, config, options.image_key, options.action_key)


__all__ = ["OpenedWorld", "open_world", "read_starts_for"]

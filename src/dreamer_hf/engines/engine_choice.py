"""Which engine opens a world: the one that is asked for, or what suits the world, the options and this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..options import ENGINES

TORCH_OPTIONS = ("adapter", "int8", "compile", "compare")
"""Options that only PyTorch has."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Files of the drivers of NVIDIA, AMD and Windows' Linux; without any of them, Linux has no GPU that PyTorch can
use."""
EXPORTERS = ("torch", "transformers", "onnx")


class EngineChoice(NamedTuple):
    """An engine, and why.

    Attributes:
        name: "torch" or "onnx".
        reason: end of a sentence, for people.
        is_certain: whether nothing else would do; otherwise PyTorch is tried if the world cannot be exported.
    """

    name: str
    reason: str
    is_certain: bool = True


def choose_engine(options, is_export: bool, has_export: Callable[[], bool]) -> EngineChoice:
    """Choose the engine for a world.

    Args:
        options: `WorldOptions`, or the `DreamOptions` of an environment.
        is_export: whether the world is an export for ONNX Runtime, without the model itself.
        has_export: tells whether there is an export already, which takes a moment.

    Raises:
        ValueError: an unknown engine, or one that does not go with the other options or with the world.
    """
    wanted, torch_option = options.engine, _torch_option(options)
    if wanted not in ENGINES:
        raise ValueError(f"unknown engine {wanted!r}: choose one of {', '.join(ENGINES)}.")
    if torch_option and (wanted == "onnx" or is_export):
        raise ValueError(
            f"{torch_option} needs the engine torch: leave it out, or open the model itself with PyTorch."
        )
    if wanted == "torch" and is_export:
        raise ValueError("this world is an export for ONNX Runtime: leave out --engine torch, or give its model.")
    if wanted != "auto":
        return EngineChoice(wanted, "as asked for")
    if torch_option:
        return EngineChoice("torch", f"for {torch_option}")
    if is_export:
        return EngineChoice("onnx", "as the world is an export")
    return _suits_this_machine(has_export)


def _suits_this_machine(has_export: Callable[[], bool]) -> EngineChoice:
    if not is_installed("torch"):
        return EngineChoice("onnx", "as PyTorch is not installed")
    if has_gpu():
        return EngineChoice("torch", "on the GPU")
    if not is_installed("onnxruntime"):
        return EngineChoice("torch", "as ONNX Runtime, faster on a CPU, is not installed: the extra onnx")
    if not all(map(is_installed, EXPORTERS)) and not has_export():
        return EngineChoice("torch", "as exporting to ONNX, faster on a CPU, needs the extra export")
    return EngineChoice("onnx", "as this machine has no GPU", is_certain=False)


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU of this machine. PyTorch, which takes seconds to import, is asked if
    needed."""
    if os.name == "posix" and not any(Path(driver).exists() for driver in GPU_DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def is_installed(module: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _torch_option(options) -> str | None:
    """Return the first option that only PyTorch has, as a flag."""
    for name in TORCH_OPTIONS:
        if getattr(options, name, None):
            return f"--{name}"
    return f"--device {options.device}" if options.device not in (None, "cpu") else None


__all__ = ["EXPORTERS", "EngineChoice", "choose_engine", "has_gpu", "is_installed"]

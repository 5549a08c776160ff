"""Loading a world and its start frames, or an agent, for playing, serving, the environments and evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import TorchAoConfig

from .adapters import load_adapter
from .modeling_dreamer_agent import DreamerAgentModel
from .modeling_dreamer_world import DreamerWorldModel
from .options import WorldOptions
from .start_frames import StartFrames, load_start_frames, read_start_frames
from .weight_files import read_config, verify_weights
from .worlds import resolve_model

MALFORMED = (TypeError, AttributeError, KeyError, IndexError)
"""What transformers raises for a `config.json` whose fields have other types than it expects."""


def load_world(
    path_or_repo: str,
    device: str | None = None,
    adapter: str | None = None,
    int8: bool = False,
    dtype: str | None = None,
) -> DreamerWorldModel:
    """Load a world in eval mode.

    Args:
        path_or_repo: name of a shipped world, folder, or Hub repository of a `DreamerWorldModel`.
        device: where to load it. Defaults to the GPU if there is one.
        adapter: folder or Hub repository of an adapter to load onto it.
        int8: load the weights of linear layers as 8-bit integers (torchao).
        dtype: precision, such as "bfloat16", or "auto" for that of the saved weights. Defaults to "auto", on a CPU to
            "float32": shared weights are often bfloat16, in which most CPUs are slower.

    Raises:
        ValueError: there is no such world, adapter or device, or it is incomplete or damaged; torchao is missing for
            `int8`; or `int8` is combined with an adapter.
    """
    if int8 and adapter is not None:
        raise ValueError("--int8 goes with whole worlds only: leave it out, or leave out --adapter.")
    quantization = {"quantization_config": _int8_weights()} if int8 else {}
    world = _load(DreamerWorldModel, path_or_repo, device, dtype, **quantization)
    if adapter is not None:
        load_adapter(world, adapter)
    return world


def load_agent(path_or_repo: str, device: str | None = None, dtype: str | None = None) -> DreamerAgentModel:
    """Load an agent, with its world, in eval mode.

    Args:
        path_or_repo: folder or Hub repository of a `DreamerAgentModel`.
        device, dtype: as in `load_world`.

    Raises:
        ValueError: there is no such agent or device, or it is incomplete or damaged.
    """
    return _load(DreamerAgentModel, path_or_repo, device, dtype)


def check_world(path_or_repo: str) -> None:
    """Check that there is a world, by its `config.json` alone.

    Args:
        path_or_repo: as in `load_world`.

    Raises:
        ValueError: there is none, or it is something else than a world.
    """
    path_or_repo = resolve_model(path_or_repo)
    with _refused_in_one_sentence(DreamerWorldModel, path_or_repo):
        _check_kind(DreamerWorldModel, path_or_repo)


def _load(model: type, path_or_repo: str, device: str | None, dtype: str | None, **settings):
    path_or_repo, place = resolve_model(path_or_repo), choose_device(device)
    with _refused_in_one_sentence(model, path_or_repo):
        _check_kind(model, path_or_repo)
        verify_weights(path_or_repo)
        dtype = dtype or ("float32" if place.type == "cpu" else "auto")
        return model.from_pretrained(path_or_repo, dtype=dtype, **settings).eval().to(place)


def _check_kind(model: type, path_or_repo: str) -> None:
    expected, kind = model.config_class.model_type, read_config(path_or_repo).get("model_type")
    if kind != expected:
        raise ValueError(f"it is a {kind}{_HINTS.get((expected, kind), '')}, and not a {expected}.")


@contextmanager
def _refused_in_one_sentence(model: type, path_or_repo: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, *MALFORMED) as error:
        reason = str(error).strip().splitlines()[0]
        if not Path(path_or_repo).exists():
            reason = "there is no such folder, and the Hub gives no such repository."
        raise ValueError(f"cannot load {_NAMES[model]} from {str(path_or_repo)!r}: {reason}") from error


_NAMES = {DreamerWorldModel: "a world", DreamerAgentModel: "an agent"}

_HINTS = {
    ("dreamer_world", "dreamer_agent"): " (play it with --agent, or save its .world alone)",
    ("dreamer_agent", "dreamer_world"): " (train an agent in it with `dreamer train agent`)",
}


def choose_device(name: str | None = None) -> torch.device:
    """Return a device by its name, such as "cpu" or "cuda:1"; None chooses the GPU if there is one, otherwise the CPU.

    Raises:
        ValueError: this machine, or this PyTorch, has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what PyTorch raises varies
        if name.startswith("cuda") and not torch.cuda.is_available():
            why = "PyTorch finds no NVIDIA GPU here"
        else:
            why = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"cannot use --device {name} ({why}): choose another one, such as cpu.") from error
    return device


def _int8_weights() -> TorchAoConfig:
    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ModuleNotFoundError as error:
        raise ValueError("int8 weights need torchao: pip install 'dreamer_hf[int8]'.") from error
    return TorchAoConfig(Int8WeightOnlyConfig())


def load_world_and_starts(options: WorldOptions) -> tuple[DreamerWorldModel, StartFrames]:
    """Load a world and the start frames of its dreams: those of `options.start`, or those saved with it.

    Raises:
        FileNotFoundError, ValueError: there is no such world, or there are no start frames that fit it.
    """
    world = load_world(options.model, options.device, options.adapter, options.int8)
    if options.start:
        starts = read_start_frames(options.start, world.config, options.image_key, options.action_key)
    else:
        starts = load_start_frames(options.adapter or options.model)
    starts.check_fits(world.config)
    return world, starts


__all__ = ["check_world", "choose_device", "load_agent", "load_world", "load_world_and_starts"]

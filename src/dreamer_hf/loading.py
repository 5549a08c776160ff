"""A world and its start frames, loaded as a player, a server or an environment asks for them."""

from pathlib import Path

import torch
from transformers import AutoConfig, TorchAoConfig

from .adapters import load_adapter
from .modeling_dreamer_world import DreamerWorldModel
from .options import WorldOptions
from .start_frames import StartFrames, load_start_frames, read_start_frames
from .worlds import resolve_model


def load_world(
    path_or_repo: str, device: str | None = None, adapter: str | None = None, int8: bool = False
) -> DreamerWorldModel:
    """Loads a `DreamerWorldModel`, and an adapter onto it if one is given, in eval mode onto a device (the GPU if there
    is one and none is named); with `int8`, the weights of its linear layers as 8-bit integers (torchao).

    Raises:
        ValueError: when there is no such world, adapter or device; no torchao for `int8`; or `int8` with an adapter.
    """
    if int8 and adapter is not None:
        raise ValueError("--int8 goes with whole worlds only: leave it out, or leave out --adapter.")
    path_or_repo = resolve_model(path_or_repo)
    quantization = {"quantization_config": _int8_weights()} if int8 else {}
    try:
        kind = AutoConfig.from_pretrained(path_or_repo).model_type
        if kind != "dreamer_world":
            raise ValueError(f"it is a {kind}, and only a dreamer_world can be played.")
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Shared weights are often bf16, in which most processors are slower.
        dtype = torch.float32 if device.type == "cpu" else "auto"
        world = DreamerWorldModel.from_pretrained(path_or_repo, dtype=dtype, **quantization).eval().to(device)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:  # torch's word for a missing GPU varies
        reason = str(error).strip().splitlines()[0]
        if not Path(path_or_repo).exists():
            reason = "there is no such folder, and the Hub gives no such repository."
        raise ValueError(f"cannot load a world from {str(path_or_repo)!r}: {reason}") from error
    if adapter is not None:
        load_adapter(world, adapter)
    return world


def _int8_weights() -> TorchAoConfig:
    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ModuleNotFoundError as error:
        raise ValueError("int8 weights need torchao: pip install 'dreamer_hf[int8]'.") from error
    return TorchAoConfig(Int8WeightOnlyConfig())


def load_world_and_starts(options: WorldOptions) -> tuple[DreamerWorldModel, StartFrames]:
    """A world and where its dreams begin: at `options.start` (see `read_start_frames`), or at what is kept with the model.

    Raises:
        FileNotFoundError, ValueError: there is no such world, or no starts that fit it.
    """
    world = load_world(options.model, options.device, options.adapter, options.int8)
    if options.start:
        starts = read_start_frames(options.start, world.config, options.image_key)
    else:
        starts = load_start_frames(options.adapter or options.model)
    starts.check_fits(world.config)
    return world, starts

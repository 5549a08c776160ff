"""The passes of a rollout's step as plain functions, and their compiled forms.

Shapes: B rows, T frames of a pass, N_z latent tokens, d_z latent channels, a action width, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from tqdm import tqdm

from .cache_dreamer import DreamerCache

NUM_GRAPHS = 64
"""Compiled graphs that one function may have: every model, batch size and kind of pass needs its own."""


def dynamics_pass(
    dynamics: nn.Module,
    latents: torch.Tensor,
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    actions: torch.Tensor,
    action_mask: torch.Tensor,
    cache: DreamerCache,
    num_commit_frames: int,
) -> torch.Tensor:
    """One pass of the dynamics model: the clean prediction (B,T,N_z,d_z), float32."""
    output = dynamics(
        latents,
        signal_level_ids,
        step_size_ids,
        actions,
        action_mask,
        past_key_values=cache,
        num_commit_frames=num_commit_frames,
    )
    return output.latents.float()


def decoder_pass(tokenizer: nn.Module, latents: torch.Tensor, cache: DreamerCache) -> torch.Tensor:
    """One pass of the decoder: latents (B,T,N_z,d_z) to frames (B,T,3,H,W) in [0, 1], float32."""
    return tokenizer.decode(latents, past_key_values=cache).pixel_values_videos


def compile_pass(function: Callable[..., torch.Tensor], device: torch.device) -> Callable[..., torch.Tensor]:
    """The same function for static shapes: with CUDA graphs on a GPU, generated code alone elsewhere.

    Nothing is compiled before the first call; see `warm_up` for that one.
    """
    if device.type != "cuda":
        # Nothing is marked as staying in place here: freezing would take a marked cache for a weight.
        return torch.compile(function, dynamic=False)
    compiled = torch.compile(function, dynamic=False, mode="reduce-overhead")

    def replay(*args) -> torch.Tensor:
        for cache in (argument for argument in args if isinstance(argument, DreamerCache)):
            _keep_in_place(cache)
        # A graph writes its output to the same memory at every replay.
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args).clone()

    return replay


def _keep_in_place(cache: DreamerCache) -> None:
    """Promises that a cache stays where it is: without that, PyTorch refuses CUDA graphs that write to their inputs."""
    tensors = [cache.next_position, cache.slot_positions]
    tensors += [tensor for layer in cache.ring_layers for tensor in (layer.keys, layer.values)]
    for tensor in tensors:
        torch._dynamo.mark_static_address(tensor, guard=False)


def warm_up(step: Callable[[None], object], passes: list[str], device: torch.device) -> None:
    """Makes the first calls of compiled passes, which do the compiling, and shows what it is busy with.

    On a CPU the weights become constants of the code (Inductor's freezing), packed for its matrix products.

    Args:
        step: a step of a throwaway rollout; each call meets one new pass.
        passes: their names.
        device: of the models.
    """
    # Freezing has to be on while a function is traced, for which the `options` of torch.compile come too late.
    import torch._dynamo.config as dynamo_config
    import torch._inductor.config as inductor_config

    with (
        inductor_config.patch(freezing=device.type == "cpu"),
        dynamo_config.patch(recompile_limit=NUM_GRAPHS),
        tqdm(passes, unit="pass", dynamic_ncols=True) as bar,
    ):
        for name in bar:
            bar.set_description(f"compiling the {name}")
            step(None)


__all__ = ["compile_pass", "decoder_pass", "dynamics_pass", "warm_up"]

"""The passes of a rollout's step as plain functions, and their compiled forms.

Shapes: B rows, T frames of a pass, N_z latent tokens, d_z latent channels, a action width, H, W pixels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn
from tqdm import tqdm

from .cache_dreamer import DreamerCache

if TYPE_CHECKING:  # PyTorch's compiler takes seconds to import
    from torch._dynamo.types import GuardFilterEntry

NUM_GRAPHS = 64
"""Compiled graphs that a model's pass may have: every batch size and kind of pass needs its own."""

CPU_CODE = {
    "freezing": True,  # weights become constants of the code, packed for its matrix products
    "max_autotune": True,  # matrix products of a few rows in generated code: faster than libraries, which suit large ones
    "max_autotune_gemm_backends": "CPP",
    "cpp_wrapper": True,  # kernels are many and short: C++ calls them faster than Python
    "cpp.min_chunk_size": 8192,  # elements a thread: handing over fewer takes longer than to compute them
}
"""How Inductor makes code for a CPU; docs/speed.md says what it is worth."""

SETTING = (bool, int, float, str, list)
"""Kinds of a module's attributes that may steer what it computes."""


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


def compile_pass(function: Callable[..., torch.Tensor], model: nn.Module) -> Callable[..., torch.Tensor]:
    """The same function for this model and static shapes: with CUDA graphs on a GPU, generated code alone elsewhere.

    Nothing is compiled before the first call; see `warm_up` for that one. Code that was made for a model serves all its
    rollouts, until its weights or settings change.

    Args:
        function: one of the passes above; takes the model first.
        model: on whose device it runs.
    """
    passes, state = _compiled_passes.setdefault(model, {}), _state_of(model)
    if function not in passes or passes[function].state != state:
        # On a CPU nothing is marked as staying in place: freezing would take a marked cache for a weight.
        compile_one = _compile_for_gpu if model.device.type == "cuda" else _compile
        passes[function] = CompiledPass(compile_one(_with_code_of_its_own(function)), state)
    return passes[function].function


@dataclass
class CompiledPass:
    """A pass of one model, and the state of the model that became part of it."""

    function: Callable[..., torch.Tensor]
    state: list[tuple]


_compiled_passes: WeakKeyDictionary[nn.Module, dict[Callable, CompiledPass]] = WeakKeyDictionary()


def _state_of(model: nn.Module) -> list[tuple]:
    """Differs once a weight was replaced, moved or written to, or a setting changed, such as which adapter is active.

    Writing through `weight.data` leaves no trace, so that it goes unseen.
    """
    state = []
    for module in model.modules():
        own = itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False))
        state += [(id(weight), _version(weight), weight.dtype, weight.device) for weight in own]
        state += [(key, str(value)) for key, value in vars(module).items() if isinstance(value, SETTING)]
    return state


def _version(weight: torch.Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _with_code_of_its_own(function: FunctionType) -> FunctionType:
    """A copy for which PyTorch, which keeps compiled graphs with a function's code object, begins anew."""
    return FunctionType(function.__code__.replace(), function.__globals__, function.__name__)


def _compile(function: FunctionType, options: dict[str, bool] | None = None) -> Callable[..., torch.Tensor]:
    model_argument = function.__code__.co_varnames[0]

    def is_about_inputs(guards: Sequence[GuardFilterEntry]) -> list[bool]:
        """Most conditions that are checked before each call are about the model, and settled with the choice of the function;
        checking them took a sixteenth of the time on a CPU."""
        return [re.match(rf"{model_argument}\b", guard.name) is None for guard in guards]

    return torch.compile(function, dynamic=False, options={"guard_filter_fn": is_about_inputs} | (options or {}))


def _compile_for_gpu(function: FunctionType) -> Callable[..., torch.Tensor]:
    compiled = _compile(function, {"triton.cudagraphs": True})

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

    Args:
        step: a step of a throwaway rollout; each call meets one new pass.
        passes: their names.
        device: of the models.
    """
    # Freezing has to be on while a function is traced, for which the `options` of torch.compile come too late.
    import torch._dynamo.config as dynamo_config
    import torch._inductor.config as inductor_config
    from torch._inductor.exc import InductorError

    with (
        inductor_config.patch(CPU_CODE if device.type == "cpu" else {}),
        dynamo_config.patch(recompile_limit=NUM_GRAPHS),
        tqdm(passes, unit="pass", dynamic_ncols=True) as bar,
    ):
        for name in bar:
            bar.set_description(f"compiling the {name}")
            try:
                step(None)
            except InductorError as error:
                if "NoValidChoicesError" not in str(error):
                    raise
                # A product that has no generated form on this processor (of another dtype, or without weights): libraries'.
                with inductor_config.patch(max_autotune=False):
                    step(None)


__all__ = ["compile_pass", "decoder_pass", "dynamics_pass", "warm_up"]

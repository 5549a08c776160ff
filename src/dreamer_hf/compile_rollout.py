"""The passes of a rollout as plain functions, and their compiled forms.

Everything about `torch.compile` is here: `compile_pass` calls it, and `warm_up` makes the first calls, which compile.

Shapes: B rows, T frames of a pass, N_z latent tokens, d_z latent channels, S state components, a action width, G agent
tokens, D hidden size, F what an agent sees of a frame, H, W pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn
from tqdm import tqdm

from .agent_rows import raw_agent_states
from .cache_dreamer import DreamerCache
from .camera_views import decode_cameras

if TYPE_CHECKING:  # PyTorch's compiler takes seconds to import
    from torch._dynamo.types import GuardFilterEntry

NUM_GRAPHS = 64
"""Compiled graphs that a pass of a model may have: every batch size and kind of pass needs its own."""

CPU_CODE = {
    "freezing": True,  # weights become constants of the code, packed for its matrix products
    "max_autotune": True,  # generated matrix products of a few rows are faster than those of libraries
    "max_autotune_gemm_backends": "CPP",
    "cpp_wrapper": True,  # there are many short kernels: C++ calls them faster than Python
    "cpp.min_chunk_size": 8192,  # elements per thread: starting a thread for fewer takes longer than computing them
}
"""Settings of Inductor for a CPU; docs/speed.md says what they gain."""

SETTING = (bool, int, float, str, list)
"""Types of a module's attributes that may change what it computes."""


def dynamics_pass(
    model: nn.Module,
    latents: torch.Tensor,
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    actions: torch.Tensor,
    action_mask: torch.Tensor,
    cache: DreamerCache,
    num_commit_frames: int,
    states: torch.Tensor | None = None,
    state_mask: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Run a dynamics model once and return its clean prediction (B,T,N_z,d_z), float32; with states, a pair of that
    and the clean states (B,T,S)."""
    output = model(
        latents,
        signal_level_ids,
        step_size_ids,
        actions,
        action_mask,
        past_key_values=cache,
        num_commit_frames=num_commit_frames,
        states=states,
        state_mask=state_mask,
    )
    return output.latents.float() if states is None else (output.latents.float(), output.states)


def agent_pass(
    model: nn.Module,
    latents: torch.Tensor,
    signal_level_ids: torch.Tensor,
    step_size_ids: torch.Tensor,
    actions: torch.Tensor,
    action_mask: torch.Tensor,
    cache: DreamerCache,
    agent_tokens: torch.Tensor,
    seen_before: torch.Tensor | None,
    states: torch.Tensor | None = None,
    state_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Commit frames with the tokens (B,T,G,D) of an agent, and return what it has of the last one, (B,D+2F), see
    `raw_agent_states`."""
    output = model(
        latents,
        signal_level_ids,
        step_size_ids,
        actions,
        action_mask,
        past_key_values=cache,
        states=states,
        state_mask=state_mask,
        agent_tokens=agent_tokens,
    )
    return raw_agent_states(output.agent_states, output.latents, output.states, seen_before)[:, -1]


def decoder_pass(model: nn.Module, latents: torch.Tensor, cache: DreamerCache) -> torch.Tensor:
    """Decode latents (B,T,N_z,d_z) with a tokenizer into frames (B,T,3,H,W) in [0, 1]; see `decode_cameras`."""
    return decode_cameras(model, latents, cache)


def compile_pass(function: FunctionType, model: nn.Module) -> Callable[..., torch.Tensor]:
    """Return a compiled form of a pass for one model and static shapes.

    On a GPU it runs as CUDA graphs. Nothing is compiled before the first call; see `warm_up`. All rollouts of a model
    share the code made for it, until its weights or settings change.

    Args:
        function: `dynamics_pass`, `agent_pass` or `decoder_pass`.
        model: its first argument in every call.
    """
    passes, state = _compiled_passes.setdefault(model, {}), _state_of(model)
    if function not in passes or passes[function].state != state:
        # On a CPU nothing is marked as staying in place: freezing would take a marked cache for a weight.
        compile_one = _compile_for_gpu if model.device.type == "cuda" else _compile
        passes[function] = CompiledPass(compile_one(_copy_code_object(function)), state)
    return passes[function].function


@dataclass
class CompiledPass:
    """A compiled pass of one model, and the state of the model that became part of the code."""

    function: Callable[..., torch.Tensor]
    state: list[tuple]


_compiled_passes: WeakKeyDictionary[nn.Module, dict[FunctionType, CompiledPass]] = WeakKeyDictionary()


def _state_of(model: nn.Module) -> list[tuple]:
    """Return what changes when a weight is replaced, moved or written to, or a setting (an adapter, say) changes.

    Writing through `weight.data` leaves no trace and goes unnoticed.
    """
    state = []
    for module in model.modules():
        tensors = itertools.chain(module.parameters(recurse=False), module.buffers(recurse=False))
        state += [(id(tensor), _version(tensor), tensor.dtype, tensor.device) for tensor in tensors]
        state += [(key, str(value)) for key, value in vars(module).items() if isinstance(value, SETTING)]
    return state


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _copy_code_object(function: FunctionType) -> FunctionType:
    """Return a copy for which PyTorch, which keeps compiled graphs by code object, has none yet."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__)


def _compile(function: FunctionType, options: dict[str, bool] | None = None) -> Callable[..., torch.Tensor]:
    return torch.compile(function, dynamic=False, options={"guard_filter_fn": _keep_input_guards} | (options or {}))


def _keep_input_guards(guards: Sequence[GuardFilterEntry]) -> list[bool]:
    """Drop the guards on the model, which `compile_pass` has checked: on a CPU they took a sixteenth of the time."""
    return [guard.name.partition(".")[0].partition("[")[0] != "model" for guard in guards]


def _compile_for_gpu(function: FunctionType) -> Callable[..., torch.Tensor]:
    compiled = _compile(function, {"triton.cudagraphs": True})

    def replay(*args) -> torch.Tensor | tuple[torch.Tensor, ...]:
        for cache in (argument for argument in args if isinstance(argument, DreamerCache)):
            _keep_in_place(cache)
        # A graph writes its output to the same memory at every replay.
        torch.compiler.cudagraph_mark_step_begin()
        output = compiled(*args)
        return output.clone() if isinstance(output, torch.Tensor) else tuple(part.clone() for part in output)

    return replay


def _keep_in_place(cache: DreamerCache) -> None:
    """Promise that a cache stays where it is: without that, PyTorch refuses CUDA graphs that write to their inputs."""
    tensors = [cache.next_position, cache.slot_positions]
    tensors += [tensor for layer in cache.ring_layers for tensor in (layer.keys, layer.values)]
    for tensor in tensors:
        torch._dynamo.mark_static_address(tensor, guard=False)


def warm_up(call: Callable[[], object], passes: Sequence[str], device: torch.device) -> None:
    """Make the first calls of compiled passes, which compile, and show their progress.

    Args:
        call: something that can be thrown away; each call meets one new pass.
        passes: names of the passes, in this order.
        device: device of the model.
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
                call()
            except InductorError as error:
                if "NoValidChoicesError" not in str(error):
                    raise
                # A product without a generated form on this processor (of another dtype, say): a library computes it.
                with inductor_config.patch(max_autotune=False):
                    call()


__all__ = ["agent_pass", "compile_pass", "decoder_pass", "dynamics_pass", "warm_up"]

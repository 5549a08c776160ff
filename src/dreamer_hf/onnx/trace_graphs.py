"""Traces the parts of a world into ONNX graphs with named inputs and outputs, for any number of rows and frames."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from .graph_modules import DecoderGraph, DynamicsGraph, EncoderGraph, GraphModule

OPSET = 20
ROWS, FRAMES = 2, 3
"""Rows and frames of the example that is traced: more than one, so that no size is taken for a constant."""


@dataclass(frozen=True)
class TracedGraph:
    """A graph and what the manifest says about it.

    Attributes:
        program: the `ONNXProgram`.
        context_length, head_dim, rope_theta, cache_heads, reach: see `GraphEntry`.
    """

    program: torch.onnx.ONNXProgram
    context_length: int
    head_dim: int
    rope_theta: float
    cache_heads: list[int]
    reach: int


def trace_world(world) -> Iterator[tuple[str, TracedGraph]]:
    """Yield the name and the graph of each part of a world in float32 on the CPU, one after another.

    Args:
        world: a `DreamerWorldModel` in eval mode.
    """
    dynamics, tokenizer = world.dynamics, world.tokenizer
    config, shape = dynamics.config, (ROWS, FRAMES)
    ids = torch.zeros(shape, dtype=torch.int64)
    latents = torch.zeros(*shape, config.num_latent_tokens, config.latent_dim)
    conditions = {
        "latents": latents,
        "signal_level_ids": ids,
        "step_size_ids": ids.clone(),
        "actions": torch.zeros(*shape, config.action_dim),
        "action_mask": torch.ones(shape, dtype=torch.bool),
    }
    frames = torch.zeros(*shape, tokenizer.config.num_channels, *tokenizer.config.frame_size)
    yield "dynamics", _trace(DynamicsGraph(dynamics), dynamics.transformer, conditions, "clean")
    yield "decoder", _trace(DecoderGraph(tokenizer), tokenizer.decoder.transformer, {"latents": latents}, "frames")
    yield "encoder", _trace(EncoderGraph(tokenizer), tokenizer.encoder.transformer, {"frames": frames}, "latents")


@torch.no_grad()
def _trace(module: GraphModule, transformer, inputs: dict[str, torch.Tensor], output: str) -> TracedGraph:
    config = transformer.config
    traced = TracedGraph(
        program=None,
        context_length=config.context_length,
        head_dim=config.head_dim,
        rope_theta=float(config.rope_parameters["rope_theta"]),
        cache_heads=[tokens * config.num_key_value_heads for tokens in module.tokens_in_time],
        reach=transformer.reach,
    )
    rows, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    shapes = [{0: rows, 1: frames} for _ in inputs]
    names, outputs, arguments = list(inputs), [output], list(inputs.values())
    if module.has_past:
        past, past_shapes = _past(traced, rows, frames)
        names, arguments = names + list(past), arguments + list(past.values())
        shapes.append(tuple(past_shapes))
        layers = range(len(traced.cache_heads))
        outputs += [f"new_{kind}_{layer}" for kind in ("key", "value") for layer in layers]
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(arguments),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple(shapes),
            verbose=False,
        )
    return replace(traced, program=program)


def _past(traced: TracedGraph, rows, frames) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Return examples of the inputs that tell a graph about time and the past, and which of their sizes vary."""
    ring = traced.context_length - 1
    tables = torch.zeros(ROWS, FRAMES, traced.head_dim)
    past = {"cos": tables, "sin": tables.clone(), "mask": torch.zeros(ROWS, 1, FRAMES, ring + FRAMES)}
    shapes = [{0: rows, 1: frames}, {0: rows, 1: frames}, {0: rows, 2: frames, 3: ring + frames}]
    for kind in ("key", "value"):
        for layer, heads in enumerate(traced.cache_heads):
            past[f"past_{kind}_{layer}"] = torch.zeros(ROWS, heads, ring, traced.head_dim)
            shapes.append({0: rows})
    return past, shapes


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about itself off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


__all__ = ["TracedGraph", "trace_world"]

"""The three parts of a world as ONNX graphs: dynamics model, decoder and encoder.

Shapes: B rows, T frames, N_z latent tokens, d_z latent channels, N_p patches, p patch size, P state tokens, S state
components, A action tokens, a action width, D hidden size, C color channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from ..modeling_dreamer_tokenizer import encoder_visibility
from .graph_builder import GraphBuilder
from .ring import HIDDEN
from .transformer_graph import TransformerGraph

FRAMES = ("batch", "frames")


@dataclass(frozen=True)
class WorldGraph:
    """A graph, with what the manifest says about it.

    Attributes:
        model: the ONNX model.
        context_length, head_dim, rope_theta, cache_heads, reach: see `GraphEntry`.
    """

    model: onnx.ModelProto
    context_length: int
    head_dim: int
    rope_theta: float
    cache_heads: list[int]
    reach: int


def world_graphs(world) -> Iterator[tuple[str, WorldGraph]]:
    """Yield the name and the graph of each part of a world in float32 on the CPU, one after another."""
    yield "dynamics", _finished(*dynamics_graph(world.dynamics))
    yield "decoder", _finished(*decoder_graph(world.tokenizer))
    yield "encoder", _finished(*encoder_graph(world.tokenizer))


def _finished(graph: GraphBuilder, transformer: TransformerGraph) -> WorldGraph:
    config = transformer.config
    theta, reach = float(config.rope_parameters["rope_theta"]), transformer.transformer.reach
    return WorldGraph(graph.model(), config.context_length, config.head_dim, theta, transformer.cache_heads, reach)


def dynamics_graph(dynamics) -> tuple[GraphBuilder, TransformerGraph]:
    """Return the graph from noisy latents, conditions and the past to clean latents, and its transformer.

    A state is normalized, as the network takes and returns it; the host converts.
    """
    config, graph = dynamics.config, GraphBuilder()
    latent_shape = (*FRAMES, config.num_latent_tokens, config.latent_dim)
    latents = graph.input("latents", latent_shape)
    levels = graph.input("signal_level_ids", FRAMES, "int64")
    states = graph.input("states", (*FRAMES, config.state_dim)) if config.state_dim else None
    tokens = [_latent_tokens(graph, dynamics, latents)]
    if states is not None:
        tokens.append(_state_tokens(graph, dynamics.state_coder, states))
    if config.num_register_tokens:
        tokens.append(graph.expand_rows(_array(dynamics.register_tokens), latents, "register_tokens"))
    tokens.append(graph.unsqueeze(_control(graph, dynamics, levels), 2))
    tokens.append(_action_tokens(graph, dynamics.action_encoder))
    own_tokens = config.num_register_tokens + 1 + config.num_action_tokens
    transformer = TransformerGraph(graph, dynamics.transformer, config.num_output_tokens + own_tokens)
    hidden = transformer.add(graph.op("Concat", *tokens, axis=2))
    if states is not None:
        hidden, state_hidden = graph.split(hidden, (config.num_latent_tokens, config.num_state_tokens), axis=2)
        predicted = _predicted_states(graph, dynamics.state_coder, state_hidden)
        _add_clean(graph, config, predicted, states, levels, "clean_states", (*FRAMES, config.state_dim))
    predicted = graph.matmul(hidden, _weight(dynamics.latent_head).T, "latent_head")
    _add_clean(graph, config, predicted, latents, levels, "clean", latent_shape)
    return graph, transformer


def _add_clean(graph: GraphBuilder, config, predicted: str, noisy: str, levels: str, name: str, shape: tuple) -> None:
    """Make the clean values that a prediction stands for an output of the graph."""
    if config.prediction != "x":
        remaining = 1 - np.arange(config.num_signal_levels) / config.num_signal_levels
        axes = range(2, len(shape))
        share = graph.unsqueeze(graph.op("Gather", graph.weight(remaining), levels), *axes)
        predicted = graph.op("Add", noisy, graph.op("Mul", share, predicted))
    graph.output(predicted, name, shape)


def _latent_tokens(graph: GraphBuilder, dynamics, latents: str) -> str:
    """Return the latent tokens (B,T,N_z,D), with the embedding of the camera that each belongs to."""
    embedded = graph.matmul(latents, _weight(dynamics.latent_embed).T, "latent_embed")
    if dynamics.camera_embeddings is None:
        return embedded
    share = dynamics.config.num_latent_tokens // dynamics.config.num_cameras
    cameras = np.repeat(_array(dynamics.camera_embeddings), share, axis=0)
    return graph.op("Add", embedded, graph.weight(cameras, "camera_embeddings"))


def _state_tokens(graph: GraphBuilder, coder, states: str) -> str:
    """Return state tokens (B,T,P,D) for noisy states; the values of missing ones are finite by contract."""
    mask = graph.input("state_mask", FRAMES, "bool")
    base = _array(coder.state_tokens)
    encoded = graph.matmul(states, _weight(coder.state_proj).T, "state_proj", _array(coder.state_proj.bias))
    encoded = graph.reshape(encoded, (0, 0, *base.shape))
    present = graph.unsqueeze(graph.op("Cast", mask, to=onnx.TensorProto.FLOAT), 2, 3)
    return graph.op("Add", graph.op("Mul", encoded, present), graph.weight(base, "state_tokens"))


def _predicted_states(graph: GraphBuilder, coder, tokens: str) -> str:
    """Return what the last projection makes of the tokens (B,T,P,D): (B,T,S)."""
    flat = graph.reshape(tokens, (0, 0, coder.config.num_state_tokens * coder.config.hidden_size))
    return graph.matmul(flat, _weight(coder.state_head).T, "state_head", _array(coder.state_head.bias))


def _control(graph: GraphBuilder, dynamics, levels: str) -> str:
    """Return the control token (B,T,D). The projection of an embedding is a table: one row for each index."""
    weight = _weight(dynamics.control_proj).T.astype(np.float64)
    sizes_part, levels_part = np.split(weight, 2)
    size_table = _weight(dynamics.step_size_embedding) @ sizes_part
    level_table = _weight(dynamics.signal_level_embedding) @ levels_part
    if not dynamics.config.step_size_conditioning:
        return graph.op("Gather", graph.weight(level_table + size_table[0], "level_table"), levels)
    sizes = graph.input("step_size_ids", FRAMES, "int64")
    size = graph.op("Gather", graph.weight(size_table, "step_size_table"), sizes)
    return graph.op("Add", size, graph.op("Gather", graph.weight(level_table, "level_table"), levels))


def _action_tokens(graph: GraphBuilder, encoder) -> str:
    """Return action tokens (B,T,A,D) for raw actions; the values of missing ones are zero by contract."""
    actions = graph.input("actions", (*FRAMES, encoder.config.action_dim))
    mask = graph.input("action_mask", FRAMES, "bool")
    parts = []
    if encoder.continuous:
        columns = graph.op("Gather", actions, graph.weight(np.array(encoder.continuous, np.int64)), axis=2)
        centered = graph.op("Sub", columns, graph.weight(_array(encoder.action_mean)))
        values = graph.op("Div", centered, graph.weight(_array(encoder.action_std)))
        bias = _array(encoder.action_proj.bias)
        parts.append(graph.matmul(values, _weight(encoder.action_proj).T, "action_proj", bias))
    for number, index in enumerate(encoder.categorical):
        column = graph.op("Gather", actions, graph.weight(np.int64(index)), axis=2)
        classes = graph.op("Cast", graph.op("Round", column), to=onnx.TensorProto.INT64)
        table = graph.weight(_weight(encoder.class_embeddings[number]), f"class_embedding_{number}")
        parts.append(graph.op("Gather", table, classes))
    encoded = parts[0]
    for part in parts[1:]:
        encoded = graph.op("Add", encoded, part)
    present = graph.unsqueeze(graph.op("Cast", mask, to=onnx.TensorProto.FLOAT), 2)
    encoded = graph.unsqueeze(graph.op("Mul", encoded, present), 2)
    return graph.op("Add", encoded, graph.weight(_array(encoder.action_tokens), "action_tokens"))


def decoder_graph(tokenizer) -> tuple[GraphBuilder, TransformerGraph]:
    """Return the graph from latents and the past to frames in [0, 1], and its transformer."""
    config, decoder, graph = tokenizer.config, tokenizer.decoder, GraphBuilder()
    latents = graph.input("latents", (*FRAMES, config.num_latent_tokens, config.latent_dim))
    bottleneck = graph.reshape(latents, (0, 0, *config.bottleneck_shape))
    embedded = graph.matmul(
        bottleneck, _weight(decoder.latent_embed).T, "latent_embed", _array(decoder.latent_embed.bias)
    )
    queries = graph.expand_rows(_array(decoder.patch_queries), latents, "patch_queries")
    transformer = _tokenizer_transformer(graph, decoder.transformer, config, lambda visible: visible.T)
    hidden = transformer.add(graph.op("Concat", queries, embedded, axis=2))
    patch, (rows, columns) = config.drawn_patch_size, config.grid_size
    std, mean = (_array(each) for each in (tokenizer.image_std, tokenizer.image_mean))
    weight, bias = _weight(decoder.pixel_head).T, _array(decoder.pixel_head.bias)
    if decoder.refiner is None:  # From normalized pixels to [0, 1] within the projection.
        each_std, each_mean = (np.repeat(each.ravel(), patch**2) for each in (std, mean))
        weight, bias = weight * each_std, bias * each_std + each_mean
    patches = graph.matmul(hidden, weight, "pixel_head", bias)
    patches = graph.reshape(patches, (0, 0, rows, columns, config.num_channels, patch, patch))
    drawn = config.num_channels, rows * patch, columns * patch
    frames = graph.reshape(graph.transpose(patches, 0, 1, 4, 2, 5, 3, 6), (0, 0, *drawn))
    shape = config.num_channels, *config.frame_size
    if drawn != shape:
        enlarge_rows, enlarge_columns = (_enlarging(*sizes) for sizes in zip(drawn[1:], shape[1:]))
        frames = graph.op(
            "MatMul", graph.op("MatMul", graph.weight(enlarge_rows), frames), graph.weight(enlarge_columns.T)
        )
    if decoder.refiner is not None:
        frames = _refined(graph, decoder.refiner, frames, hidden, shape)
        frames = graph.op("Add", graph.op("Mul", frames, graph.weight(std)), graph.weight(mean))
    graph.output(graph.op("Clip", frames, graph.weight(0.0), graph.weight(1.0)), "frames", (*FRAMES, *shape))
    return graph, transformer


def _enlarging(small: int, large: int) -> np.ndarray:
    """Return the matrix (large, small) that enlarges a line of pixels as `torch.nn.functional.interpolate` does."""
    lines = torch.eye(small)[:, None]
    return torch.nn.functional.interpolate(lines, large, mode="linear", align_corners=False)[:, 0].T.numpy()


def _refined(graph: GraphBuilder, refiner, frames: str, like: str, shape: tuple[int, ...]) -> str:
    """Add the nodes of a `DreamerRefiner` for frames (B,T,C,H,W), with B and T those of another value."""
    hidden = flat = graph.reshape(frames, (-1, *shape))
    for index, layer in enumerate(refiner.layers):
        weights = (_weight(layer), f"refiner_{index}"), (_array(layer.bias), f"refiner_{index}_bias")
        hidden = graph.op("Conv", hidden, *(graph.weight(*each) for each in weights), pads=[1, 1, 1, 1])
        if index == 0:
            hidden = graph.op("Add", hidden, graph.weight(_array(refiner.places), "refiner_places"))
        if index < len(refiner.layers) - 1:
            hidden = graph.op("Mul", hidden, graph.op("Sigmoid", hidden))
    size = graph.op("Shape", like, start=0, end=2)
    size = graph.op("Concat", size, graph.weight(np.array(shape, np.int64)), axis=0)
    return graph.op("Reshape", graph.op("Add", flat, hidden), size)


def encoder_graph(tokenizer) -> tuple[GraphBuilder, TransformerGraph]:
    """Return the graph from frames in [0, 1] and the past to latents, and its transformer."""
    config, encoder, graph = tokenizer.config, tokenizer.encoder, GraphBuilder()
    frames = graph.input("frames", (*FRAMES, config.num_channels, *config.frame_size))
    centered = graph.op("Sub", frames, graph.weight(_array(tokenizer.image_mean)))
    pixels = graph.op("Div", centered, graph.weight(_array(tokenizer.image_std)))
    patch, (rows, columns) = config.patch_size, config.grid_size
    patches = graph.reshape(pixels, (0, 0, config.num_channels, rows, patch, columns, patch))
    patches = graph.reshape(graph.transpose(patches, 0, 1, 3, 5, 2, 4, 6), (0, 0, rows * columns, -1))
    weight = _weight(encoder.patch_embed).reshape(config.hidden_size, -1).T
    bias = _array(encoder.patch_embed.bias)
    if config.patch_positions:
        bias = bias + _array(encoder.row_positions[:, None] + encoder.column_positions).reshape(rows * columns, -1)
    embedded = graph.matmul(patches, weight, "patch_embed", bias)
    tokens = graph.expand_rows(_array(encoder.latent_tokens), frames, "latent_tokens")
    transformer = _tokenizer_transformer(graph, encoder.transformer, config, lambda visible: visible)
    hidden = transformer.add(graph.op("Concat", embedded, tokens, axis=2))
    bottleneck = graph.matmul(hidden, _weight(encoder.latent_proj).T, "latent_proj", _array(encoder.latent_proj.bias))
    shape = config.num_latent_tokens, config.latent_dim
    graph.output(graph.reshape(graph.op("Tanh", bottleneck), (0, 0, *shape)), "latents", (*FRAMES, *shape))
    return graph, transformer


def _tokenizer_transformer(graph: GraphBuilder, transformer, config, side: Callable) -> TransformerGraph:
    visible = side(encoder_visibility(config, torch.device("cpu")).numpy())
    mask = None if visible.all() else np.where(visible, np.float32(0), HIDDEN)
    return TransformerGraph(graph, transformer, config.num_patches + config.bottleneck_shape[0], mask)


def _weight(module) -> np.ndarray:
    return _array(module.weight)


def _array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()


__all__ = ["WorldGraph", "world_graphs"]

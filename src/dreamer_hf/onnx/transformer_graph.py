"""The space-time transformer as nodes of an ONNX graph.

What depends on weights alone is computed once, here: scales become part of the projections, and attention to a single
frame becomes one matrix.

Shapes: B rows, T frames of a pass, P frames of the ring, N tokens of a frame, M of them that are output, D hidden
size, H query heads, H_kv key-value heads, h head width, G = H / H_kv.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ..modeling_layers import DreamerTransformer
from ..rotary import rotary_tables
from .graph_builder import GraphBuilder

END = 2**31 - 1
NORM_EPS = 1e-12
"""What `torch.nn.functional.normalize` divides by at least."""


@dataclass
class TimeInputs:
    """The inputs of a graph that tell it about time and the past.

    Attributes:
        tables: cosines and signed sines, (B,T,1,1,h).
        mask: (B,1,T,P+T).
        rings: keys and values of each time layer, (B, N * H_kv, P, h).
    """

    tables: tuple[str, str]
    mask: str
    rings: list[tuple[str, str]]


@dataclass
class TransformerGraph:
    """Adds the nodes of one transformer to a graph.

    Args:
        graph: the graph.
        transformer: the PyTorch module.
        num_tokens: N.
        space_mask: (N,N) additive; None if every token of a frame sees every other.

    Attributes:
        cache_heads: N * H_kv of each time layer; the last one sees the output tokens only.
    """

    graph: GraphBuilder
    transformer: DreamerTransformer
    num_tokens: int
    space_mask: np.ndarray | None = None
    _time: TimeInputs | None = field(default=None, init=False)

    def __post_init__(self):
        self.config = self.transformer.config
        self._output_tokens = self.transformer.output_tokens.indices(self.num_tokens)[:2]
        self._num_outputs = self._output_tokens[1] - self._output_tokens[0]
        self.ring_frames = self.config.context_length - 1
        num_time_layers = len(self.transformer.layers) // self.config.time_every
        tokens = [self.num_tokens] * (num_time_layers - 1) + [self._num_outputs]
        self.cache_heads = [count * self.config.num_key_value_heads for count in tokens]

    def add(self, hidden: str) -> str:
        """Map hidden states (B,T,N,D) to (B,T,M,D), and add the inputs and outputs for the past."""
        self._time = self._time_inputs() if self.ring_frames else None
        positions = torch.arange(self.num_tokens)
        theta = self.config.rope_parameters["rope_theta"]
        tables = rotary_tables(positions, self.config.head_dim, theta, torch.float32)
        space_tables = tuple(table.numpy()[:, None] for table in tables)
        tokens, time_layer = self.num_tokens, 0
        for index, layer in enumerate(self.transformer.layers):
            normed = self._norm(hidden, layer.input_layernorm, f"layer_{index}_input_norm")
            if layer.self_attn.is_temporal:
                attended = self._attend_in_time(normed, layer.self_attn, tokens, time_layer)
                time_layer += 1
            else:
                is_last = index == len(self.transformer.layers) - 2
                attended = self._attend_in_space(normed, layer.self_attn, space_tables, is_last)
                if is_last:
                    tokens = self._num_outputs
                    hidden = self._outputs_of(hidden)
            hidden = self.graph.op("Add", hidden, attended)
            normed = self._norm(hidden, layer.post_attention_layernorm, f"layer_{index}_mlp_norm")
            hidden = self.graph.op("Add", hidden, self._mlp(normed, layer.mlp, f"layer_{index}"))
        return hidden

    def _time_inputs(self) -> TimeInputs:
        graph, ring, width = self.graph, self.ring_frames, self.config.head_dim
        cosines, sines = (
            graph.unsqueeze(graph.input(name, ("batch", "frames", width)), 2, 3) for name in ("cos", "sin")
        )
        mask = graph.input("mask", ("batch", 1, "frames", "keys"))
        keys, values = (
            [
                graph.input(f"past_{kind}_{layer}", ("batch", heads, ring, width))
                for layer, heads in enumerate(self.cache_heads)
            ]
            for kind in ("key", "value")
        )
        return TimeInputs((cosines, sines), mask, list(zip(keys, values)))

    def _norm(self, states: str, norm, name: str) -> str:
        # Runtimes recognize these six nodes and run them as one.
        graph = self.graph
        squares = graph.op("Pow", states, graph.weight(2.0))
        mean = graph.op("ReduceMean", squares, graph.weight(np.array([-1], np.int64)), keepdims=1)
        root = graph.op("Sqrt", graph.op("Add", mean, graph.weight(norm.eps)))
        return graph.op("Mul", graph.op("Div", states, root), graph.weight(_array(norm.weight), name))

    def _mlp(self, states: str, mlp, name: str) -> str:
        graph = self.graph
        gate, up = np.split(_array(mlp.gate_up_proj.weight).T, 2, axis=1)
        gate, up = graph.matmul(states, gate, f"{name}_gate"), graph.matmul(states, up, f"{name}_up")
        gated = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        return graph.matmul(gated, _array(mlp.down_proj.weight).T, f"{name}_down")

    def _attend_in_space(self, states: str, attention, tables, outputs_only: bool) -> str:
        """Attend over the tokens of a frame: (B,T,N,D) -> (B,T,M,D), with M = N unless only the outputs are needed."""
        graph, heads, key_heads = self.graph, attention.num_heads, attention.num_key_value_heads
        value = graph.reshape(self._project(states, attention, "value"), (0, 0, self.num_tokens, key_heads, -1))
        mask, queries = self.space_mask, self.num_tokens
        if outputs_only:
            first, end = self._output_tokens
            queries, mask = end - first, None if mask is None else mask[first:end]
            query_tables = tuple(table[first:end] for table in tables)
            query = self._rotated(self._outputs_of(states), attention, "query", queries, query_tables)
            key = self._rotated(states, attention, "key", self.num_tokens, tables)
        else:
            both = self._rotated(states, attention, "query_key", self.num_tokens, tables)
            query, key = graph.split(both, (heads, key_heads), axis=3)
        query = graph.transpose(query, 0, 1, 3, 2, 4)
        key, value = graph.transpose(key, 0, 1, 3, 4, 2), graph.transpose(value, 0, 1, 3, 2, 4)
        if heads != key_heads:
            query = graph.reshape(query, (0, 0, key_heads, heads // key_heads, queries, -1))
            key, value = graph.unsqueeze(key, 3), graph.unsqueeze(value, 3)
        logits = self._capped(graph.op("MatMul", query, key))
        if mask is not None:
            logits = graph.op("Add", logits, graph.weight(mask))
        output = graph.op("MatMul", graph.op("Softmax", logits, axis=-1), value)
        if heads != key_heads:
            output = graph.reshape(output, (0, 0, heads, queries, -1))
        output = graph.reshape(graph.transpose(output, 0, 1, 3, 2, 4), (0, 0, queries, -1))
        return graph.matmul(output, _array(attention.o_proj.weight).T, f"layer_{attention.layer_idx}_output")

    def _attend_in_time(self, states: str, attention, tokens: int, time_layer: int) -> str:
        """Attend over the ring and the new frames at each token: (B,T,N,D) -> (B,T,N,D)."""
        if not self.ring_frames:
            return self._attend_to_itself(states, attention)
        graph, heads, key_heads = self.graph, attention.num_heads, attention.num_key_value_heads
        width, groups = attention.head_dim, heads // key_heads
        both = self._rotated(states, attention, "query_key", tokens, self._time.tables)
        query, key = graph.split(graph.transpose(both, 0, 2, 3, 1, 4), (heads, key_heads), axis=2)
        key = self._new_states(key, "key", tokens, time_layer)
        value = graph.reshape(self._project(states, attention, "value"), (0, 0, tokens, key_heads, width))
        value = self._new_states(graph.transpose(value, 0, 2, 3, 1, 4), "value", tokens, time_layer)
        past_key, past_value = self._time.rings[time_layer]
        mask = self._time.mask
        if groups > 1:  # all query heads of a key head read it where it is
            query = graph.reshape(query, (0, tokens * key_heads, groups, -1, width))
            pairs = past_key, past_value, key, value, mask
            past_key, past_value, key, value, mask = (graph.unsqueeze(each, 2) for each in pairs)
            last_two = (0, 1, 2, 4, 3)
        else:
            query, last_two = graph.reshape(query, (0, tokens * heads, -1, width)), (0, 1, 3, 2)
        # The logits of the ring and of the new frames are joined, not the keys: a ring is large.
        logits = [graph.op("MatMul", query, graph.transpose(each, *last_two)) for each in (past_key, key)]
        logits = graph.op("Add", self._capped(graph.op("Concat", *logits, axis=-1)), mask)
        weights = graph.op("Softmax", logits, axis=-1)
        past, new = (
            graph.slice(weights, *bounds, axis=-1) for bounds in ((0, self.ring_frames), (self.ring_frames, END))
        )
        output = graph.op("Add", graph.op("MatMul", past, past_value), graph.op("MatMul", new, value))
        output = graph.transpose(graph.reshape(output, (0, tokens, heads, -1, width)), 0, 3, 1, 2, 4)
        output = graph.reshape(output, (0, 0, tokens, -1))
        return graph.matmul(output, _array(attention.o_proj.weight).T, f"layer_{attention.layer_idx}_output")

    def _new_states(self, states: str, kind: str, tokens: int, time_layer: int) -> str:
        """Make keys or values (B,N,H_kv,T,h) of the new frames an output (B, N * H_kv, T, h), and return it."""
        heads, width = tokens * self.config.num_key_value_heads, self.config.head_dim
        states = self.graph.reshape(states, (0, heads, -1, width))
        return self.graph.output(states, f"new_{kind}_{time_layer}", ("batch", heads, "frames", width))

    def _attend_to_itself(self, states: str, attention) -> str:
        """Attend to a single frame: the output is the value, so both projections are one matrix."""
        value, output = self._weights_of(attention)["value"], _array(attention.o_proj.weight)
        heads, groups = attention.num_key_value_heads, attention.num_key_value_groups
        output = output.reshape(len(output), heads, groups, attention.head_dim).sum(2).reshape(len(output), -1)
        product = value.astype(np.float64) @ output.T.astype(np.float64)
        return self.graph.matmul(states, product, f"layer_{attention.layer_idx}_value_output")

    def _rotated(self, states: str, attention, part: str, tokens: int, tables) -> str:
        """Return queries, keys or both (B,T,tokens,heads,h), normalized, scaled and rotated."""
        graph, width = self.graph, attention.head_dim
        rotated = graph.reshape(self._project(states, attention, part), (0, 0, tokens, -1, width))
        if attention.query_scale is not None:
            rotated = self._normalized(rotated, attention, part)
        cosines, sines = (each if isinstance(each, str) else graph.weight(each) for each in tables)
        first, second = graph.split(rotated, (width // 2, width // 2), axis=4)
        swapped = graph.op("Concat", second, first, axis=4)
        return graph.op("Add", graph.op("Mul", rotated, cosines), graph.op("Mul", swapped, sines))

    def _normalized(self, states: str, attention, part: str) -> str:
        graph, scale = self.graph, _array(attention.query_scale) * attention.scaling
        scales = {"query": scale, "key": np.ones(attention.num_key_value_heads)}
        scales["query_key"] = np.concatenate([scales["query"], scales["key"]])
        length = graph.op("ReduceL2", states, graph.weight(np.array([-1], np.int64)), keepdims=1)
        states = graph.op("Div", states, graph.op("Max", length, graph.weight(NORM_EPS)))
        return states if part == "key" else graph.op("Mul", states, graph.weight(scales[part][:, None]))

    def _project(self, states: str, attention, part: str) -> str:
        return self.graph.matmul(states, self._weights_of(attention)[part], f"layer_{attention.layer_idx}_{part}")

    @staticmethod
    def _weights_of(attention) -> dict[str, np.ndarray]:
        """Return the projections (D, heads * h) of an attention layer; queries are scaled."""
        bounds = attention.query_width, attention.query_key_width
        query, key, value = np.split(_array(attention.qkv_proj.weight).T, bounds, axis=1)
        if attention.query_scale is None:  # otherwise the scale comes after the norm
            query = query * np.float32(attention.scaling)
        return {"query": query, "key": key, "value": value, "query_key": np.concatenate([query, key], axis=1)}

    def _capped(self, logits: str) -> str:
        cap = self.config.attn_logit_softcapping
        if cap is None:
            return logits
        limit = self.graph.weight(float(cap))
        return self.graph.op("Mul", self.graph.op("Tanh", self.graph.op("Div", logits, limit)), limit)

    def _outputs_of(self, states: str) -> str:
        if self._num_outputs == self.num_tokens:
            return states
        return self.graph.slice(states, *self._output_tokens, axis=2)


def _array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()


__all__ = ["TransformerGraph"]

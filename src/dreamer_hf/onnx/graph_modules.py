"""The models as functions of tensors only, which `torch.onnx` traces into graphs.

The time layers' past comes in as one ring of keys and values per layer, and the keys and values of the new frames go
out; the host keeps the ring. A model is used as it is: it gets a stand-in for the cache, and a function that attends to
the ring and to the new frames without joining them.

Shapes: B rows, T frames of a pass, P frames of the ring, N tokens of a frame, h head width, H_kv key-value heads, G query
heads for each of them.
"""

from __future__ import annotations

import torch
from torch import nn

from ..cache_dreamer import TimePlan
from ..modeling_layers import DreamerTransformer


class RingInputs:
    """The past of a transformer as inputs of a graph, in the place of a `DreamerCache`.

    Args:
        tables: rotary tables of the new frames' positions, each (B,T,h).
        mask: (B,1,T,P+T) additive, over the ring and then the new frames.
        past: keys of each time layer, (B, N * H_kv, P, h), then the values.

    Attributes:
        new_keys, new_values: of each time layer, (B, N * H_kv, T, h).
    """

    def __init__(self, tables: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor, past: tuple[torch.Tensor, ...]):
        self.tables, self.mask = tables, mask
        count = len(past) // 2
        self.past_keys, self.past_values = past[:count], past[count:]
        self.new_keys: list[torch.Tensor] = []
        self.new_values: list[torch.Tensor] = []

    def plan(self, num_frames: int, num_commit_frames: int, dtype: torch.dtype) -> TimePlan:
        """Return the plan of the pass, whose positions and mask the host has computed."""
        return TimePlan(torch.arange(num_frames), self.mask, tables=self.tables)

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, plan: TimePlan):
        """Keep the new keys and values of the next time layer, and return them behind those of its ring."""
        index = len(self.new_keys)
        self.new_keys.append(key)
        self.new_values.append(value)
        return (self.past_keys[index], key), (self.past_values[index], value)

    def advance(self, num_commit_frames: int) -> None:
        """Do nothing: the host commits frames."""


class SingleFrames:
    """What stands in for the cache where a time layer sees the frame itself only, so that attention is its value.

    Args:
        head_dim: h.
    """

    def __init__(self, head_dim: int):
        self.tables = torch.ones(1, 1, head_dim), torch.zeros(1, 1, head_dim)

    def plan(self, num_frames: int, num_commit_frames: int, dtype: torch.dtype) -> TimePlan:
        """Return the plan of the pass: positions do not matter."""
        return TimePlan(torch.arange(num_frames), None, tables=self.tables)

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, plan: TimePlan):
        """Return no key, and the values of the frames themselves."""
        return None, value

    def advance(self, num_commit_frames: int) -> None:
        """Do nothing: there is no past."""


def graph_attention(module, query, key, value, attention_mask, scaling, softcap=None, **kwargs):
    """Attend (B,H,L,h) -> (B,L,H,h) with plain products; keys and values may be pairs of the ring and the new frames.

    The logits of the two are joined, not the keys: a ring is fifteen times as large as what a pass adds to it.
    """
    groups, heads = module.num_key_value_groups, query.shape[1]
    if key is None:
        return value.repeat_interleave(groups, dim=1).transpose(1, 2), None
    keys, values = (states if isinstance(states, tuple) else (states,) for states in (key, value))
    query = query * scaling
    if groups > 1:  # (B, H_kv, G, L, h): all query heads of a key head read it where it is
        query = query.unflatten(1, (heads // groups, groups))
        keys, values = ([states[:, :, None] for states in pair] for pair in (keys, values))
        attention_mask = attention_mask if attention_mask is None else attention_mask[:, :, None]
    logits = [query @ states.transpose(-2, -1) for states in keys]
    logits = logits[0] if len(logits) == 1 else torch.cat(logits, dim=-1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = logits.softmax(dim=-1)
    if len(values) == 1:
        output = weights @ values[0]
    else:
        past = keys[0].shape[-2]
        output = weights[..., :past] @ values[0] + weights[..., past:] @ values[1]
    return (output.flatten(1, 2) if groups > 1 else output).transpose(1, 2), None


class GraphModule(nn.Module):
    """A part of a world as a graph.

    Args:
        transformer: its transformer, which has the time layers.
        num_tokens: N, the tokens of a frame.

    Attributes:
        has_past: whether a frame sees others, so that there are inputs and outputs for keys and values.
        tokens_in_time: number of tokens that each time layer sees; the last one sees only those that are output.
    """

    def __init__(self, transformer: DreamerTransformer, num_tokens: int):
        super().__init__()
        config = transformer.config
        num_outputs = len(range(num_tokens)[transformer.output_tokens])
        self.tokens_in_time = [num_tokens] * (len(transformer.layers) // config.time_every - 1) + [num_outputs]
        self.head_dim, self.has_past = config.head_dim, config.context_length > 1

    def run(self, compute, past: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Call `compute(cache)` and return its result, followed by the new keys and values.

        Args:
            compute: function of the stand-in for the cache.
            past: cosines, sines, mask, keys and values; empty without a past.
        """
        if not self.has_past:
            return (compute(SingleFrames(self.head_dim)),)
        cosines, sines, mask, *rings = past
        cache = RingInputs((cosines, sines), mask, tuple(rings))
        return (compute(cache), *cache.new_keys, *cache.new_values)


class DynamicsGraph(GraphModule):
    """Noisy latents, conditions and the past -> clean latents, and new keys and values."""

    def __init__(self, dynamics):
        config = dynamics.config
        own_tokens = config.num_register_tokens + 1 + config.num_action_tokens
        super().__init__(dynamics.transformer, config.num_latent_tokens + own_tokens)
        self.dynamics = dynamics

    def forward(self, latents, signal_level_ids, step_size_ids, actions, action_mask, *past):
        def compute(cache):
            return self.dynamics(
                latents,
                signal_level_ids,
                step_size_ids,
                actions,
                action_mask,
                past_key_values=cache,
                attention_function=graph_attention,
            ).latents

        return self.run(compute, past)


class DecoderGraph(GraphModule):
    """Latents and the past -> frames in [0, 1], and new keys and values."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer.decoder.transformer, _tokenizer_tokens(tokenizer.config))
        self.tokenizer = tokenizer

    def forward(self, latents, *past):
        def compute(cache):
            return self.tokenizer.decode(latents, cache, attention_function=graph_attention).pixel_values_videos

        return self.run(compute, past)


class EncoderGraph(GraphModule):
    """Frames in [0, 1] and the past -> latents, and new keys and values."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer.encoder.transformer, _tokenizer_tokens(tokenizer.config))
        self.tokenizer = tokenizer

    def forward(self, frames, *past):
        def compute(cache):
            return self.tokenizer.encode(frames, cache, attention_function=graph_attention).latents

        return self.run(compute, past)


def _tokenizer_tokens(config) -> int:
    return config.num_patches + config.bottleneck_shape[0]


__all__ = ["DecoderGraph", "DynamicsGraph", "EncoderGraph", "GraphModule"]

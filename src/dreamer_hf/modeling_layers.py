"""The space-time transformer that tokenizer and dynamics model share (arXiv 2509.24527, section 3.4).

Shapes: B batch, T frames, N tokens of a frame, D hidden size, H query heads, H_kv key-value heads, h head width,
K keys that a query may see.

Space layers attend over the N tokens of one frame, so attention sees (B*T, H, N, h). Time layers attend over T at one
token position; there the N positions stand beside the heads, (B, N*H, T, h), so that one (B,1,T,K) mask serves all of
them and the cache has the shape of any other key-value cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from .cache_dreamer import DreamerCache, TimePlan, context_copies_plan, uncached_plan
from .configuration_dreamer import DreamerTransformerConfig
from .rotary import rotary_tables, rotate


class DreamerRMSNorm(nn.Module):
    """Root mean square norm over the last axis, computed in float32 (or better) whatever the input's dtype."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        states, weight = hidden_states.to(dtype), self.weight.to(dtype)
        if states.is_cuda:  # one kernel
            normed = nn.functional.rms_norm(states, weight.shape, weight, self.eps)
        else:  # where PyTorch composes it of more passes over the data than these three
            norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
            normed = states * (norm.square() / weight.shape[0] + self.eps).rsqrt() * weight
        return normed.to(hidden_states.dtype)


def filled_up_linear(states: torch.Tensor, weight: torch.Tensor, multiple: int) -> torch.Tensor:
    """(..., I) times a weight (O,I): (..., O), by a product whose widths are multiples of a number; zeros fill them up."""
    outputs, inputs = weight.shape
    missing = -inputs % multiple
    weight = nn.functional.pad(weight, (0, missing, 0, -outputs % multiple))
    return nn.functional.linear(nn.functional.pad(states, (0, missing)), weight)[..., :outputs]


class AnyWidthLinear(nn.Linear):
    """A linear layer without bias whose widths may be any: on a GPU it is computed with widths that suit one.

    The published width of SwiGLU, `floor(8 D / 3)`, is seldom a multiple of eight (5461 for D = 2048), and what a GPU has for
    bfloat16 takes rows of whole 16 bytes only; others go through slow kernels.
    """

    MULTIPLE = 8

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        suits = self.in_features % self.MULTIPLE == self.out_features % self.MULTIPLE == 0
        # A quantized weight is another kind of tensor, with products of its own.
        if suits or not states.is_cuda or type(self.weight) is not nn.Parameter:
            return super().forward(states)
        return filled_up_linear(states, self.weight, self.MULTIPLE)


class DreamerMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), gate and up as one matrix product."""

    def __init__(self, config: DreamerTransformerConfig):
        super().__init__()
        self.gate_up_proj = AnyWidthLinear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = AnyWidthLinear(config.intermediate_size, config.hidden_size)
        self.act_fn = ACT2FN["silu"]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
        return self.down_proj(self.act_fn(gate) * up)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs,
):
    """Attention spelled out: (.., heads, L, h) -> output (.., L, heads, h) and weights (.., heads, L, K)."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    logits = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = nn.functional.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def few_queries_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention of the one or two frames of a rollout's pass, (B,heads,L,h) -> (B,L,heads,h), for the compiler to fuse.

    There are thousands of sequences of one query and a window of keys. Kernels made for many queries leave most of a GPU
    idle there; products and sums read every key and value once. Uncompiled they would fill the memory.
    """
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    logits = (query[:, :, :, None].float() * key[:, :, None].float()).sum(-1) * scaling + mask
    weights = logits.softmax(dim=-1)
    output = (weights[..., None] * value[:, :, None].float()).sum(-2).to(query.dtype)
    return output.transpose(1, 2), None


def _mask_for_flex(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """A mask (1 or B,1,L,K) for all B sequences of a query: flex attention looks it up by the sequence's number.

    Raises:
        ValueError: the model is on a CPU, for which the kernel that PyTorch 2.11 makes of a score with such a mask is broken.
    """
    if query.device.type == "cpu":
        raise ValueError("flex attention needs a GPU: on a CPU choose attn_implementation='sdpa'.")
    return None if mask is None else mask.expand(query.shape[0], -1, -1, -1)


@dataclass(frozen=True)
class PassContext:
    """What every layer of one pass needs besides the tokens; made once a pass.

    Attributes:
        space_tables: rotary tables (N,1,h) over a frame's tokens.
        time_tables: rotary tables (T,1,1,h) over the frames' positions.
        space_mask: (1,1,N,N) additive mask, or None where every token sees every other.
        time_plan: positions, mask and cache slots of the frames.
        cache: cache of the time layers, or None.
    """

    space_tables: tuple[torch.Tensor, torch.Tensor]
    time_tables: tuple[torch.Tensor, torch.Tensor]
    space_mask: torch.Tensor | None
    time_plan: TimePlan
    cache: DreamerCache | None


class DreamerAttention(nn.Module):
    """Attention of one layer, over space or over time; queries, keys and values are one matrix product."""

    is_causal = False  # the masks say what is visible; SDPA must not guess

    def __init__(self, config: DreamerTransformerConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_temporal = (layer_idx + 1) % config.time_every == 0
        self.head_dim = config.head_dim
        self.num_heads = config.num_attention_heads
        self.num_key_value_heads = config.num_key_value_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.query_width = self.num_heads * self.head_dim
        self.value_width = self.num_key_value_heads * self.head_dim
        self.query_key_width = self.query_width + self.value_width
        self.qkv_proj = nn.Linear(config.hidden_size, self.query_key_width + self.value_width, bias=False)
        self.o_proj = nn.Linear(self.query_width, config.hidden_size, bias=False)
        self.query_scale = nn.Parameter(torch.empty(self.num_heads)) if config.qk_norm else None

    def forward(self, hidden_states: torch.Tensor, context: PassContext, read: slice | None = None, **kwargs):
        """(B,T,N,D) -> (B,T,M,D), with M = N, or as many tokens as `read` asks for (space layers only)."""
        tables = context.time_tables if self.is_temporal else context.space_tables
        query, key, value = self._project(hidden_states, tables, read)
        if self.is_temporal:
            output, weights = self._attend_time(query, key, value, context, **kwargs)
        else:
            output, weights = self._attend_space(query, key, value, context, read, **kwargs)
        return self.o_proj(output), weights

    def _project(self, hidden_states: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor], read: slice | None):
        """(B,T,N,D) -> queries (B,T,M,H,h), keys and values (B,T,N,H_kv,h), with QK-norm and positions applied."""
        # Always through the module, never its weight alone: adapters and offloaded weights live in the module's call.
        query_key, value = self.qkv_proj(hidden_states).split([self.query_key_width, self.value_width], dim=-1)
        query_key = query_key.unflatten(-1, (-1, self.head_dim))
        if self.query_scale is not None:
            query_key = nn.functional.normalize(query_key.float(), dim=-1).to(query_key.dtype)
        # Queries and keys turn alike: together they cost half the calls.
        query, key = rotate(query_key, tables).split([self.num_heads, self.num_key_value_heads], dim=-2)
        query = query if read is None else query[:, :, read]
        if self.query_scale is not None:
            query = query * self.query_scale[:, None]
        return query, key, value.unflatten(-1, (self.num_key_value_heads, self.head_dim))

    def _attend_space(self, query, key, value, context: PassContext, read: slice | None, **kwargs):
        batch, frames = query.shape[:2]
        query, key, value = (x.flatten(0, 1).transpose(1, 2) for x in (query, key, value))
        mask = context.space_mask
        if mask is not None and read is not None:
            mask = mask[:, :, read]
        output, weights = self._attend(query, key, value, mask, **kwargs)
        return output.flatten(2).unflatten(0, (batch, frames)), weights

    def _attend_time(self, query, key, value, context: PassContext, **kwargs):
        batch, frames, tokens = query.shape[:3]
        query, key, value = (x.permute(0, 2, 3, 1, 4).flatten(1, 2) for x in (query, key, value))
        if context.cache is not None:
            key, value = context.cache.update(key, value, self.layer_idx, context.time_plan)
        attend = self._attend
        if query.is_cuda and torch.compiler.is_compiling() and context.time_plan.in_place and self._uses_sdpa:
            attend = partial(few_queries_attention_forward, self, scaling=self.scaling)
        output, weights = attend(query, key, value, context.time_plan.mask, **kwargs)
        return output.reshape(batch, frames, tokens, self.query_width), weights

    @property
    def _uses_sdpa(self) -> bool:
        return self.config._attn_implementation == "sdpa" and self.config.attn_logit_softcapping is None

    def _attend(self, query, key, value, mask: torch.Tensor | None, **kwargs):
        softcap = self.config.attn_logit_softcapping
        implementation = self.config._attn_implementation
        if softcap is not None:
            kwargs["softcap"] = softcap
            # SDPA cannot cap logits and refuses to try.
            implementation = "eager" if implementation == "sdpa" else implementation
        if implementation == "flex_attention":
            mask = _mask_for_flex(mask, query)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        return attention(self, query, key, value, mask, scaling=self.scaling, **kwargs)


class DreamerLayer(GradientCheckpointingLayer):
    """Pre-norm attention (space or time) and SwiGLU, both residual."""

    def __init__(self, config: DreamerTransformerConfig, layer_idx: int):
        super().__init__()
        self.self_attn = DreamerAttention(config, layer_idx)
        self.mlp = DreamerMLP(config)
        self.input_layernorm = DreamerRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = DreamerRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_states: torch.Tensor, context: PassContext, read: slice | None = None, **kwargs):
        """(B,T,N,D) -> (B,T,M,D); with `read`, only those tokens go on."""
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), context, read, **kwargs)
        residual = hidden_states if read is None else hidden_states[:, :, read]
        hidden_states = residual + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class DreamerTransformer(nn.Module):
    """A stack of layers over (time, tokens of a frame); no norm after the last one.

    Args:
        config: widths and window.
        num_layers: a multiple of `config.time_every`.
        read: the tokens of a frame whose outputs anybody reads. The others stop after the last space layer's keys
            and values: they would change nothing that is read.
    """

    def __init__(self, config: DreamerTransformerConfig, num_layers: int, read: slice):
        super().__init__()
        self.config = config
        self.read = read
        self.layers = nn.ModuleList([DreamerLayer(config, index) for index in range(num_layers)])
        self.gradient_checkpointing = False

    def new_cache(self, batch_size: int, device: torch.device, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """An empty cache for this stack."""
        config = self.config
        shape = (len(self.layers), config.time_every, config.context_length, batch_size)
        return DreamerCache(*shape, device, start_position, config.rope_theta)

    def forward(
        self,
        hidden_states: torch.Tensor,
        space_mask: torch.Tensor | None = None,
        cache: DreamerCache | None = None,
        num_commit_frames: int | None = None,
        num_copied_frames: int | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """(B,T,N,D) -> (B,T,M,D) for the M tokens of `read`.

        With a cache, the T frames follow what it holds; the first `num_commit_frames` of them (all, if None) are
        kept in it and the rest are forgotten. Without one, `num_copied_frames` leading frames are a context and the
        others copies of it (see `context_copies_plan`).
        """
        frames = hidden_states.shape[1]
        commit = frames if num_commit_frames is None else num_commit_frames
        context = self._context(hidden_states, space_mask, cache, commit, num_copied_frames)
        last_space_layer = len(self.layers) - 2
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, context, self.read if index == last_space_layer else None, **kwargs)
        if cache is not None:
            cache.advance(commit)
        return hidden_states

    def _context(
        self, hidden_states, space_mask, cache: DreamerCache | None, commit: int, num_copied_frames: int | None
    ) -> PassContext:
        frames, tokens = hidden_states.shape[1:3]
        dtype, device = hidden_states.dtype, hidden_states.device
        if cache is not None:
            plan = cache.plan(frames, commit, dtype)
        elif num_copied_frames is not None:
            plan = context_copies_plan(frames, num_copied_frames, self.config.context_length, dtype, device)
        else:
            plan = uncached_plan(frames, self.config.context_length, dtype, device)
        width, theta = self.config.head_dim, self.config.rope_theta
        space_tables = rotary_tables(torch.arange(tokens, device=device), width, theta, dtype)
        space_tables = tuple(table[:, None] for table in space_tables)
        time_tables = tuple(table[:, None, None] for table in rotary_tables(plan.positions, width, theta, dtype))
        return PassContext(space_tables, time_tables, space_mask, plan, cache)


class DreamerPreTrainedModel(PreTrainedModel):
    """Weight initialization and the ecosystem's switches, for every Dreamer model."""

    config: DreamerTransformerConfig
    base_model_prefix = ""
    main_input_name = "pixel_values_videos"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DreamerLayer"]
    _skip_keys_device_placement = ["past_key_values", "context"]
    _supports_sdpa = True
    _supports_flex_attn = True  # on a GPU
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": DreamerLayer, "attentions": DreamerAttention}

    @property
    def device(self) -> torch.device:
        """Where the model computes: with offloaded weights, where they are brought to."""
        device = next(parameter.device for parameter in self.parameters())  # graphs cannot ask `super()`
        if device.type == "meta":
            hooks = (getattr(module, "_hf_hook", None) for module in self.modules())
            places = (getattr(hook, "execution_device", None) for hook in hooks)
            device = next((torch.device(place) for place in places if place is not None), device)
        return device

    def get_input_embeddings(self):
        """None: pixels and latents enter through projections, there is no vocabulary."""
        return None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            init.normal_(module.weight, std=self.config.initializer_range or fan_in**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)
        elif isinstance(module, DreamerRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, DreamerMLP):
            init.zeros_(module.down_proj.weight)
        elif isinstance(module, DreamerAttention):
            init.zeros_(module.o_proj.weight)
            if module.query_scale is not None:
                # Two random directions of width h have a cosine near h^-1/2: this gives logits of unit variance.
                init.constant_(module.query_scale, module.head_dim)


__all__ = ["DreamerPreTrainedModel", "DreamerTransformer"]

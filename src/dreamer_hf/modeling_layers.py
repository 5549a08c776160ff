"""The space-time transformer shared by the tokenizer and the dynamics model (arXiv 2509.24527, section 3.4).

Shapes: B batch, T frames, N tokens of a frame, M tokens of a frame that are output, D hidden size, H query heads,
H_kv key-value heads, h head width, L queries, K keys.

Space layers attend over the N tokens of one frame, so attention sees (B*T, H, N, h). Time layers attend over T at one
token position. There the N positions are merged with the heads, (B, N*H, T, h), so one (B,1,T,K) mask serves all of
them and the cache has the shape of any other key-value cache.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import AttentionInterface, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .cache_dreamer import DreamerCache, TimePlan, context_copies_plan, uncached_plan
from .configuration_dreamer import DreamerTransformerConfig
from .rotary import rotary_tables, rotate
from .weight_files import check_complete, readable_loading_errors, write_digests


class DreamerRMSNorm(nn.Module):
    """Root mean square norm over the last axis, computed in float32 or better."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        states, weight = hidden_states.to(dtype), self.weight.to(dtype)
        if states.is_cuda:  # one kernel
            normed = nn.functional.rms_norm(states, weight.shape, weight, self.eps)
        else:  # elsewhere PyTorch composes it from more passes over the data than these three
            norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
            normed = states * (norm.square() / weight.shape[0] + self.eps).rsqrt() * weight
        return normed.to(hidden_states.dtype)


def padded_linear(states: torch.Tensor, weight: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return states (..., I) times a weight (O,I), (..., O), with both widths padded by zeros to a multiple."""
    outputs, inputs = weight.shape
    missing = -inputs % multiple
    weight = nn.functional.pad(weight, (0, missing, 0, -outputs % multiple))
    return nn.functional.linear(nn.functional.pad(states, (0, missing)), weight)[..., :outputs]


class PaddedLinear(nn.Linear):
    """Linear layer without bias that pads its widths on a GPU.

    The published width of SwiGLU, `floor(8 D / 3)`, is seldom a multiple of eight (5461 for D = 2048). The fast
    bfloat16 kernels of a GPU take only rows of whole 16 bytes.
    """

    MULTIPLE = 8

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        fits = self.in_features % self.MULTIPLE == self.out_features % self.MULTIPLE == 0
        # A quantized weight is another kind of tensor, with its separate products.
        if fits or not states.is_cuda or type(self.weight) is not nn.Parameter:
            return super().forward(states)
        return padded_linear(states, self.weight, self.MULTIPLE)


class DreamerMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), with gate and up as one matrix product."""

    def __init__(self, config: DreamerTransformerConfig):
        super().__init__()
        self.gate_up_proj = PaddedLinear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = PaddedLinear(config.intermediate_size, config.hidden_size)
        self.down_proj.starts_at_zero = True
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
    softcap: float | None = None,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend with separate products: (B,H,L,h) -> output (B,L,H,h) and weights (B,H,L,K)."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    logits = query @ key.transpose(2, 3) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = nn.functional.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def decode_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, None]:
    """Attend from the one or two frames of a rollout's pass: (B,H,L,h) -> (B,L,H,h), for a compiler to fuse.

    There are thousands of sequences of few queries and one window of keys. Kernels made for many queries leave most of
    a GPU idle; products and sums read every key and value once. Without a compiler they would fill the memory.
    """
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    logits = (query[:, :, :, None].float() * key[:, :, None].float()).sum(-1) * scaling + attention_mask
    weights = logits.softmax(dim=-1)
    output = (weights[..., None] * value[:, :, None].float()).sum(-2).to(query.dtype)
    return output.transpose(1, 2), None


MAX_DECODE_FRAMES = 2
"""Frames of a rollout's pass: the one that is committed and the one that is denoised."""


def dreamer_sdpa_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, None]:
    """Attend with SDPA, or with `decode_attention_forward` in the compiled passes of a rollout on a GPU."""
    is_decoding = module.is_temporal and query.shape[2] <= MAX_DECODE_FRAMES
    if is_decoding and query.is_cuda and torch.compiler.is_compiling():
        return decode_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


ALL_ATTENTION_FUNCTIONS = AttentionInterface()
# Assigned to this instance, not registered: other models of the process keep their own "sdpa".
ALL_ATTENTION_FUNCTIONS["sdpa"] = dreamer_sdpa_attention_forward


class DreamerAttention(nn.Module):
    """Attention of one layer, over space or over time, with queries, keys and values as one matrix product."""

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
        self.o_proj.starts_at_zero = True
        self.query_scale = nn.Parameter(torch.empty(self.num_heads)) if config.qk_norm else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: DreamerCache | None = None,
        time_plan: TimePlan | None = None,
        output_tokens: slice | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map (B,T,N,D) to (B,T,M,D) and attention weights (None if the implementation gives none).

        Args:
            hidden_states: (B,T,N,D).
            position_embeddings: rotary tables, over space (N,1,h) or over time (T,1,1,h).
            attention_mask: (1 or B,1,L,K) additive; None if every token sees every other.
            past_key_values: cache of the time layers.
            time_plan: position of the pass in the cache.
            output_tokens: the M tokens to compute (space layers only); all N by default.
        """
        query, key, value = self._project(hidden_states, position_embeddings, output_tokens)
        if attention_mask is not None and output_tokens is not None:
            attention_mask = attention_mask[:, :, output_tokens]
        query, key, value = (self._to_sequences(states) for states in (query, key, value))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx, time_plan)
        return self._attend(query, key, value, attention_mask, hidden_states.shape[:2], **kwargs)

    def keys_and_values(self, hidden_states: torch.Tensor, position_embeddings: tuple) -> torch.Tensor:
        """Return keys and values (B,T,N,2,H_kv,h) of tokens (B,T,N,D), for `attend_with` (space layers)."""
        return torch.stack(self._project(hidden_states, position_embeddings, None)[1:], dim=3)

    def attend_with(self, hidden_states: torch.Tensor, position_embeddings: tuple, others: torch.Tensor):
        """Attend from tokens (B,T,M,D) of a frame to each other and to other tokens of the frame, of which only the
        keys and values (B,T,N,2,H_kv,h) are needed; returns (B,T,M,D)."""
        query, *own = self._project(hidden_states, position_embeddings, None)
        keys_and_values = (torch.cat(parts, dim=2) for parts in zip(others.unbind(3), own))
        sequences = (self._to_sequences(states) for states in (query, *keys_and_values))
        return self._attend(*sequences, None, hidden_states.shape[:2])[0]

    def _attend(self, query, key, value, attention_mask, batch_and_frames: torch.Size, **kwargs):
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        softcap = self.config.attn_logit_softcapping
        output, weights = attention(
            self, query, key, value, attention_mask, scaling=self.scaling, softcap=softcap, **kwargs
        )
        return self.o_proj(self._from_sequences(output, *batch_and_frames)), weights

    def _project(self, hidden_states, tables, output_tokens):
        """Map (B,T,N,D) to queries (B,T,M,H,h), keys and values (B,T,N,H_kv,h), with QK-norm and positions applied."""
        # Always through the module, never its weight alone: adapters and offloaded weights live in the module's call.
        query_key, value = self.qkv_proj(hidden_states).split([self.query_key_width, self.value_width], dim=-1)
        query_key = query_key.unflatten(-1, (-1, self.head_dim))
        if self.query_scale is not None:
            query_key = nn.functional.normalize(query_key.float(), dim=-1).to(query_key.dtype)
        # Queries and keys are rotated alike: together they take half the calls.
        query, key = rotate(query_key, tables).split([self.num_heads, self.num_key_value_heads], dim=-2)
        query = query if output_tokens is None else query[:, :, output_tokens]
        if self.query_scale is not None:
            query = query * self.query_scale[:, None]
        return query, key, value.unflatten(-1, (self.num_key_value_heads, self.head_dim))

    def _to_sequences(self, states: torch.Tensor) -> torch.Tensor:
        """Map (B,T,N,heads,h) to the layer's sequences: (B, N*heads, T, h) in time, (B*T, heads, N, h) in space."""
        if self.is_temporal:
            return states.permute(0, 2, 3, 1, 4).flatten(1, 2)
        return states.flatten(0, 1).transpose(1, 2)

    def _from_sequences(self, output: torch.Tensor, batch: int, frames: int) -> torch.Tensor:
        """Map the output of attention, (B,T,N*H,h) in time or (B*T,N,H,h) in space, to (B,T,N,H*h)."""
        if self.is_temporal:
            return output.reshape(batch, frames, -1, self.query_width)
        return output.flatten(2).unflatten(0, (batch, frames))


class DreamerLayer(GradientCheckpointingLayer):
    """Attention over space or over time, then SwiGLU, both with pre-norm and residual."""

    def __init__(self, config: DreamerTransformerConfig, layer_idx: int):
        super().__init__()
        self.self_attn = DreamerAttention(config, layer_idx)
        self.mlp = DreamerMLP(config)
        self.input_layernorm = DreamerRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = DreamerRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: DreamerCache | None = None,
        time_plan: TimePlan | None = None,
        output_tokens: slice | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Map (B,T,N,D) to (B,T,M,D); arguments as in [`DreamerAttention`]."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            time_plan=time_plan,
            output_tokens=output_tokens,
            **kwargs,
        )
        residual = hidden_states if output_tokens is None else hidden_states[:, :, output_tokens]
        hidden_states = residual + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class DreamerTransformer(nn.Module):
    """A stack of layers over (time, tokens of a frame), without a norm after the last one.

    Args:
        config: widths and window.
        num_layers: a multiple of `config.time_every`.
        output_tokens: the tokens of a frame to output. The others stop after giving keys and values to the last space
            layer, because nothing else of them would reach the output.
    """

    def __init__(self, config: DreamerTransformerConfig, num_layers: int, output_tokens: slice):
        super().__init__()
        self.config = config
        self.output_tokens = output_tokens
        self.layers = nn.ModuleList([DreamerLayer(config, index) for index in range(num_layers)])
        self.gradient_checkpointing = False

    @property
    def reach(self) -> int:
        """Number of past frames that can influence a frame: each time layer looks `context_length - 1` frames back."""
        return len(self.layers) // self.config.time_every * (self.config.context_length - 1)

    def new_cache(self, batch_size: int, device: torch.device, start_position: int | torch.Tensor = 0) -> DreamerCache:
        """Return an empty cache for this stack."""
        config = self.config
        shape = (len(self.layers), config.time_every, config.context_length, batch_size)
        return DreamerCache(*shape, device, start_position, config.rope_parameters["rope_theta"])

    def forward(
        self,
        hidden_states: torch.Tensor,
        space_mask: torch.Tensor | None = None,
        past_key_values: DreamerCache | None = None,
        num_commit_frames: int | None = None,
        num_copied_frames: int | None = None,
        output_tokens: slice | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Map (B,T,N,D) to (B,T,M,D) for the M output tokens, those of the constructor by default.

        With a cache, the T frames follow those that it holds; it keeps the first `num_commit_frames` of them (all by
        default) and forgets the rest. Without one, the first `num_copied_frames` frames can be a context of which the
        others are copies (see `context_copies_plan`).
        """
        frames, tokens = hidden_states.shape[1:3]
        commit = frames if num_commit_frames is None else num_commit_frames
        plan = self._time_plan(hidden_states, past_key_values, commit, num_copied_frames)
        space, time = self.layer_inputs(hidden_states, tokens, plan, space_mask)
        time["past_key_values"] = past_key_values
        last_space_layer = len(self.layers) - 2
        output_tokens = self.output_tokens if output_tokens is None else output_tokens
        for index, layer in enumerate(self.layers):
            inputs = time if layer.self_attn.is_temporal else space
            read = output_tokens if index == last_space_layer else None
            hidden_states = layer(hidden_states, **inputs, output_tokens=read, **kwargs)
        if past_key_values is not None:
            past_key_values.advance(commit)
        return hidden_states

    def layer_inputs(
        self, hidden_states: torch.Tensor, num_tokens: int, plan: TimePlan | None = None, space_mask=None
    ) -> tuple[dict, dict]:
        """Return what every space layer and every time layer is given next to hidden states (B,T,...): positions and
        masks; time layers also the plan, by default that of a sequence without a cache."""
        dtype, device = hidden_states.dtype, hidden_states.device
        plan = self._time_plan(hidden_states, None, hidden_states.shape[1], None) if plan is None else plan
        space_tables = self._rotary_tables(torch.arange(num_tokens, device=device), dtype)
        time_tables = self._rotary_tables(plan.positions, dtype)
        space = {"position_embeddings": tuple(table[:, None] for table in space_tables), "attention_mask": space_mask}
        time = {"position_embeddings": tuple(table[:, None, None] for table in time_tables)}
        return space, time | {"attention_mask": plan.mask, "time_plan": plan}

    def _time_plan(
        self, hidden_states: torch.Tensor, cache: DreamerCache | None, commit: int, num_copied_frames: int | None
    ) -> TimePlan:
        frames, dtype, device = hidden_states.shape[1], hidden_states.dtype, hidden_states.device
        if cache is not None:
            return cache.plan(frames, commit, dtype)
        if num_copied_frames is not None:
            return context_copies_plan(frames, num_copied_frames, self.config.context_length, dtype, device)
        return uncached_plan(frames, self.config.context_length, dtype, device)

    def _rotary_tables(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return rotary_tables(positions, self.config.head_dim, self.config.rope_parameters["rope_theta"], dtype)


class DreamerPreTrainedModel(PreTrainedModel):
    """Base class of the Dreamer models: weight initialization, checks on loading, switches of the ecosystem.

    Attention runs in `"sdpa"` (the default) or `"eager"`; a model with `attn_logit_softcapping` runs in `"eager"`.
    Flash and flex attention are not offered: the masks are additive tensors of a window, which SDPA already runs in
    its fast kernels.
    """

    config: DreamerTransformerConfig
    base_model_prefix = ""
    main_input_name = "pixel_values_videos"
    input_modalities = "video"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DreamerLayer"]
    _skip_keys_device_placement = ["past_key_values", "time_plan"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": DreamerLayer, "attentions": DreamerAttention}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, **kwargs):
        """Load a saved model; see [`~transformers.PreTrainedModel.from_pretrained`].

        Only safetensors are read (`use_safetensors=True`).

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): folder or Hub repository.
            output_loading_info (`bool`, *optional*, defaults to `False`): whether to also return a dictionary of the
                missing, unexpected and mismatched weights. New weights then take the place of missing ones, where the
                default is to refuse them.

        Raises:
            ValueError: if the config is invalid, or weights are missing, unexpected or of another shape.
            OSError: if there is no such model, or its files are damaged.
        """
        kwargs.setdefault("use_safetensors", True)
        with readable_loading_errors(pretrained_model_name_or_path, keep_report=output_loading_info):
            allowed = {} if output_loading_info else {"ignore_mismatched_sizes": True}
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs | allowed
            )
        if output_loading_info:
            return model, info
        check_complete(pretrained_model_name_or_path, cls.__name__, info, kwargs.get("ignore_mismatched_sizes", False))
        return model

    def save_pretrained(self, save_directory, *, is_main_process: bool = True, **kwargs) -> None:
        """Save the model; see [`~transformers.PreTrainedModel.save_pretrained`].

        `config.json` also holds a SHA-256 of each weight file, which `weight_files.verify_weights` checks.
        """
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if self.should_save_on_this_rank(is_main_process):
            self._complete_folder(Path(save_directory))

    def _upload_modified_files(self, working_dir, *args, **kwargs):
        # `push_to_hub` calls this after writing the model and before `save_pretrained` returns.
        self._complete_folder(Path(working_dir))
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    def _complete_folder(self, folder: Path) -> None:
        """Add to a saved model's folder what transformers does not write."""
        write_digests(folder)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """Return the attention implementation to use; see the base class.

        Raises:
            ValueError: if the model cannot run in the requested one.
        """
        if getattr(self.config, "attn_logit_softcapping", None) is not None:
            if requested_attention == "sdpa":
                raise ValueError(
                    "expected attn_implementation='eager' for a model with attn_logit_softcapping, got 'sdpa', which "
                    "cannot cap logits."
                )
            requested_attention = requested_attention or "eager"
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args, **kwargs) -> str:
        # For a name with a slash transformers would download and run a kernel, even if only a config asks for it.
        if any(part in (attn_implementation or "") for part in ("/", "flash", "flex", "paged")):
            raise ValueError(f"expected attn_implementation to be 'sdpa' or 'eager', got {attn_implementation!r}.")
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    @property
    def device(self) -> torch.device:
        """Where the model computes.

        The base class returns the device of the first parameter, which is `meta` if that one is offloaded.
        accelerate's hooks move the inputs of `forward` only, so `encode`, `decode` and rollouts, which make caches and
        noise, need the device on which the hooks compute.
        """
        device = next(parameter.device for parameter in self.parameters())
        if device.type == "meta":
            hooks = (getattr(module, "_hf_hook", None) for module in self.modules())
            places = (getattr(hook, "execution_device", None) for hook in hooks)
            device = next((torch.device(place) for place in places if place is not None), device)
        return device

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            std = self.config.initializer_range
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5 if std is None else std)
            # Known by the layer itself: transformers skips modules that hold no parameters directly, such as an MLP.
            if getattr(module, "starts_at_zero", False):
                init.zeros_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)
        elif isinstance(module, DreamerRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, DreamerAttention) and module.query_scale is not None:
            # Two random directions of width h have a cosine near h^-1/2: this gives logits of unit variance.
            init.constant_(module.query_scale, module.head_dim)


__all__ = ["DreamerPreTrainedModel", "DreamerTransformer"]

"""The world model of Dreamer 4 in one file of plain PyTorch: start reading here (arXiv 2509.24527).

A tokenizer turns video frames into a few continuous latents and back. A dynamics model denoises the latents of the
next frame, given the frames before it and an action. A rollout repeats that: it is a world that one can play. Both
models are one space-time transformer with different tokens.

1. Transformer (section 3.4): attention over the tokens of a frame, and every few layers over time.
2. Tokenizer (section 3.1): a masked autoencoder with a low-dimensional bottleneck.
3. Dynamics model (section 3.2): denoises latents at any signal level, in steps of any size.
4. Shortcut forcing (section 3.2): the training objective of the dynamics model.
5. Rollout (section 3.2): frame after frame, with a cache.
6. Weights of the models in `dreamer_hf`, which compute the same, faster.

This file needs only PyTorch, and does the obvious thing everywhere. The package is faster because it does not:
it fuses projections, drops tokens that nobody reads, builds masks and rotary tables once per pass, keeps a ring
instead of concatenating, commits a frame together with the first step of the next one, and runs the extra passes of
the objective only over the rows that need them. Tests compare the numbers of the package with those of this file, and
benchmarks its speed. `elementwise_dreamer4.py` computes everything once more, one number at a time.

Shapes: B batch, T frames, N tokens of a frame, D width, S sequences, L their length, H heads, h head width, P past
frames, N_p patches, N_z latent tokens, d_z latent channels, a action width, s state width.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.nn import functional as F

# 1. Transformer


@dataclass
class TransformerConfig:
    """Sizes that both models share; the names and meanings are those of `dreamer_hf`."""

    hidden_size: int = 256  # D
    num_attention_heads: int = 8
    num_key_value_heads: int = 8  # fewer than heads: several query heads share one (grouped-query attention)
    intermediate_size: int = 682  # width of SwiGLU
    context_length: int = 16  # frames that a time layer sees, including the current one
    time_every: int = 4  # the last of so many layers attends over time, the others over the tokens of a frame
    rms_norm_eps: float = 1.1920929e-07
    rope_theta: float = 10000.0
    qk_norm: bool = False
    attn_logit_softcapping: float | None = None

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


def linear(inputs, outputs, bias=False, scale=1.0):
    """Return a linear layer with weights of standard deviation `scale / sqrt(inputs)`; with 0 it outputs zeros."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(layer.weight, std=scale * inputs**-0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def rotate(states, positions, theta):
    """Apply the rotary position embedding to (S,H,L,h) at positions (L,).

    Channel i and channel i + h/2 are the coordinates of a point, which turns by `position * theta^(-2i/h)`. The
    product of a query and a key then depends only on the difference of their positions.
    """
    width = states.shape[-1]
    frequencies = theta ** (-torch.arange(0, width, 2, device=states.device) / width)
    angles = positions[:, None] * frequencies
    first, second = states.chunk(2, dim=-1)
    cosines, sines = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class PlainCache:
    """Keys and values (S,H,P,h) of the frames that the next ones may see, for each time layer."""

    def __init__(self):
        self.layers = {}
        self.num_frames = 0  # committed so far, including those that no window reaches any more

    def num_past(self):
        return next(iter(self.layers.values()))[0].shape[2] if self.layers else 0


class PlainAttention(nn.Module):
    """Multi-head attention with rotary positions, and optionally QK-norm and capped logits."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = linear(config.hidden_size, query)
        self.k_proj = linear(config.hidden_size, key)
        self.v_proj = linear(config.hidden_size, key)
        self.o_proj = linear(query, config.hidden_size, scale=0)  # a new layer changes nothing
        scale = torch.full((config.num_attention_heads,), float(config.head_dim))
        self.query_scale = nn.Parameter(scale) if config.qk_norm else None

    def forward(self, states, positions, visible, past=None):
        """(S,L,D) at positions (L,), visible (L,P+L) bool, past (keys, values) -> (S,L,D), all (keys, values)."""
        config = self.config
        projected = self.q_proj(states), self.k_proj(states), self.v_proj(states)
        query, key, value = (x.unflatten(-1, (-1, config.head_dim)).transpose(1, 2) for x in projected)
        if self.query_scale is not None:
            query = F.normalize(query, dim=-1) * self.query_scale[:, None, None]
            key = F.normalize(key, dim=-1)
        query, key = (rotate(x, positions, config.rope_theta) for x in (query, key))
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        return self.o_proj(self._attend(query, key, value, visible).transpose(1, 2).flatten(2)), (key, value)

    def _attend(self, query, key, value, visible):
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        cap = self.config.attn_logit_softcapping
        if cap is None:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        logits = cap * torch.tanh(query @ key.transpose(2, 3) * self.config.head_dim**-0.5 / cap)
        return logits.masked_fill(~visible, -torch.inf).softmax(dim=-1) @ value


class PlainMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = linear(config.hidden_size, config.intermediate_size)
        self.up_proj = linear(config.hidden_size, config.intermediate_size)
        self.down_proj = linear(config.intermediate_size, config.hidden_size, scale=0)

    def forward(self, states):
        return self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))


class PlainLayer(nn.Module):
    """Attention over space or time, then SwiGLU, both with pre-norm and residual."""

    def __init__(self, config, is_time):
        super().__init__()
        self.is_time = is_time
        self.self_attn, self.mlp = PlainAttention(config), PlainMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, states, positions, visible, past=None):
        """(B,T,N,D) -> (B,T,N,D) and the keys and values of its attention."""
        normed = self.input_layernorm(states)
        if self.is_time:
            normed = normed.transpose(1, 2)
        attended, key_value = self.self_attn(normed.flatten(0, 1), positions, visible, past)
        attended = attended.view_as(normed)
        states = states + (attended.transpose(1, 2) if self.is_time else attended)
        return states + self.mlp(self.post_attention_layernorm(states)), key_value


class PlainTransformer(nn.Module):
    """A stack of space and time layers."""

    def __init__(self, config, num_layers):
        super().__init__()
        self.config = config
        every = config.time_every
        self.layers = nn.ModuleList([PlainLayer(config, (i + 1) % every == 0) for i in range(num_layers)])

    def forward(self, states, space_visible, cache=None, commit=True):
        """(B,T,N,D), visibility (N,N) bool -> (B,T,N,D); the frames follow those of the cache, which keeps them with
        `commit`."""
        (frames, tokens), device, window = states.shape[1:3], states.device, self.config.context_length
        start, num_past = (cache.num_frames, cache.num_past()) if cache is not None else (0, 0)
        now = torch.arange(start, start + frames, device=device)
        lag = now[:, None] - torch.arange(start - num_past, start + frames, device=device)
        time_visible = (lag >= 0) & (lag < window)
        for index, layer in enumerate(self.layers):
            if not layer.is_time:
                states, _ = layer(states, torch.arange(tokens, device=device), space_visible)
                continue
            past = None if cache is None else cache.layers.get(index)
            states, (key, value) = layer(states, now, time_visible, past)
            if cache is not None and commit:
                first = max(0, key.shape[2] - (window - 1))
                cache.layers[index] = key[:, :, first:], value[:, :, first:]
        if cache is not None and commit:
            cache.num_frames += frames
        return states


# 2. Tokenizer


@dataclass
class TokenizerConfig(TransformerConfig):
    """Sizes of a tokenizer of `frame_size` = (height, width) frames."""

    frame_size: tuple[int, int] = (64, 64)
    patch_size: int = 8
    num_channels: int = 3
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    num_latent_tokens: int = 16  # N_z
    latent_dim: int = 8  # d_z
    latent_group_size: int = 1  # tokens of the bottleneck that make up one latent
    spatial_latents: bool = False  # not in the paper: every token of the bottleneck sees one cell of the frame
    num_whole_frame_tokens: int = 0  # with spatial latents: the last tokens, which see the whole frame
    patch_positions: bool = False  # not in the paper: learned vectors of row and column are added to each patch

    @property
    def grid_size(self):
        return self.frame_size[0] // self.patch_size, self.frame_size[1] // self.patch_size

    @property
    def num_patches(self):
        return math.prod(self.grid_size)

    @property
    def bottleneck_shape(self):
        return self.num_latent_tokens * self.latent_group_size, self.latent_dim // self.latent_group_size


def all_visible(count, device):
    return torch.ones(count, count, dtype=torch.bool, device=device)


def visible_to_encoder(config, device):
    """(N,N) bool over [patches | latent tokens], row sees column: latents see patches, patches see no latents.

    In the decoder it is the other way round: it has the transpose.
    """
    count, tokens = config.num_patches, config.bottleneck_shape[0]
    visible = all_visible(count + tokens, device)
    visible[:count, count:] = False
    if config.spatial_latents:
        rows, columns = config.grid_size
        in_cells = tokens - config.num_whole_frame_tokens
        side = math.isqrt(count // in_cells)
        cells = torch.arange(in_cells, device=device).view(rows // side, columns // side)
        cells = cells.repeat_interleave(side, 0).repeat_interleave(side, 1).flatten()
        visible[count : count + in_cells, :count] = torch.arange(in_cells, device=device)[:, None] == cells
        visible[count : count + in_cells, count:] = torch.eye(in_cells, tokens, dtype=torch.bool, device=device)
    return visible


class PlainEncoder(nn.Module):
    """[patches | learned latent tokens] -> what the latent tokens have gathered, squeezed through tanh."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        tokens, channels = config.bottleneck_shape
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.mask_token = nn.Parameter(torch.randn(config.hidden_size))
        if config.patch_positions:
            rows, columns = config.grid_size
            self.row_positions = nn.Parameter(0.5**0.5 * torch.randn(rows, config.hidden_size))
            self.column_positions = nn.Parameter(0.5**0.5 * torch.randn(columns, config.hidden_size))
        self.latent_tokens = nn.Parameter(torch.randn(tokens, config.hidden_size))
        self.transformer = PlainTransformer(config, config.num_encoder_layers)
        # Latents start in the linear part of the tanh: saturated ones have no gradient (docs/decisions/0001).
        self.latent_proj = linear(config.hidden_size, channels, bias=True, scale=0.2)

    def forward(self, pixels, patch_mask):
        shape = pixels.shape[:2]
        patches = self.patch_embed(pixels.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, shape)
        if patch_mask is not None:
            patches = torch.where(patch_mask[..., None], self.mask_token, patches)
        if self.config.patch_positions:
            patches = patches + (self.row_positions[:, None] + self.column_positions).flatten(0, 1)
        states = torch.cat([patches, self.latent_tokens.expand(*shape, -1, -1)], dim=2)
        states = self.transformer(states, visible_to_encoder(self.config, states.device))
        latents = torch.tanh(self.latent_proj(states[:, :, patches.shape[2] :]))
        return latents.reshape(*shape, self.config.num_latent_tokens, self.config.latent_dim)


class PlainDecoder(nn.Module):
    """[learned patch queries | latents] -> the pixels of each patch."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.patch_queries = nn.Parameter(torch.randn(config.num_patches, config.hidden_size))
        self.latent_embed = linear(config.bottleneck_shape[1], config.hidden_size, bias=True, scale=2)
        self.transformer = PlainTransformer(config, config.num_decoder_layers)
        self.pixel_head = linear(config.hidden_size, config.num_channels * config.patch_size**2, bias=True, scale=0)

    def forward(self, latents, cache):
        config, shape = self.config, latents.shape[:2]
        bottleneck = self.latent_embed(latents.reshape(*shape, *config.bottleneck_shape))
        states = torch.cat([self.patch_queries.expand(*shape, -1, -1), bottleneck], dim=2)
        states = self.transformer(states, visible_to_encoder(config, states.device).T, cache)
        patches = self.pixel_head(states[:, :, : config.num_patches]).flatten(0, 1).transpose(1, 2)
        return F.pixel_shuffle(patches.unflatten(2, config.grid_size), config.patch_size).unflatten(0, shape)


class PlainTokenizer(nn.Module):
    """The tokenizer. Trained by the squared error of `decode(encode(frames, patch_mask))`, and by LPIPS.

    Args:
        config: sizes.
        mean, std: statistics (C,) of the pixels, by which they are normalized.
    """

    def __init__(self, config, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
        super().__init__()
        self.encoder, self.decoder = PlainEncoder(config), PlainDecoder(config)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def encode(self, pixels, patch_mask=None):
        """(B,T,C,H,W) in [0, 1], optional mask (B,T,N_p) of hidden patches -> latents (B,T,N_z,d_z) in (-1, 1)."""
        return self.encoder((pixels - self.mean) / self.std, patch_mask)

    def decode(self, latents, cache=None):
        """Latents (B,T,N_z,d_z) -> (B,T,C,H,W) in [0, 1]; the frames follow those of the cache, which keeps them."""
        return (self.decoder(latents, cache) * self.std + self.mean).clamp(0, 1)


# 3. Dynamics model


@dataclass
class DynamicsConfig(TransformerConfig):
    """Sizes of a dynamics model for the latents of a tokenizer."""

    num_hidden_layers: int = 8
    num_latent_tokens: int = 16  # N_z
    latent_dim: int = 8  # d_z
    num_register_tokens: int = 4  # extra tokens without an input
    num_action_tokens: int = 1
    action_dim: int = 2  # a
    action_num_classes: list[int] | None = None  # per component: 0 if continuous, else the number of classes
    action_stats: dict | None = None  # "mean" and "std" of every component
    num_signal_levels: int = 128  # K_max
    state_dim: int = 0  # s; 0: the world has no state (it has none in the paper)
    num_state_tokens: int = 1
    state_stats: dict | None = None  # "mean" and "std" of every component
    camera_names: list[str] | None = None  # of several cameras, whose latents stand next to each other


class PlainActionEncoder(nn.Module):
    """Raw actions -> the action tokens of a frame: a learned base plus the sum of the encoded components."""

    def __init__(self, config):
        super().__init__()
        classes = config.action_num_classes or [0] * config.action_dim
        self.continuous = [i for i, count in enumerate(classes) if count == 0]
        self.categorical = [i for i, count in enumerate(classes) if count > 0]
        self.action_tokens = nn.Parameter(torch.randn(config.num_action_tokens, config.hidden_size))
        if self.continuous:
            self.action_proj = linear(len(self.continuous), config.hidden_size, bias=True)
        self.class_embeddings = nn.ModuleList([nn.Embedding(classes[i], config.hidden_size) for i in self.categorical])
        stats = config.action_stats or {"mean": [0.0] * len(classes), "std": [1.0] * len(classes)}
        for name in ("mean", "std"):
            values = torch.tensor([float(stats[name][i]) for i in self.continuous])
            self.register_buffer(name, values, persistent=False)

    def forward(self, actions, action_mask):
        """(B,T,a) raw actions, (B,T) bool (False: the frame has no action) -> tokens (B,T,A,D)."""
        actions = actions.masked_fill(~action_mask[..., None], 0)
        encoded = 0
        if self.continuous:
            values = (actions[..., self.continuous] - self.mean) / self.std
            encoded = self.action_proj(values.to(self.action_proj.weight.dtype))
        for index, table in zip(self.categorical, self.class_embeddings):
            encoded = encoded + table(actions[..., index].long())
        return self.action_tokens + (encoded * action_mask[..., None])[:, :, None]


class PlainStateCoder(nn.Module):
    """Noisy normalized states -> the state tokens of a frame; what the transformer makes of them -> clean states."""

    def __init__(self, config):
        super().__init__()
        width = config.num_state_tokens * config.hidden_size
        self.state_tokens = nn.Parameter(torch.randn(config.num_state_tokens, config.hidden_size))
        self.state_proj = linear(config.state_dim, width, bias=True)
        self.state_head = linear(width, config.state_dim, bias=True, scale=0)
        stats = config.state_stats or {"mean": [0.0] * config.state_dim, "std": [1.0] * config.state_dim}
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor([float(value) for value in stats[name]]), persistent=False)
        self.std[self.std == 0] = 1

    def forward(self, states, state_mask):
        """(B,T,s) noisy and normalized, (B,T) bool (False: the frame has no state) -> tokens (B,T,tokens,D)."""
        states = states.masked_fill(~state_mask[..., None], 0)
        encoded = self.state_proj(states).unflatten(-1, self.state_tokens.shape)
        return self.state_tokens + encoded * state_mask[..., None, None]

    def normalize(self, states):
        return (states - self.mean) / self.std

    def denormalize(self, states):
        return states * self.std + self.mean


class PlainDynamics(nn.Module):
    """The dynamics model over [latents | state | registers | control (step size, signal level) | actions] of a frame.

    Signal level `tau` = 0 is pure noise, 1 is clean: `z_tau = (1 - tau) * noise + tau * z`. Its index is
    `tau * num_signal_levels`. Step size `d` is a power of two; its index is `log2(d * num_signal_levels)`.
    """

    def __init__(self, config):
        super().__init__()
        self.config, width = config, config.hidden_size
        self.latent_embed = linear(config.latent_dim, width)
        cameras = len(config.camera_names or [])
        self.camera_embeddings = nn.Parameter(torch.randn(cameras, width)) if cameras > 1 else None
        self.register_tokens = nn.Parameter(torch.randn(config.num_register_tokens, width))
        self.step_size_embedding = nn.Embedding(config.num_signal_levels.bit_length(), width)
        self.signal_level_embedding = nn.Embedding(config.num_signal_levels, width)
        self.control_proj = linear(2 * width, width)
        self.action_encoder = PlainActionEncoder(config)
        self.state_coder = PlainStateCoder(config) if config.state_dim else None
        self.transformer = PlainTransformer(config, config.num_hidden_layers)
        self.latent_head = linear(width, config.latent_dim, scale=0)
        # Step sizes start almost alike, so a coarse step starts from what the finest one has learned.
        nn.init.normal_(self.step_size_embedding.weight, std=0.1)

    def forward(self, latents, signal_ids, step_ids, actions, action_mask, cache=None, commit=True, states=None):
        """Noisy latents (B,T,N_z,d_z), ids (B,T), actions (B,T,a), mask (B,T) -> clean prediction (B,T,N_z,d_z).

        With a state, `states` are noisy normalized ones (B,T,s) and a mask (B,T), and there is a second result: the
        clean prediction of the states (B,T,s).
        """
        batch, frames, count = latents.shape[:3]
        control = torch.cat([self.step_size_embedding(step_ids), self.signal_level_embedding(signal_ids)], dim=-1)
        latent_tokens = self.latent_embed(latents)
        if self.camera_embeddings is not None:
            by_camera = latent_tokens.unflatten(2, (len(self.camera_embeddings), -1))
            latent_tokens = (by_camera + self.camera_embeddings[:, None]).flatten(2, 3)
        tokens = [
            latent_tokens,
            *([] if self.state_coder is None else [self.state_coder(*states)]),
            self.register_tokens.expand(batch, frames, -1, -1),
            self.control_proj(control)[:, :, None],
            self.action_encoder(actions, action_mask),
        ]
        embedded = torch.cat(tokens, dim=2)
        visible = all_visible(embedded.shape[2], embedded.device)
        output = self.transformer(embedded, visible, cache, commit)
        clean = self.latent_head(output[:, :, :count])
        if self.state_coder is None:
            return clean
        tokens = output[:, :, count : count + self.config.num_state_tokens]
        return clean, self.state_coder.state_head(tokens.flatten(2))


# 4. Shortcut forcing


def shortcut_loss(dynamics, latents, actions, action_mask, signal_ids, step_ids, noise):
    """Return the loss of a batch, in which every frame has its own signal level and step size (section 3.2).

    A frame at the finest step is compared with the data (flow matching). A frame at a coarser step `d` is compared
    with two steps of size `d / 2` that the model takes itself: so that later, four steps give what a hundred would.

    Args:
        dynamics: the model.
        latents: (B,T,N_z,d_z) clean latents of the tokenizer.
        actions, action_mask: (B,T,a) and (B,T).
        signal_ids, step_ids: (B,T) int64; every level is a multiple of its step.
        noise: (B,T,N_z,d_z) standard normal.
    """
    levels = dynamics.config.num_signal_levels
    tau, d = (signal_ids / levels)[..., None, None], (2**step_ids / levels)[..., None, None]
    is_flow = step_ids == 0
    noisy = (1 - tau) * noise + tau * latents
    half_ids = torch.where(is_flow, 0, step_ids - 1)
    later_ids = torch.where(is_flow, signal_ids, signal_ids + 2**half_ids)
    is_flow = is_flow[..., None, None]
    with torch.no_grad():  # velocities: from z_tau, the clean latents are reached in the remaining 1 - tau
        first = (dynamics(noisy, signal_ids, half_ids, actions, action_mask) - noisy) / (1 - tau)
        halfway = torch.where(is_flow, noisy, noisy + first * d / 2)
        later_tau = (later_ids / levels)[..., None, None]
        second = (dynamics(halfway, later_ids, half_ids, actions, action_mask) - halfway) / (1 - later_tau)
    prediction = dynamics(noisy, signal_ids, step_ids, actions, action_mask)
    velocity_error = (prediction - noisy) / (1 - tau) - (first + second) / 2
    error = torch.where(is_flow, (prediction - latents) ** 2, (1 - tau) ** 2 * velocity_error**2)
    return ((0.9 * tau + 0.1) * error).mean()  # the more signal, the more there is to learn


# 5. Rollout


class PlainRollout:
    """A rollout of a world without a state.

    Every frame takes `num_steps` denoising passes, one commit pass and one pass of the decoder.

    The model sees past frames with a little noise (`context_level`), which makes it robust to its own errors.

    Args:
        tokenizer, dynamics: the models.
        frames: (B,C,3,H,W) context in [0, 1]; its frames have no actions.
        noise: (B,C,N_z,d_z) noise of the context.
    """

    def __init__(self, tokenizer, dynamics, frames, noise, num_steps=4, context_level=0.9):
        self.tokenizer, self.dynamics = tokenizer, dynamics
        self.num_steps, self.context_level = num_steps, context_level
        self.cache, self.decoder_cache = PlainCache(), PlainCache()
        with torch.no_grad():
            latents = tokenizer.encode(frames)
            actions = torch.zeros(*latents.shape[:2], dynamics.config.action_dim, device=latents.device)
            self._commit(latents, noise, actions, torch.zeros_like(actions[..., 0], dtype=torch.bool))
            tokenizer.decode(latents, self.decoder_cache)

    @torch.no_grad()
    def step(self, actions, start_noise, commit_noise):
        """Actions (B,a), noise to start and to commit with (B,N_z,d_z) -> frame (B,3,H,W), latents (B,N_z,d_z)."""
        actions, latents = actions[:, None], start_noise[:, None]
        has_action = torch.ones_like(actions[..., 0], dtype=torch.bool)
        levels = self.dynamics.config.num_signal_levels
        step_ids = torch.full_like(has_action, (levels // self.num_steps).bit_length() - 1, dtype=torch.int64)
        for k in range(self.num_steps):
            tau = k / self.num_steps
            signal_ids = torch.full_like(step_ids, int(tau * levels))
            clean = self.dynamics(latents, signal_ids, step_ids, actions, has_action, self.cache, commit=False)
            latents = latents + (clean - latents) / (1 - tau) / self.num_steps
        self._commit(latents, commit_noise[:, None], actions, has_action)
        return self.tokenizer.decode(latents, self.decoder_cache)[:, 0], latents[:, 0]

    def _commit(self, latents, noise, actions, has_action):
        noisy = (1 - self.context_level) * noise + self.context_level * latents
        step_ids = torch.zeros_like(has_action, dtype=torch.int64)
        signal_ids = step_ids + int(self.context_level * self.dynamics.config.num_signal_levels)
        self.dynamics(noisy, signal_ids, step_ids, actions, has_action, self.cache)


# 6. Weights of the models in `dreamer_hf`


def plain_tokenizer(model):
    """Return the plain form of a `DreamerTokenizerModel`, with a copy of its weights."""
    config = plain_config(TokenizerConfig, model.config)
    plain = PlainTokenizer(config, model.config.image_mean, model.config.image_std).to(model.device)
    plain.load_state_dict(split_projections(model.state_dict(), config))
    return plain


def plain_dynamics(model):
    """Return the plain form of a `DreamerDynamicsModel`, with a copy of its weights."""
    config = plain_config(DynamicsConfig, model.config)
    plain = PlainDynamics(config).to(model.device)
    plain.load_state_dict(split_projections(model.state_dict(), config))
    return plain


def plain_config(kind, config):
    """Return a `TokenizerConfig` or `DynamicsConfig` with the values of a config of `dreamer_hf`."""
    names = [field.name for field in fields(kind) if field.name != "rope_theta"]
    values = {name: getattr(config, name) for name in names}
    return kind(**values, rope_theta=config.rope_parameters["rope_theta"])


def split_projections(values, config):
    """Return a model's tensors (weights or gradients, by name) under the names of the plain modules.

    The package computes queries, keys and values in one product, and gate and up in another.
    """
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    parts = {
        "qkv_proj": (["q_proj", "k_proj", "v_proj"], [query, key, key]),
        "gate_up_proj": (["gate_proj", "up_proj"], [config.intermediate_size] * 2),
    }
    split = {}
    for name, value in values.items():
        fused = next((part for part in parts if f".{part}." in name), None)
        if fused is None:
            split[name] = value
        else:
            names, sizes = parts[fused]
            split |= {name.replace(fused, new): piece for new, piece in zip(names, value.split(sizes))}
    return split

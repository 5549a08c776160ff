"""The models as a careful engineer would write them first: plain float32 PyTorch, one thing after another.

What ours do to be fast is left out here: queries, keys, values, gate and up are projections of their own, every token
goes through every layer whether anybody reads it or not, masks are built in every call and rotary tables in every layer,
the cache is concatenated and cut, a dreamt frame costs its denoising passes and one commit pass, and the training
objective is three passes over the whole batch. Tests hold our models' numbers against it, benchmarks their speed.

Shapes: B batch, T frames, N tokens of a frame, D width, S sequences, L their length, H heads, h head width, P past frames,
N_p patches, N_z latent tokens, d_z latent channels.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F


def split_projections(values, config):
    """Renames and splits a model's tensors (weights or gradients, by name) to those of the plain modules."""
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


def rotate(states, positions, theta):
    """Rotary embedding of (S,H,L,h) at positions (L,)."""
    width = states.shape[-1]
    frequencies = theta ** (-torch.arange(0, width, 2, device=states.device) / width)
    angles = positions[:, None] * frequencies
    first, second = states.chunk(2, dim=-1)
    cosines, sines = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class PlainCache:
    """Keys and values of the frames that the next ones may see, for each time layer: (S,H,P,h)."""

    def __init__(self):
        self.layers = {}
        self.num_frames = 0  # that were committed, also those that no window reaches any more

    def num_past(self):
        return next(iter(self.layers.values()))[0].shape[2] if self.layers else 0


class PlainAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.query_scale = nn.Parameter(torch.empty(config.num_attention_heads)) if config.qk_norm else None

    def forward(self, states, positions, visible, past=None):
        """(S,L,D) at positions (L,), visible (L,P+L) bool, past (keys, values) -> (S,L,D) and (keys, values) of all."""
        config = self.config
        projected = self.q_proj(states), self.k_proj(states), self.v_proj(states)
        query, key, value = (x.unflatten(-1, (-1, config.head_dim)).transpose(1, 2) for x in projected)
        if self.query_scale is not None:
            query = F.normalize(query, dim=-1) * self.query_scale[:, None, None]
            key = F.normalize(key, dim=-1)
        query, key = (rotate(x, positions, config.rope_parameters["rope_theta"]) for x in (query, key))
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
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states):
        return self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))


class PlainLayer(nn.Module):
    def __init__(self, config, is_time):
        super().__init__()
        self.is_time = is_time
        self.self_attn, self.mlp = PlainAttention(config), PlainMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, states, positions, visible, past=None):
        """(B,T,N,D) -> (B,T,N,D) and the keys and values that were attended to."""
        normed = self.input_layernorm(states)
        if self.is_time:
            normed = normed.transpose(1, 2)
        attended, key_value = self.self_attn(normed.flatten(0, 1), positions, visible, past)
        attended = attended.view_as(normed)
        states = states + (attended.transpose(1, 2) if self.is_time else attended)
        return states + self.mlp(self.post_attention_layernorm(states)), key_value


class PlainTransformer(nn.Module):
    def __init__(self, config, num_layers):
        super().__init__()
        self.config = config
        every = config.time_every
        self.layers = nn.ModuleList([PlainLayer(config, (i + 1) % every == 0) for i in range(num_layers)])

    def forward(self, states, space_visible, cache=None, commit=True):
        """(B,T,N,D), visibility (N,N) bool -> (B,T,N,D); the frames follow those of the cache and, with `commit`,
        stay in it."""
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


def everything_visible(count, device):
    return torch.ones(count, count, dtype=torch.bool, device=device)


def visible_to_encoder(config, device):
    """(N,N) bool over [patches | latent tokens]; the decoder's is its transpose."""
    count, tokens = config.num_patches, config.num_latent_tokens
    visible = everything_visible(count + tokens, device)
    visible[:count, count:] = False
    if config.spatial_latents:
        rows, columns = config.grid_size
        side = math.isqrt(count // tokens)
        cells = torch.arange(tokens, device=device).view(rows // side, columns // side)
        cells = cells.repeat_interleave(side, 0).repeat_interleave(side, 1).flatten()
        visible[count:, :count] = torch.arange(tokens, device=device)[:, None] == cells
        visible[count:, count:] = torch.eye(tokens, dtype=torch.bool, device=device)
    return visible


class PlainEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        self.latent_tokens = nn.Parameter(torch.empty(config.num_latent_tokens, config.hidden_size))
        self.transformer = PlainTransformer(config, config.num_encoder_layers)
        self.latent_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, pixels, patch_mask):
        shape = pixels.shape[:2]
        patches = self.patch_embed(pixels.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, shape)
        if patch_mask is not None:
            patches = torch.where(patch_mask[..., None], self.mask_token, patches)
        states = torch.cat([patches, self.latent_tokens.expand(*shape, -1, -1)], dim=2)
        count = patches.shape[2]
        visible = visible_to_encoder(self.config, states.device)
        return torch.tanh(self.latent_proj(self.transformer(states, visible)[:, :, count:]))


class PlainDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.patch_queries = nn.Parameter(torch.empty(config.num_patches, config.hidden_size))
        self.latent_embed = nn.Linear(config.latent_dim, config.hidden_size)
        self.transformer = PlainTransformer(config, config.num_decoder_layers)
        self.pixel_head = nn.Linear(config.hidden_size, config.num_channels * config.patch_size**2)

    def forward(self, latents, cache):
        shape, count = latents.shape[:2], self.config.num_patches
        states = torch.cat([self.patch_queries.expand(*shape, -1, -1), self.latent_embed(latents)], dim=2)
        visible = visible_to_encoder(self.config, states.device).T
        patches = self.pixel_head(self.transformer(states, visible, cache)[:, :, :count])
        grid = (
            patches.flatten(0, 1)
            .transpose(1, 2)
            .unflatten(2, (self.config.frame_size[0] // self.config.patch_size, -1))
        )
        return F.pixel_shuffle(grid, self.config.patch_size).unflatten(0, shape)


class PlainTokenizer(nn.Module):
    """The plain form of a `DreamerTokenizerModel`, with a copy of its weights."""

    def __init__(self, model):
        super().__init__()
        self.encoder, self.decoder = PlainEncoder(model.config), PlainDecoder(model.config)
        self.register_buffer("mean", model.image_mean.clone(), persistent=False)
        self.register_buffer("std", model.image_std.clone(), persistent=False)
        self.to(model.device).load_state_dict(split_projections(model.state_dict(), model.config))

    def encode(self, pixels, patch_mask=None):
        """(B,T,C,H,W) in [0, 1] -> latents (B,T,N_z,d_z)."""
        return self.encoder((pixels - self.mean) / self.std, patch_mask)

    def decode(self, latents, cache=None):
        """Latents (B,T,N_z,d_z) -> (B,T,C,H,W) in [0, 1]; the frames follow those of the cache and stay in it."""
        return (self.decoder(latents, cache) * self.std + self.mean).clamp(0, 1)


class PlainDynamics(nn.Module):
    """The plain form of a `DreamerDynamicsModel`, with a copy of its weights (and of its whole action encoder)."""

    def __init__(self, model):
        super().__init__()
        self.config = config = model.config
        self.latent_embed = nn.Linear(config.latent_dim, config.hidden_size, bias=False)
        self.register_tokens = nn.Parameter(torch.empty(config.num_register_tokens, config.hidden_size))
        self.step_size_embedding = nn.Embedding(model.step_size_embedding.num_embeddings, config.hidden_size)
        self.signal_level_embedding = nn.Embedding(config.num_signal_levels, config.hidden_size)
        self.control_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.action_encoder = copy.deepcopy(model.action_encoder)
        self.transformer = PlainTransformer(config, config.num_hidden_layers)
        self.latent_head = nn.Linear(config.hidden_size, config.latent_dim, bias=False)
        self.to(model.device).load_state_dict(split_projections(model.state_dict(), config))

    def forward(self, latents, signal_ids, step_ids, actions, action_mask, cache=None, commit=True):
        """Noisy latents (B,T,N_z,d_z), ids (B,T), actions (B,T,a), mask (B,T) -> clean prediction (B,T,N_z,d_z)."""
        batch, frames, count = latents.shape[:3]
        control = torch.cat([self.step_size_embedding(step_ids), self.signal_level_embedding(signal_ids)], dim=-1)
        tokens = [
            self.latent_embed(latents),
            self.register_tokens.expand(batch, frames, -1, -1),
            self.control_proj(control)[:, :, None],
            self.action_encoder(batch, frames, actions, action_mask),
        ]
        states = torch.cat(tokens, dim=2)
        visible = everything_visible(states.shape[2], states.device)
        return self.latent_head(self.transformer(states, visible, cache, commit)[:, :, :count])


def shortcut_loss(dynamics, latents, actions, action_mask, signal_ids, step_ids, noise):
    """Shortcut forcing as it is written down: three passes over the whole batch; arguments as `shortcut_forcing_loss`."""
    levels = dynamics.config.num_signal_levels
    tau, d = (signal_ids / levels)[..., None, None], (2**step_ids / levels)[..., None, None]
    is_flow = step_ids == 0
    noisy = (1 - tau) * noise + tau * latents
    half_ids = torch.where(is_flow, 0, step_ids - 1)
    later_ids = torch.where(is_flow, signal_ids, signal_ids + 2**half_ids)
    is_flow = is_flow[..., None, None]
    with torch.no_grad():
        first = (dynamics(noisy, signal_ids, half_ids, actions, action_mask) - noisy) / (1 - tau)
        halfway = torch.where(is_flow, noisy, noisy + first * d / 2)
        later_tau = (later_ids / levels)[..., None, None]
        second = (dynamics(halfway, later_ids, half_ids, actions, action_mask) - halfway) / (1 - later_tau)
    prediction = dynamics(noisy, signal_ids, step_ids, actions, action_mask)
    velocity_error = (prediction - noisy) / (1 - tau) - (first + second) / 2
    error = torch.where(is_flow, (prediction - latents) ** 2, (1 - tau) ** 2 * velocity_error**2)
    return ((0.9 * tau + 0.1) * error).mean()


class PlainRollout:
    """A dream: `num_steps` denoising passes, a commit pass and a decoder pass for every frame.

    Args:
        tokenizer, dynamics: the plain models.
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
        """Actions (B,a), noise (B,N_z,d_z) to start from and to commit with -> frame (B,3,H,W), latents (B,N_z,d_z)."""
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

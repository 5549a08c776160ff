"""The models of `dreamer_hf`, computed one number at a time in float64: the reference for the tests.

Every token, head, channel pair, patch and action component is computed by itself, from its definition in the paper
(arXiv 2509.24527), with the weights of the package's models. `plain_dreamer4.py` is the form to read first.

Shapes: T frames, N tokens of a frame, D width, L tokens of a sequence, N_z latent tokens, d_z latent channels.
"""

import math

import torch
from torch import nn


def rms_norm(x, module):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + module.eps) * module.weight.double()


def rotate_pairs(x, theta):
    """Rotate the channel pairs (i, i + h/2) of row p of x (L,h) by p * theta^(-2i/h)."""
    length, width = x.shape
    out = torch.empty_like(x)
    positions = torch.arange(length, dtype=torch.float64)
    for i in range(width // 2):
        angle = positions * theta ** (-2 * i / width)
        first, second = x[:, i], x[:, i + width // 2]
        out[:, i] = first * angle.cos() - second * angle.sin()
        out[:, i + width // 2] = second * angle.cos() + first * angle.sin()
    return out


def attention(x, module, visible):
    """Attend among the tokens (L,D) of one sequence at positions 0..L-1, visible (L,L) bool -> (L,D)."""
    config, width = module.config, module.head_dim
    key_width = module.num_key_value_heads * width
    weight = module.qkv_proj.weight.double()
    query = x @ weight[: module.query_width].T
    key = x @ weight[module.query_width : module.query_width + key_width].T
    value = x @ weight[module.query_width + key_width :].T
    heads = []
    for head in range(config.num_attention_heads):
        shared = head * config.num_key_value_heads // config.num_attention_heads
        q = query[:, head * width : (head + 1) * width]
        k = key[:, shared * width : (shared + 1) * width]
        v = value[:, shared * width : (shared + 1) * width]
        if config.qk_norm:
            q = q / q.norm(dim=-1, keepdim=True) * module.query_scale[head].double()
            k = k / k.norm(dim=-1, keepdim=True)
        theta = config.rope_parameters["rope_theta"]
        q, k = rotate_pairs(q, theta), rotate_pairs(k, theta)
        logits = q @ k.T / math.sqrt(width)
        if config.attn_logit_softcapping is not None:
            logits = config.attn_logit_softcapping * torch.tanh(logits / config.attn_logit_softcapping)
        heads.append(torch.softmax(logits.masked_fill(~visible, -torch.inf), dim=-1) @ v)
    return torch.cat(heads, dim=-1) @ module.o_proj.weight.double().T


def mlp(x, module):
    gate_weight, up_weight = module.gate_up_proj.weight.double().chunk(2)
    return (nn.functional.silu(x @ gate_weight.T) * (x @ up_weight.T)) @ module.down_proj.weight.double().T


def transformer(x, module, space_visible):
    """Run all layers for all tokens, (T,N,D) float64 -> (T,N,D)."""
    config = module.config
    frames, tokens = x.shape[:2]
    lag = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
    band = (lag >= 0) & (lag < config.context_length)
    for index, layer in enumerate(module.layers):
        normed = rms_norm(x, layer.input_layernorm)
        if (index + 1) % config.time_every == 0:
            attended = torch.stack([attention(normed[:, n], layer.self_attn, band) for n in range(tokens)], dim=1)
        else:
            attended = torch.stack([attention(normed[t], layer.self_attn, space_visible) for t in range(frames)])
        x = x + attended
        x = x + mlp(rms_norm(x, layer.post_attention_layernorm), layer.mlp)
    return x


def linear(x, module):
    out = x @ module.weight.double().T
    return out if module.bias is None else out + module.bias.double()


def cell_of_patch(n, config):
    """Return the token of the bottleneck that stands for patch n, with spatial latents."""
    columns = config.frame_size[1] // config.patch_size
    cells = config.num_latent_tokens * config.latent_group_size - config.num_whole_frame_tokens
    side = math.isqrt(config.num_patches // cells)
    row, column = divmod(n, columns)
    return row // side * (columns // side) + column // side


def is_visible(query, key, config, in_decoder):
    """Return whether one token of [patches | bottleneck] sees another."""
    count, tokens = config.num_patches, config.num_latent_tokens * config.latent_group_size
    if query == key or (query < count and key < count):
        return True
    if (query < count) != in_decoder and (query < count) != (key < count):
        return False  # the encoder's patches see no latent, the decoder's latents no patch
    seeing = key if in_decoder else query  # the token that may see everything, or in the decoder be seen by everything
    if not config.spatial_latents or seeing >= count + tokens - config.num_whole_frame_tokens:
        return True
    patch, latent = min(query, key), max(query, key) - count
    return patch < count and cell_of_patch(patch, config) == latent


def visibility(config, in_decoder):
    tokens = range(config.num_patches + config.num_latent_tokens * config.latent_group_size)
    return torch.tensor([[is_visible(query, key, config, in_decoder) for key in tokens] for query in tokens])


def encode(pixels, tokenizer, patch_mask=None):
    """Encode frames (T,C,H,W) in [0, 1] into latents (T,N_z,d_z)."""
    config, encoder = tokenizer.config, tokenizer.encoder
    size, columns = config.patch_size, config.frame_size[1] // config.patch_size
    mean, std = (torch.tensor(values).double()[:, None, None] for values in (config.image_mean, config.image_std))
    pixels = (pixels.double() - mean) / std
    weight, bias = encoder.patch_embed.weight.double(), encoder.patch_embed.bias.double()
    frames = []
    for t, frame in enumerate(pixels):
        tokens = []
        for n in range(config.num_patches):
            row, column = divmod(n, columns)
            patch = frame[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
            hidden = patch_mask is not None and patch_mask[t, n]
            embedded = encoder.mask_token.double() if hidden else (weight * patch).sum((1, 2, 3)) + bias
            if config.patch_positions:
                embedded = embedded + encoder.row_positions[row].double() + encoder.column_positions[column].double()
            tokens.append(embedded)
        frames.append(torch.cat([torch.stack(tokens), encoder.latent_tokens.double()]))
    hidden_states = transformer(torch.stack(frames), encoder.transformer, visibility(config, in_decoder=False))
    tokens = torch.tanh(linear(hidden_states[:, config.num_patches :], encoder.latent_proj))
    group = config.latent_group_size  # neighbors are the parts of one latent
    return torch.cat([tokens[:, i::group] for i in range(group)], dim=2)


def decode(latents, tokenizer):
    """Decode latents (T,N_z,d_z) into pixels (T,C,H,W), not clamped."""
    config, decoder = tokenizer.config, tokenizer.decoder
    size, count = config.patch_size, config.num_patches
    height, width = config.frame_size
    columns = width // size
    queries = decoder.patch_queries.double().expand(len(latents), -1, -1)
    pieces = latents.double().chunk(config.latent_group_size, dim=2)
    neighbors = torch.stack([piece[:, i] for i in range(config.num_latent_tokens) for piece in pieces], dim=1)
    tokens = torch.cat([queries, linear(neighbors, decoder.latent_embed)], dim=1)
    hidden_states = transformer(tokens, decoder.transformer, visibility(config, in_decoder=True))
    values = linear(hidden_states[:, :count], decoder.pixel_head)
    pixels = torch.empty(len(latents), config.num_channels, height, width, dtype=torch.float64)
    for n in range(count):
        row, column = divmod(n, columns)
        patch = values[:, n].reshape(len(latents), config.num_channels, size, size)
        pixels[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size] = patch
    mean, std = (torch.tensor(values).double()[:, None, None] for values in (config.image_mean, config.image_std))
    return pixels * std + mean


def action_tokens(dynamics, action, has_action):
    """Return the action tokens (A,D) of one frame for its raw action (a,)."""
    config, encoder = dynamics.config, dynamics.action_encoder
    tokens = encoder.action_tokens.double()
    if not has_action:
        return tokens
    encoded, tables = torch.zeros(config.hidden_size, dtype=torch.float64), 0
    continuous = []
    for index in range(config.action_dim):
        classes = 0 if config.action_num_classes is None else config.action_num_classes[index]
        if classes:
            encoded = encoded + encoder.class_embeddings[tables].weight[int(action[index])].double()
            tables += 1
        else:
            mean, std = 0.0, 1.0
            if config.action_stats is not None:
                mean, std = config.action_stats["mean"][index], config.action_stats["std"][index]
            continuous.append((action[index].double() - mean) / std)
    if continuous:
        encoded = encoded + linear(torch.stack(continuous), encoder.action_proj)
    return tokens + encoded


def denoise(latents, signal_ids, step_ids, actions, action_mask, dynamics):
    """Predict clean latents (T,N_z,d_z) from the noisy ones of one row."""
    frames = []
    for t, frame in enumerate(latents):
        step = dynamics.step_size_embedding.weight[step_ids[t]].double()
        level = dynamics.signal_level_embedding.weight[signal_ids[t]].double()
        control = linear(torch.cat([step, level]), dynamics.control_proj)
        tokens = [linear(frame.double(), dynamics.latent_embed), dynamics.register_tokens.double(), control[None]]
        tokens.append(action_tokens(dynamics, actions[t], bool(action_mask[t])))
        frames.append(torch.cat(tokens))
    tokens = torch.stack(frames)
    visible = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    hidden_states = transformer(tokens, dynamics.transformer, visible)
    return linear(hidden_states[:, : dynamics.config.num_latent_tokens], dynamics.latent_head)

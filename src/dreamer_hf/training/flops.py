"""Floating-point operations of the models, counted from their configs.

A multiplication and an addition are two operations. Matrix products, convolutions and attention count; norms,
activations, masks and optimizers do not, as is usual. Attention counts all pairs of query and key that are computed,
masked or not.

Shapes: T frames, N tokens of a frame, M of them that are used, D hidden size.
"""

from ..configuration_dreamer import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerTransformerConfig

BACKWARD = 2
"""Operations of a backward pass per operation of the forward pass: gradients of inputs, and of weights."""


def transformer_flops(
    config: DreamerTransformerConfig, num_layers: int, num_tokens: int, num_used: int, num_frames: int
) -> int:
    """Return the operations of one pass over T frames of N tokens.

    Tokens that are not used leave in the last space layer, after their keys and values.
    """
    width, queries = config.hidden_size, config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    into_attention = 2 * width * (queries + 2 * keys)
    after_attention = 2 * queries * width + 2 * width * 3 * config.intermediate_size
    total = 0
    for layer in range(num_layers):
        is_temporal = (layer + 1) % config.time_every == 0
        received = num_used if layer == num_layers - 1 else num_tokens
        passed = num_used if layer >= num_layers - 2 else num_tokens
        visible = num_frames if is_temporal else received
        attention = 4 * queries * passed * visible
        total += num_frames * (received * into_attention + passed * after_attention + attention)
    return total


def encoder_flops(config: DreamerTokenizerConfig, num_frames: int) -> int:
    """Return the operations of encoding T frames."""
    patches, (latents, channels) = config.num_patches, config.bottleneck_shape
    ends = patches * config.num_channels * config.patch_size**2 + latents * channels
    layers = transformer_flops(config, config.num_encoder_layers, patches + latents, latents, num_frames)
    return layers + 2 * num_frames * config.hidden_size * ends


def decoder_flops(config: DreamerTokenizerConfig, num_frames: int) -> int:
    """Return the operations of decoding T frames."""
    patches, (latents, channels) = config.num_patches, config.bottleneck_shape
    ends = patches * config.num_channels * config.drawn_patch_size**2 + latents * channels
    if config.refiner_channels:
        inner, height, width = config.refiner_channels, *config.frame_size
        products = 9 * inner * ((config.refiner_layers - 2) * inner + 2 * config.num_channels)
        ends += height * width * products // config.hidden_size
    layers = transformer_flops(config, config.num_decoder_layers, patches + latents, patches, num_frames)
    return layers + 2 * num_frames * config.hidden_size * ends


def dynamics_flops(config: DreamerDynamicsConfig, num_frames: int) -> int:
    """Return the operations of one pass of the dynamics model over T frames, context copies included."""
    latents, width = config.num_latent_tokens, config.hidden_size
    outputs = config.num_output_tokens
    tokens = outputs + config.num_register_tokens + 1 + config.num_action_tokens
    ends = 2 * latents * config.latent_dim + 2 * width + len(config.continuous_action_indices)
    ends += 2 * (outputs - latents) * config.state_dim
    layers = transformer_flops(config, config.num_hidden_layers, tokens, outputs, num_frames)
    return layers + 2 * num_frames * width * ends

"""Tiny models with weights that matter: every tensor is drawn, so that no path hides behind a zero initialization."""

import torch

from dreamer_hf import (
    DreamerDynamicsConfig,
    DreamerDynamicsModel,
    DreamerTokenizerConfig,
    DreamerTokenizerModel,
    DreamerWorldModel,
)

# Where 1 / sqrt(fan_in) would make a deep rollout a chaotic map, in which rounding errors grow without end.
SCALES = {"latent_head": 0.2, "o_proj": 0.5, "down_proj": 0.5}


def shake(model, seed=0):
    """Draws all parameters anew, so that every token influences every other without making a rollout chaotic."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                values = 1 + 0.2 * values
            elif parameter.ndim > 1 and name.endswith("weight"):
                values = values / parameter[0].numel() ** 0.5
            parameter.copy_(values * next((scale for part, scale in SCALES.items() if part in name), 1.0))
    return model.eval()


def tokenizer_config(**changes):
    fields = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "num_encoder_layers": 4}
    fields |= {"num_decoder_layers": 4, "num_latent_tokens": 3, "latent_dim": 5, "context_length": 3}
    return DreamerTokenizerConfig(**fields | changes)


def dynamics_config(**changes):
    fields = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 8, "num_latent_tokens": 3}
    fields |= {
        "latent_dim": 5,
        "context_length": 3,
        "num_register_tokens": 2,
        "action_dim": 2,
        "num_signal_levels": 16,
    }
    return DreamerDynamicsConfig(**fields | changes)


def tiny_tokenizer(**changes):
    return shake(DreamerTokenizerModel(tokenizer_config(**changes)))


def tiny_dynamics(**changes):
    return shake(DreamerDynamicsModel(dynamics_config(**changes)), seed=1)


def tiny_world(tokenizer_changes=None, dynamics_changes=None):
    tokenizer, dynamics = tiny_tokenizer(**(tokenizer_changes or {})), tiny_dynamics(**(dynamics_changes or {}))
    return DreamerWorldModel(tokenizer=tokenizer, dynamics=dynamics).eval()


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

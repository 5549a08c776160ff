"""A real world with random weights for the tiny episodes, every part of which has a say."""

import torch

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel


def random_world(image_size=32, **dynamics_fields):
    torch.manual_seed(0)
    common = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_latent_tokens": 2,
        "latent_dim": 4,
        "context_length": 4,
    }
    layers = {"num_encoder_layers": 4, "num_decoder_layers": 4}
    tokenizer = DreamerTokenizerConfig(image_size=image_size, patch_size=8, **layers, **common)
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, num_signal_levels=8, **common, **dynamics_fields)
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics))
    for parameter in world.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return world.eval()

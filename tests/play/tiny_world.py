"""A real world with random weights, small enough to dream hundreds of frames a second."""

import torch

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from dreamer_hf.start_frames import StartFrames

IMAGE_SIZE = 16


def make_world(**dynamics_fields) -> DreamerWorldModel:
    """A random world of 16-pixel frames whose actions are, if not told otherwise, targets in [0, 512]²."""
    torch.manual_seed(0)
    width = {"hidden_size": 32, "num_attention_heads": 2, "context_length": 4}
    latents = {"num_latent_tokens": 4, "latent_dim": 8}
    stats = {"mean": [250.0, 260.0], "std": [100.0, 90.0], "min": [0.0, 10.0], "max": [512.0, 500.0]}
    fields = {"action_dim": 2, "action_names": ["target_x", "target_y"], "action_stats": stats, "fps": 20}
    tokenizer = DreamerTokenizerConfig(
        image_size=IMAGE_SIZE, patch_size=8, num_encoder_layers=4, num_decoder_layers=4, **latents, **width
    )
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, **latents, **width, **(fields | dynamics_fields))
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics))
    for parameter in world.parameters():
        if not parameter.any():  # projections that start at zero: give them weight, so that every part has a say
            torch.nn.init.normal_(parameter, std=0.2)
    return world.eval()


def make_starts(num_starts: int = 2, num_frames: int = 3, action_dim: int = 2) -> StartFrames:
    generator = torch.Generator().manual_seed(1)
    shape = (num_starts, num_frames)
    frames = torch.randint(0, 256, (*shape, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8)
    actions = 200 + 100 * torch.rand(*shape, action_dim, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, 0] = False
    return StartFrames(frames, actions * mask[..., None], mask)

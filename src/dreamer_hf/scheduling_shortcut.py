"""Shortcut forcing: noise, the Euler step, and what training draws from the grid of `rollout_schedule`.

Source: arXiv 2509.24527, section 3.2.

Shapes: B batch, T frames, N latent tokens, C latent channels.
"""

import torch

from .rollout_schedule import CONTEXT_SIGNAL_LEVEL, RolloutSchedule, num_step_sizes, signal_level_id, step_size_id


def add_noise(latents: torch.Tensor, noise: torch.Tensor, signal_level: torch.Tensor | float) -> torch.Tensor:
    """Mix clean latents (B,T,N,C), or states (B,T,S), with noise: `(1 - tau) * noise + tau * latents`.

    `signal_level` is a number or a (B,T) tensor of levels in [0, 1].
    """
    if isinstance(signal_level, torch.Tensor):
        signal_level = signal_level.reshape(*signal_level.shape, *[1] * (latents.ndim - signal_level.ndim))
    return (1 - signal_level) * noise + signal_level * latents


def euler_step(
    noisy: torch.Tensor, clean_prediction: torch.Tensor, step: int, num_inference_steps: int
) -> torch.Tensor:
    """Take one denoising step from `tau = step / K` to `(step + 1) / K`: `z + (x - z) / (1 - tau) * d`.

    With `d = 1/K` the factor `d / (1 - tau)` is `1 / (K - step)`: the last step returns the prediction itself.
    """
    return noisy + (clean_prediction - noisy) / (num_inference_steps - step)


def sample_training_grid(
    shape: tuple[int, ...], num_signal_levels: int, generator: torch.Generator | None, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw training pairs: `d` uniformly over the powers of two, then `tau` uniformly over {0, d, 2d, ..., 1 - d}.

    Returns `(signal_level_ids, step_size_ids)`, both int64 of the given shape.
    """
    step_ids = torch.randint(num_step_sizes(num_signal_levels), shape, generator=generator, device=device)
    stride = 2**step_ids  # one step of size d, counted in signal-level indices
    levels = num_signal_levels // stride
    uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
    return (uniform * levels).long() * stride, step_ids


__all__ = [
    "CONTEXT_SIGNAL_LEVEL",
    "RolloutSchedule",
    "add_noise",
    "euler_step",
    "num_step_sizes",
    "sample_training_grid",
    "signal_level_id",
    "step_size_id",
]

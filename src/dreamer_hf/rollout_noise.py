"""The noise of rollouts: one generator for all rows, one per row, or PyTorch's global one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Generators = torch.Generator | Sequence[torch.Generator] | None
"""A source of noise: one for all rows, one a row (each row's dream is then its own), or PyTorch's global one."""


def draw_noise(shape: tuple[int, ...], generator: Generators, device: torch.device) -> torch.Tensor:
    """Standard normal float32 noise, drawn where the generator lives, so that a seed means the same on every device.

    Raises:
        ValueError: several generators, but not one for each of `shape[0]` rows.
    """
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise ValueError(f"there are {len(generator)} generators for {shape[0]} rows: give one a row, or one.")
        return torch.stack([draw_noise(shape[1:], each, each.device) for each in generator]).to(device)
    source = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source).to(device)


def copy_generator(generator: Generators) -> Generators:
    """A generator that will draw what the given one would; None (PyTorch's global one) stays None."""
    if generator is None:
        return None
    if isinstance(generator, Sequence):
        return [copy_generator(each) for each in generator]
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def join_generators(rollouts: Sequence) -> list[torch.Generator] | None:
    """Return copies of the rows' generators; rows that share one generator continue to share one."""
    if all(rollout.generator is None for rollout in rollouts):
        return None
    generators = []
    for rollout in rollouts:
        generators += rollout.generator if isinstance(rollout.generator, Sequence) else [rollout.generator]
    if len(generators) != sum(rollout.batch_size for rollout in rollouts) or None in generators:
        raise ValueError(
            "rollouts can be joined if every row has a generator, or none has: start them with a list of one per row."
        )
    copies = {id(generator): copy_generator(generator) for generator in generators}
    return [copies[id(generator)] for generator in generators]


__all__ = ["Generators", "copy_generator", "draw_noise", "join_generators"]

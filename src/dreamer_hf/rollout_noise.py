"""The noise of rollouts: its generators and what is drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .seeded_noise import SeededNoise, draw_normal

Generator = torch.Generator | SeededNoise
Generators = Generator | Sequence[Generator] | None
"""Source of noise: one generator for all rows; one per row, so that dreams do not depend on each other; or None for
PyTorch's global generator. A `SeededNoise` gives the same noise in every engine and on every device."""


def check_generator(generator: Generators, num_rows: int) -> None:
    """Check the source of noise of some rows.

    Raises:
        ValueError: neither a generator, nor one per row, nor None.
    """
    if generator is None or isinstance(generator, Generator):
        return
    if not isinstance(generator, Sequence) or not all(isinstance(each, Generator) for each in generator):
        raise ValueError(
            "expected a torch.Generator or SeededNoise, a list of one per row, or None for generator, got "
            f"{generator!r}."
        )
    if len(generator) != num_rows:
        raise ValueError(f"expected one generator for each of {num_rows} rows, got {len(generator)}.")


def draw_noise(shape: Sequence[int], generator: Generators, device: torch.device) -> torch.Tensor:
    """Draw standard normal noise, float32, on a device.

    It is drawn where the generator is, so a seed of a CPU generator gives the same noise on every device. With one
    generator per row, `shape[0]` is the number of rows.
    """
    if isinstance(generator, Sequence) and all(isinstance(each, SeededNoise) for each in generator):
        return torch.from_numpy(draw_normal(generator, shape[1:])).to(device)
    if isinstance(generator, Sequence):
        return torch.stack([draw_noise(shape[1:], each, device) for each in generator])
    if isinstance(generator, SeededNoise):
        return torch.from_numpy(generator.normal(shape)).to(device)
    source = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=source).to(device)


def copy_generator(generator: Generators) -> Generators:
    """Return a generator, or a list of them, that draws the same numbers; None stays None."""
    if generator is None:
        return None
    if isinstance(generator, Sequence):
        return [copy_generator(each) for each in generator]
    if isinstance(generator, SeededNoise):
        return generator.copy()
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


def join_generators(generators: Sequence[Generators], batch_sizes: Sequence[int]) -> list[Generator] | None:
    """Return copies of the generators of several rollouts' rows; rows that share a generator continue to share one.

    Raises:
        ValueError: some rows have a generator of their rollout only, or none, and others have one each.
    """
    if all(generator is None for generator in generators):
        return None
    rows = []
    for generator, size in zip(generators, batch_sizes):
        rows += generator if isinstance(generator, Sequence) else [generator if size == 1 else None] * size
    if None in rows:
        raise ValueError(
            "rollouts can be joined if every row has a generator, or none has: start them with a list of one per row."
        )
    copies = {id(generator): copy_generator(generator) for generator in rows}
    return [copies[id(generator)] for generator in rows]


@contextmanager
def drawn_again_on_failure(generator: Generators, device: torch.device) -> Iterator[None]:
    """Restore the generators if the block fails, so that the same noise is drawn again.

    Args:
        generator: those that the block draws from.
        device: where noise of the global generator is drawn.
    """
    generators = generator if isinstance(generator, Sequence) else [generator or _default_generator(device)]
    states = [each.get_state() for each in generators]
    try:
        yield
    except BaseException:
        for each, state in zip(generators, states):
            each.set_state(state)
        raise


def _default_generator(device: torch.device) -> torch.Generator:
    """Return PyTorch's global generator for a device."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    module = torch.get_device_module(device)
    return module.default_generators[module.current_device() if device.index is None else device.index]


__all__ = [
    "Generator",
    "Generators",
    "check_generator",
    "copy_generator",
    "draw_noise",
    "drawn_again_on_failure",
    "join_generators",
]

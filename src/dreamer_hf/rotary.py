"""Rotary position embedding (arXiv 2104.09864) in its half-split form, for space and for time."""

import torch


def rotary_tables(positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype):
    """Return cosines and signed sines, each (len(positions), head_dim), of the half-split rotary embedding.

    Computed from the positions themselves in double precision (single where the device has none), so there is no table
    to run off: a rollout's hundred-thousandth frame is placed as exactly as its first.
    """
    exact = torch.float32 if positions.device.type == "mps" else torch.float64
    exponents = torch.arange(0, head_dim, 2, dtype=exact, device=positions.device) / head_dim
    angles = positions.to(exact)[:, None] * theta**-exponents
    cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    # Computed once, not for each layer, token and head: compilers do not look through strides.
    tables = torch.cat([cosines, cosines, -sines, sines], dim=-1)
    return tuple(tables.as_strided((len(positions), head_dim), (2 * head_dim, 1), start) for start in (0, head_dim))


def rotate(states: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Apply rotary tables to states (..., h); the tables' shape broadcasts to theirs.

    Channel i and its partner i + h / 2 turn together: half a roll brings each to the other's place.
    """
    cosines, signed_sines = tables
    return torch.addcmul(states * cosines, states.roll(states.shape[-1] // 2, dims=-1), signed_sines)


__all__ = ["rotary_tables", "rotate"]

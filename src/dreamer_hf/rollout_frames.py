"""The frames that a rollout holds: latents, states and actions of T frames of every row.

Shapes: B rows, C context frames, T frames, N_z latent tokens, d_z latent channels, S state components, a action width,
G agent tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from .frame_inputs import action_limits, prepare_actions, prepare_states
from .rollout_noise import Generators, draw_noise
from .scheduling_shortcut import add_noise, euler_step

TENSORS = ("latents", "actions", "action_mask", "states", "state_mask", "agent_tokens")


@dataclass(frozen=True, eq=False)
class FrameNoise:
    """Noise of the T frames of every row.

    Attributes:
        latents: (B,T,N_z,d_z) float32.
        states: (B,T,S) float32; None for a world without a state.
    """

    latents: torch.Tensor
    states: torch.Tensor | None = None

    def __getitem__(self, time: slice) -> FrameNoise:
        """Return the noise of a slice of T."""
        return FrameNoise(self.latents[:, time], None if self.states is None else self.states[:, time])


@dataclass(frozen=True, eq=False)
class Frames:
    """T frames of every row.

    Attributes:
        latents: (B,T,N_z,d_z) float32.
        actions: (B,T,a) float32, raw.
        action_mask: (B,T) bool, False where a frame has no action.
        states: (B,T,S) float32, normalized; None for a world without a state.
        state_mask: (B,T) bool, False where a frame has no state; None for a world without one.
        agent_tokens: (B,T,G,D), those of an agent that sees the frames; None without one.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor
    states: torch.Tensor | None = None
    state_mask: torch.Tensor | None = None
    agent_tokens: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return T."""
        return self.latents.shape[1]

    def __getitem__(self, time: slice) -> Frames:
        """Return the frames of a slice of T."""
        return Frames(*(None if part is None else part[:, time] for part in self._tensors))

    def to_noisy(self, noise: FrameNoise, signal_level: float) -> Frames:
        """Return the same frames at a signal level."""
        noisy = replace(self, latents=add_noise(self.latents, noise.latents, signal_level))
        if self.states is None:
            return noisy
        return replace(noisy, states=add_noise(self.states, noise.states, signal_level))

    def denoised(self, clean: torch.Tensor, clean_states: torch.Tensor | None, step: int, num_steps: int) -> Frames:
        """Return the same frames after a denoising step towards a clean prediction; see `euler_step`."""
        moved = replace(self, latents=euler_step(self.latents, clean, step, num_steps))
        if self.states is None:
            return moved
        return replace(moved, states=euler_step(self.states, clean_states, step, num_steps))

    def append(self, other: Frames) -> Frames:
        """Return these frames, followed by others."""
        pairs = zip(self._tensors, other._tensors)
        return Frames(*(None if first is None else torch.cat([first, second], dim=1) for first, second in pairs))

    def select(self, rows: torch.Tensor) -> Frames:
        """Return the same frames of some rows."""
        return self._with(lambda *parts: parts[0][rows], self)

    @staticmethod
    def join(parts: Sequence[Frames]) -> Frames:
        """Return the rows of several batches as one batch."""
        return parts[0]._with(lambda *tensors: torch.cat(tensors), *parts)

    def _with(self, function: Callable[..., torch.Tensor], *parts: Frames) -> Frames:
        """Return the same with what a function makes of each kind of tensor of some frames."""
        columns = zip(TENSORS, zip(*(part._tensors for part in parts)))
        return replace(self, **{name: None if column[0] is None else function(*column) for name, column in columns})

    @property
    def _tensors(self) -> tuple[torch.Tensor | None, ...]:
        return tuple(getattr(self, name) for name in TENSORS)


@dataclass(frozen=True, eq=False)
class Context(Frames):
    """The context frames of a rollout: the last T of them, which can influence it.

    Attributes:
        num_skipped: number of context frames before these.
    """

    num_skipped: int = 0

    @property
    def num_frames(self) -> int:
        """C, the number of context frames."""
        return self.num_skipped + len(self)


def make_context(
    latents: torch.Tensor,
    actions,
    action_mask,
    dynamics,
    num_skipped: int = 0,
    states=None,
    state_mask=None,
    agent_tokens: torch.Tensor | None = None,
) -> Context:
    """Return a context for a dynamics model.

    Args:
        latents: (B,T,N_z,d_z) clean latents of the last T context frames.
        actions, action_mask: (B,C,a) and (B,C) of all context frames; see `prepare_actions`.
        dynamics: the `DreamerDynamicsModel`.
        num_skipped: C - T.
        states, state_mask: (B,C,S) raw and (B,C) of all context frames; see `prepare_states`.
        agent_tokens: (B,1,G,D), those of an agent, the same for every frame; None without one.

    Raises:
        ValueError: a shape that does not fit, no row or no frame, or actions or states that are not finite.
    """
    config, device = dynamics.config, dynamics.device
    latents = torch.as_tensor(latents).to(device).float()
    expected = (config.num_latent_tokens, config.latent_dim)
    if latents.ndim != 4 or latents.shape[2:] != expected or latents.numel() == 0:
        raise ValueError(
            f"expected context latents of shape (B, C, {expected[0]}, {expected[1]}) with at least one row and one "
            f"frame, got {tuple(latents.shape)}."
        )
    shape = len(latents), num_skipped + latents.shape[1]
    conditions = list(prepare_actions(actions, action_mask, shape, action_limits(config, device)))
    states, state_mask = prepare_states(states, state_mask, shape, config, device)
    if states is not None:
        conditions += [dynamics.normalize_states(states), state_mask]
    if agent_tokens is not None:
        agent_tokens = agent_tokens.expand(-1, latents.shape[1], -1, -1)
    conditions = [part[:, num_skipped:] for part in conditions]
    return Context(latents, *conditions, agent_tokens=agent_tokens, num_skipped=num_skipped)


def noise_of_context(noise, state_noise, context: Context, config, generator: Generators, device) -> FrameNoise:
    """Return the noise of all C context frames.

    Args:
        noise: (B,C,N_z,d_z), or None to draw it.
        state_noise: (B,C,S), or None to draw it after that of the latents, if the world has a state.
        context: the frames.
        config: the `DreamerDynamicsConfig`.
        generator: source of what is drawn.
        device: where to put it.

    Raises:
        ValueError: another shape.
    """
    frames = len(context.latents), context.num_frames
    noise = noise_or_draw(noise, (*frames, config.num_latent_tokens, config.latent_dim), generator, device)
    if not config.state_dim:
        return FrameNoise(noise)
    return FrameNoise(noise, noise_or_draw(state_noise, (*frames, config.state_dim), generator, device))


def noise_or_draw(noise, shape: tuple[int, ...], generator: Generators, device: torch.device) -> torch.Tensor:
    """Return given noise as `checked_noise` does, or draw it."""
    noise = checked_noise(noise, shape, device)
    return draw_noise(shape, generator, device) if noise is None else noise


def checked_noise(noise, shape: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    """Return given noise as float32 on a device, or None.

    Raises:
        ValueError: another shape.
    """
    if noise is None:
        return None
    noise = torch.as_tensor(noise, dtype=torch.float32)
    if noise.shape != shape:
        raise ValueError(f"expected noise of shape {tuple(shape)}, got {tuple(noise.shape)}.")
    return noise.to(device)


__all__ = ["Context", "FrameNoise", "Frames", "checked_noise", "make_context", "noise_of_context", "noise_or_draw"]

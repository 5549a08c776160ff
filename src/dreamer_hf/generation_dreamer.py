"""`generate` and `start_rollout` of the dynamics model and of the world (arXiv 2509.24527, section 3.2).

`use_cache=False` is the plain reference: every pass sees the full history under the band mask, nothing is kept.

Shapes: B rows, C context frames, F generated frames, N_z latent tokens, d_z latent channels, a action width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers.utils import ModelOutput

from .frame_inputs import FrameInput, action_limits, checked_frames, context_actions, is_start, prepare_actions
from .generation_config_dreamer import DreamerGenerationMixin
from .latent_rollout import Context, DreamerLatentRollout, Frames, make_context, on_ordinary_tensors
from .rollout import DreamerRollout
from .rollout_noise import Generators, draw_noise
from .scheduling_shortcut import RolloutSchedule, euler_step


@dataclass
class DreamerGenerateOutput(ModelOutput):
    """Generated frames.

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, F, 3, H, W)`, *optional*): in [0, 1]; None if a dynamics
            model alone generated them.
        latents (`torch.FloatTensor` of shape `(B, F, N_z, d_z)`): clean latents.
    """

    pixel_values_videos: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None


@dataclass(frozen=True)
class RolloutNoise:
    """All the noise of a generation: context (B,C,N_z,d_z), start and commit (B,F,N_z,d_z)."""

    context: torch.Tensor
    start: torch.Tensor
    commit: torch.Tensor


class DreamerDynamicsRolloutMixin(DreamerGenerationMixin):
    """Generation in latent space, for [`DreamerDynamicsModel`]."""

    @on_ordinary_tensors
    def start_rollout(
        self,
        latents: torch.FloatTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        context_noise: torch.FloatTensor | None = None,
    ) -> DreamerLatentRollout:
        """Start a dream from context latents.

        Args:
            latents: (B,C,N_z,d_z) clean latents of the context frames, C at least 1.
            actions: (B,C,a) raw actions in the units of the training data; `actions[:, i]` belongs to frame i. By
                default no context frame has an action.
            action_mask: (B,C) bool, False where a context frame has no action. By default every frame has one if
                `actions` are given.
            num_inference_steps: denoising passes per frame, a power of two. Default: that of `generation_config`.
            context_signal_level: level in [0, 1) at which the past is shown to the model. Default: that of
                `generation_config`.
            generator: source of all noise, or a list of one per row, whose dreams then do not depend on each other.
                Default: PyTorch's global generator.
            context_noise: (B,C,N_z,d_z) noise of the context; drawn by default.

        Returns:
            [`DreamerLatentRollout`]; any number of them can run side by side on one model.

        Raises:
            ValueError: a shape that does not fit, actions that are not finite, or steps or a level that are not on the
                model's grid.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        context = make_context(latents, actions, action_mask, self)
        return DreamerLatentRollout(self, context, schedule, generator, context_noise)

    @on_ordinary_tensors
    def generate(
        self,
        latents: torch.FloatTensor,
        actions: torch.FloatTensor,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        noise: RolloutNoise | None = None,
        use_cache: bool = True,
    ) -> DreamerGenerateOutput:
        """Generate the latents of F frames after a context, steered by actions.

        Args:
            latents: (B,C,N_z,d_z) clean latents of the context frames, C at least 1.
            actions: (B,C+F,a) raw actions in the units of the training data, one for each context frame, followed by
                one for each frame to generate.
            action_mask: (B,C+F) bool, False where a frame has no action. By default every frame has one.
            num_inference_steps, context_signal_level, generator: as in `start_rollout`.
            noise: all the noise, for reproducible comparisons; drawn by default.
            use_cache: False computes every pass over the full history (slow; the reference). Default: True.

        Returns:
            [`DreamerGenerateOutput`] with `latents` (B,F,N_z,d_z).

        Raises:
            ValueError: as in `start_rollout`.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        actions, action_mask = _prepare_all(actions, action_mask, latents.shape[:2], self.config, self.device)
        num_context = latents.shape[1]
        context = make_context(latents, actions[:, :num_context], action_mask[:, :num_context], self)
        if use_cache:
            rollout = DreamerLatentRollout(self, context, schedule, generator, noise.context if noise else None)
            outputs = _step_through(rollout, actions, action_mask, noise)
            return DreamerGenerateOutput(latents=_stack([output.latents for output in outputs], context.latents))
        noise = noise or draw_rollout_noise(context.latents, actions.shape[1] - num_context, generator)
        return DreamerGenerateOutput(latents=_generate_uncached(self, context, actions, action_mask, schedule, noise))


def draw_rollout_noise(context: torch.Tensor, num_frames: int, generator: Generators) -> RolloutNoise:
    """Draw noise in the order of a rollout: the context's, then start and commit noise of each frame."""
    batch, _, tokens, width = context.shape
    context_noise = draw_noise(context.shape, generator, context.device)
    frames = [draw_noise((batch, tokens, width), generator, context.device) for _ in range(2 * num_frames)]
    frames = _stack(frames, context_noise)
    return RolloutNoise(context_noise, frames[:, 0::2], frames[:, 1::2])


def _prepare_all(actions, action_mask, context_shape: tuple[int, int], config, device: torch.device):
    """Return actions (B,C+F,a) and mask (B,C+F) of context frames (B,C) and of the frames to generate."""
    rows, num_context = context_shape
    try:
        shape = tuple(np.shape(actions))
    except ValueError:
        shape = "lists of different lengths"
    if len(shape) != 3 or shape[1] < num_context:
        raise ValueError(
            f"expected actions (B, C + F, a) of all {num_context} context frames and of the frames to generate, got "
            f"{shape}; action_mask says which frames have none."
        )
    return prepare_actions(actions, action_mask, (rows, shape[1]), action_limits(config, device))


def _step_through(rollout, actions: torch.Tensor, action_mask: torch.Tensor, noise: RolloutNoise | None) -> list:
    """Generate one frame for each action after the context's, and return the outputs."""
    outputs, num_context = [], rollout.frame_index
    for index in range(actions.shape[1] - num_context):
        given = () if noise is None else (noise.start[:, index], noise.commit[:, index])
        outputs.append(rollout.step(actions[:, num_context + index], action_mask[:, num_context + index], *given))
    return outputs


def _stack(frames: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Stack F frames (B,...) to (B,F,...); without any, return (B,0,...) of the type of `like` (B,C,...)."""
    return torch.stack(frames, dim=1) if frames else like[:, :0]


def _generate_uncached(
    dynamics, context: Context, actions, action_mask, schedule: RolloutSchedule, noise: RolloutNoise
) -> torch.Tensor:
    """Return generated latents (B,F,N_z,d_z); every pass sees the full history."""
    device, num_context = dynamics.device, len(context)
    frames = Frames(torch.cat([context.latents, noise.start.to(device)], dim=1), actions, action_mask)
    history = frames[:num_context].to_noisy(noise.context.to(device), schedule.context_signal_level)
    generated = []
    for index in range(len(frames) - num_context):
        frame = frames[num_context + index : num_context + index + 1]
        for step in range(schedule.num_inference_steps):
            clean = _denoise_with_history(dynamics, history, frame, schedule, step)
            frame = replace(frame, latents=euler_step(frame.latents, clean, step, schedule.num_inference_steps))
        generated.append(frame.latents[:, 0])
        commit_noise = noise.commit[:, index : index + 1].to(device)
        history = history.append(frame.to_noisy(commit_noise, schedule.context_signal_level))
    return _stack(generated, context.latents)


def _denoise_with_history(dynamics, history: Frames, frame: Frames, schedule: RolloutSchedule, step: int):
    """Return the clean prediction (B,1,N_z,d_z) of a frame, from one pass over all frames so far."""
    frames = history.append(frame)
    levels = torch.full_like(frames.action_mask, schedule.context_signal_level_id, dtype=torch.int64)
    sizes = torch.zeros_like(levels)
    levels[:, -1], sizes[:, -1] = schedule.signal_level_id(step), schedule.step_size_id
    output = dynamics(frames.latents, levels, sizes, frames.actions, frames.action_mask)
    return output.latents[:, -1:].float()


class DreamerWorldRolloutMixin(DreamerGenerationMixin):
    """Generation in pixels, for [`DreamerWorldModel`]."""

    @on_ordinary_tensors
    def start_rollout(
        self,
        pixel_values_videos: FrameInput,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        context_noise: torch.FloatTensor | None = None,
    ) -> DreamerRollout:
        """Start a dream from context frames.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), integer (0..255) or float in [0, 1], tensor or array; a
                list of PIL images (one clip); or `StartFrames`, which bring their actions and mask. C is at least 1.
            actions, action_mask, num_inference_steps, context_signal_level, generator, context_noise:
                as in [`DreamerDynamicsModel.start_rollout`].

        Returns:
            [`DreamerRollout`]; any number of them can run side by side on one model.

        Raises:
            ValueError: frames or actions that do not fit, or steps or a level that are not on the model's grid.

        Example:

        ```python
        rollout = world.start_rollout(frames, actions)      # (B, C, 3, H, W) uint8, (B, C, a) raw
        frame = rollout.step(action).pixel_values           # (B, a) -> (B, 3, H, W) in [0, 1]
        ```
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        context = self.make_context(pixel_values_videos, actions, action_mask)
        return DreamerRollout(self, DreamerLatentRollout(self.dynamics, context, schedule, generator, context_noise))

    @on_ordinary_tensors
    def make_context(self, pixel_values_videos: FrameInput, actions=None, action_mask=None) -> Context:
        """Encode context frames, for `start_rollout` and `reset`; see there.

        Frames so long ago that they cannot influence a rollout are left out, and the others are encoded in chunks: a
        long context costs no more than the windows of the time layers need.
        """
        actions, action_mask = context_actions(pixel_values_videos, actions, action_mask)
        frames, tokenizer = checked_frames(pixel_values_videos, self.config.tokenizer_config), self.tokenizer
        num_needed = max(self.dynamics.transformer.reach, tokenizer.decoder.transformer.reach, 1)
        last = frames[:, -(num_needed + tokenizer.encoder.transformer.reach) :]
        cache = tokenizer.new_encoder_cache(len(last))
        chunks = [last[:, chunk] for chunk in cache.chunks(last.shape[1])]
        # Without a cache one chunk is encoded as `encode` does it, bit for bit.
        cache = cache if len(chunks) > 1 else None
        latents = torch.cat([tokenizer.encode(chunk, cache).latents for chunk in chunks], dim=1)[:, -num_needed:]
        return make_context(latents, actions, action_mask, self.dynamics, frames.shape[1] - latents.shape[1])

    @on_ordinary_tensors
    def generate(
        self,
        pixel_values_videos: FrameInput,
        actions: torch.FloatTensor,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int | None = None,
        context_signal_level: float | None = None,
        generator: Generators = None,
        noise: RolloutNoise | None = None,
        use_cache: bool = True,
    ) -> DreamerGenerateOutput:
        """Generate F frames after context frames, steered by actions.

        Args:
            pixel_values_videos: context frames, as in `start_rollout`.
            actions: (B,C+F,a) raw actions in the units of the training data, one for each context frame, followed by
                one for each frame to generate. With `StartFrames`, which bring those of the context: (B,F,a).
            action_mask: bool, False where a frame has no action, (B,C+F) or, with `StartFrames`, (B,F). By default
                every frame has one.
            num_inference_steps, context_signal_level, generator: as in `start_rollout`.
            noise: all the noise, for reproducible comparisons; drawn by default.
            use_cache: False computes every pass over the full history (slow; the reference). Default: True.

        Returns:
            [`DreamerGenerateOutput`] with `pixel_values_videos` (B,F,3,H,W) in [0, 1] and `latents` (B,F,N_z,d_z).

        Raises:
            ValueError: as in `start_rollout`.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        settings = schedule.num_inference_steps, schedule.context_signal_level, generator
        config, frames = self.config.dynamics_config, checked_frames(pixel_values_videos, self.config.tokenizer_config)
        num_context = frames.shape[1]
        if is_start(pixel_values_videos):
            actions, action_mask = _append_actions(pixel_values_videos, actions, action_mask, config, self.device)
        actions, action_mask = _prepare_all(actions, action_mask, frames.shape[:2], config, self.device)
        if use_cache:
            first = frames, actions[:, :num_context], action_mask[:, :num_context]
            rollout = self.start_rollout(*first, *settings, noise.context if noise else None)
            outputs = _step_through(rollout, actions, action_mask, noise)
            latents = _stack([output.latents for output in outputs], rollout.latent_rollout.context.latents)
            frames = _stack([output.pixel_values for output in outputs], frames.to(self.device).float())
            return DreamerGenerateOutput(pixel_values_videos=frames, latents=latents)
        context = self.encode(frames).latents.float()
        latents = self.dynamics.generate(context, actions, action_mask, *settings, noise, use_cache=False).latents
        frames = self.tokenizer.decode(torch.cat([context, latents], dim=1)).pixel_values_videos[:, num_context:]
        return DreamerGenerateOutput(pixel_values_videos=frames, latents=latents)


def _append_actions(start, actions, action_mask, config, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return actions (B,C+F,a) and mask (B,C+F): those of `StartFrames`, then those of the frames to generate."""
    shape = start.action_mask.shape
    context = prepare_actions(start.actions, start.action_mask, shape, action_limits(config, device))
    future = _prepare_all(actions, action_mask, (shape[0], 0), config, device)
    return tuple(torch.cat(pair, dim=1) for pair in zip(context, future))


__all__ = [
    "DreamerDynamicsRolloutMixin",
    "DreamerGenerateOutput",
    "DreamerWorldRolloutMixin",
    "RolloutNoise",
]

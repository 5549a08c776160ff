"""`generate` and `start_rollout` of the dynamics model and of the world (arXiv 2509.24527, section 3.2).

`use_cache=False` is the plain reference: every pass sees the full history under the band mask, nothing is kept.

Shapes: B batch, C context frames, F generated frames, N_z latent tokens, d_z latent channels, a action width.
"""

from dataclasses import dataclass, replace

import torch
from transformers.utils import ModelOutput

from .latent_rollout import DreamerLatentRollout, Frames, as_frames
from .rollout import DreamerRollout
from .rollout_noise import Generators, draw_noise
from .scheduling_shortcut import CONTEXT_SIGNAL_LEVEL, RolloutSchedule, euler_step


@dataclass
class DreamerGenerateOutput(ModelOutput):
    """Generated frames.

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, F, 3, H, W)`, *optional*): in [0, 1]; None without a decoder.
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


def draw_rollout_noise(context: torch.Tensor, num_frames: int, generator: Generators) -> RolloutNoise:
    """Draws noise in the order in which a rollout does: the context's, then start and commit of each frame."""
    batch, _, tokens, width = context.shape
    context_noise = draw_noise(context.shape, generator, context.device)
    frames = [draw_noise((batch, tokens, width), generator, context.device) for _ in range(2 * num_frames)]
    frames = torch.stack(frames, dim=1) if frames else context_noise[:, :0]
    return RolloutNoise(context_noise, frames[:, 0::2], frames[:, 1::2])


class DreamerDynamicsRolloutMixin:
    """Generation in latent space, for [`DreamerDynamicsModel`]."""

    def start_rollout(
        self,
        latents: torch.FloatTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int = 4,
        context_signal_level: float = CONTEXT_SIGNAL_LEVEL,
        generator: Generators = None,
        context_noise: torch.FloatTensor | None = None,
        merge_commit: bool = True,
    ) -> DreamerLatentRollout:
        """Starts a dream from context latents.

        Args:
            latents: (B,C,N_z,d_z) clean latents of the context frames, C at least 1.
            actions: (B,C,a) raw actions in the data's units, `actions[:, i]` being the one denoised with frame i.
            action_mask: (B,C) bool, False where a context frame has no action.
            num_inference_steps: denoising passes a frame, a power of two.
            context_signal_level: level in [0, 1) at which the past is shown to the model.
            generator: source of all noise, or a list of one a row, whose dreams then do not depend on their neighbors;
                PyTorch's global one if not given.
            context_noise: (B,C,N_z,d_z) noise of the context; drawn if not given.
            merge_commit: commit a frame together with the first denoising pass of the next one (four passes a frame
                instead of five, equal to rounding).

        Raises:
            ValueError: a shape that does not fit, or steps or a level that are not on the model's grid.
        """
        schedule = RolloutSchedule(num_inference_steps, context_signal_level, self.config.num_signal_levels)
        context = as_frames(latents.to(self.device), actions, action_mask, self.config.action_dim)
        return DreamerLatentRollout(self, context, schedule, generator, context_noise, merge_commit)

    @torch.no_grad()
    def generate(
        self,
        latents: torch.FloatTensor,
        actions: torch.FloatTensor,
        context_actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        context_action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int = 4,
        context_signal_level: float = CONTEXT_SIGNAL_LEVEL,
        generator: Generators = None,
        noise: RolloutNoise | None = None,
        use_cache: bool = True,
    ) -> DreamerGenerateOutput:
        """Generates the latents of F frames after a context, steered by actions.

        Args:
            latents: (B,C,N_z,d_z) clean latents of the context frames.
            actions: (B,F,a) raw actions of the frames to generate.
            context_actions: (B,C,a) raw actions of the context frames; none if not given.
            action_mask, context_action_mask: (B,F) and (B,C) bool, False where a frame has no action.
            num_inference_steps, context_signal_level, generator: as in `start_rollout`.
            noise: all the noise, for reproducible comparisons; drawn if not given.
            use_cache: False computes every pass over the full history (slow, the reference).

        Returns:
            [`DreamerGenerateOutput`] with `latents` (B,F,N_z,d_z).

        Raises:
            ValueError: as in `start_rollout`.
        """
        schedule = RolloutSchedule(num_inference_steps, context_signal_level, self.config.num_signal_levels)
        action_dim = self.config.action_dim
        context = as_frames(latents.to(self.device), context_actions, context_action_mask, action_dim)
        actions = torch.as_tensor(actions)
        noise = noise or draw_rollout_noise(context.latents, actions.shape[1], generator)
        future = as_frames(noise.start.to(self.device), actions, action_mask, action_dim)
        run = _generate_cached if use_cache else _generate_uncached
        return DreamerGenerateOutput(latents=run(self, context, future, schedule, noise))


def _generate_cached(dynamics, context: Frames, future: Frames, schedule: RolloutSchedule, noise: RolloutNoise):
    rollout = DreamerLatentRollout(dynamics, context, schedule, context_noise=noise.context)
    frames = [
        rollout.step(future.actions[:, i], future.action_mask[:, i], noise.start[:, i], noise.commit[:, i]).latents
        for i in range(future.latents.shape[1])
    ]
    return torch.stack(frames, dim=1) if frames else future.latents


def _generate_uncached(dynamics, context: Frames, future: Frames, schedule: RolloutSchedule, noise: RolloutNoise):
    history = context.to_noisy(noise.context, schedule.context_signal_level)
    generated = []
    for index in range(future.latents.shape[1]):
        now = slice(index, index + 1)
        frame = Frames(future.latents[:, now], future.actions[:, now], future.action_mask[:, now])
        for step in range(schedule.num_inference_steps):
            clean = _denoise_with_history(dynamics, history, frame, schedule, step)
            frame = replace(frame, latents=euler_step(frame.latents, clean, step, schedule.num_inference_steps))
        generated.append(frame.latents)
        history = history.append(frame.to_noisy(noise.commit[:, now], schedule.context_signal_level))
    return torch.cat(generated, dim=1) if generated else future.latents


def _denoise_with_history(dynamics, history: Frames, frame: Frames, schedule: RolloutSchedule, step: int):
    """The clean prediction (B,1,N_z,d_z) of a frame, from one pass over all frames so far."""
    frames = history.append(frame)
    levels = torch.full_like(frames.action_mask, schedule.context_signal_level_id, dtype=torch.int64)
    sizes = torch.zeros_like(levels)
    levels[:, -1], sizes[:, -1] = schedule.signal_level_id(step), schedule.step_size_id
    output = dynamics(frames.latents, levels, sizes, frames.actions, frames.action_mask)
    return output.latents[:, -1:].float()


class DreamerWorldRolloutMixin:
    """Generation in pixels, for [`DreamerWorldModel`]."""

    def start_rollout(
        self,
        pixel_values_videos: torch.FloatTensor,
        actions: torch.FloatTensor | None = None,
        action_mask: torch.BoolTensor | None = None,
        num_inference_steps: int = 4,
        context_signal_level: float = CONTEXT_SIGNAL_LEVEL,
        generator: Generators = None,
        context_noise: torch.FloatTensor | None = None,
        merge_commit: bool = True,
    ) -> DreamerRollout:
        """Starts a dream from context frames.

        Args:
            pixel_values_videos: (B,C,3,H,W) context frames in [0, 1], C at least 1.
            actions, action_mask, num_inference_steps, context_signal_level, generator, context_noise, merge_commit:
                as in [`DreamerDynamicsModel.start_rollout`].

        Returns:
            [`DreamerRollout`]; any number of them can run side by side on one model.

        Raises:
            ValueError: a shape that does not fit, or steps or a level that are not on the model's grid.

        Example:

        ```python
        rollout = world.start_rollout(pixel_values_videos, actions)
        frame = rollout.step(action).pixel_values  # (B, 3, H, W) in [0, 1]
        ```
        """
        with torch.no_grad():
            latents = self.tokenizer.encode(pixel_values_videos.to(self.device)).latents
        latent_rollout = self.dynamics.start_rollout(
            latents,
            actions,
            action_mask,
            num_inference_steps,
            context_signal_level,
            generator,
            context_noise,
            merge_commit,
        )
        return DreamerRollout(self, latent_rollout)

    @torch.no_grad()
    def generate(
        self,
        pixel_values_videos: torch.FloatTensor,
        actions: torch.FloatTensor,
        context_actions: torch.FloatTensor | None = None,
        use_cache: bool = True,
        **generate_kwargs,
    ) -> DreamerGenerateOutput:
        """Generates F frames after context frames, steered by actions.

        Args:
            pixel_values_videos: (B,C,3,H,W) context frames in [0, 1].
            actions: (B,F,a) raw actions of the frames to generate.
            context_actions: (B,C,a) raw actions of the context frames; none if not given.
            use_cache: False computes every pass over the full history (slow, the reference).
            generate_kwargs: the other arguments of [`DreamerDynamicsModel.generate`], as `num_inference_steps=4`,
                `context_signal_level=0.9`, `generator=None`, `action_mask`, `context_action_mask`, `noise`.

        Returns:
            [`DreamerGenerateOutput`] with `pixel_values_videos` (B,F,3,H,W) in [0, 1] and `latents` (B,F,N_z,d_z).

        Raises:
            ValueError: as in `start_rollout`.
        """
        context = self.tokenizer.encode(pixel_values_videos.to(self.device)).latents
        output = self.dynamics.generate(context, actions, context_actions, use_cache=use_cache, **generate_kwargs)
        latents = torch.cat([context.float(), output.latents], dim=1)
        frames = (
            self.tokenizer.decode(latents).pixel_values_videos if not use_cache else self._decode_by_frame(latents)
        )
        return DreamerGenerateOutput(pixel_values_videos=frames[:, context.shape[1] :], latents=output.latents)

    def _decode_by_frame(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes (B,T,N_z,d_z) a frame at a time: memory does not grow with the square of the length."""
        cache = self.tokenizer.new_decoder_cache(latents.shape[0])
        frames = [self.tokenizer.decode(frame, past_key_values=cache) for frame in latents.split(1, dim=1)]
        return torch.cat([frame.pixel_values_videos for frame in frames], dim=1)


__all__ = ["DreamerDynamicsRolloutMixin", "DreamerGenerateOutput", "DreamerWorldRolloutMixin", "RolloutNoise"]

"""`generate` and `start_rollout` of the dynamics model and of the world (arXiv 2509.24527, section 3.2).

`use_cache=False` is the plain reference: every pass sees the full history under the band mask, nothing is kept.

Shapes: B rows, C context frames, F generated frames, N_z latent tokens, d_z latent channels, a action width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, ModelOutput, cached_file

from .frame_inputs import FrameInput, action_limits, context_actions, is_start, prepare_actions
from .latent_rollout import DreamerLatentRollout, Frames, as_frames
from .rollout import DreamerRollout
from .rollout_noise import Generators, draw_noise
from .scheduling_shortcut import CONTEXT_SIGNAL_LEVEL, RolloutSchedule, euler_step


class DreamerGenerationConfig(GenerationConfig):
    """How a model dreams, unless an argument says otherwise; saved with it as `generation_config.json`.

    Args:
        num_inference_steps (`int`, *optional*, defaults to 4): denoising passes per frame, a power of two.
        context_signal_level (`float`, *optional*, defaults to 0.9): level in [0, 1) at which past frames are shown to
            the model; a little noise makes it robust to its own errors.

    ```python
    world.generation_config.num_inference_steps = 8     # slower, and a little sharper
    world.save_pretrained("my-world")                   # remembers it
    ```
    """

    def __init__(self, num_inference_steps: int = 4, context_signal_level: float = CONTEXT_SIGNAL_LEVEL, **kwargs):
        self.num_inference_steps = num_inference_steps
        self.context_signal_level = context_signal_level
        super().__init__(**kwargs)

    def validate(self, *args, **kwargs) -> None:
        """Check the values, as the base class does; a model also checks them against its grid.

        Raises:
            ValueError: a number of steps that is not a power of two, or a level outside [0, 1).
        """
        super().validate(*args, **kwargs)
        steps, level = self.num_inference_steps, self.context_signal_level
        if type(steps) is not int or steps < 1 or steps & (steps - 1):
            raise ValueError(f"expected a power of two for num_inference_steps, got {steps!r}.")
        if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 <= level < 1:
            raise ValueError(f"expected a number of at least 0 and below 1 for context_signal_level, got {level!r}.")

    @classmethod
    def from_json(cls, path: str | Path) -> DreamerGenerationConfig:
        """Read a `generation_config.json`.

        Raises:
            ValueError: the file is damaged or holds impossible values.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): correct it, or delete it to use defaults.") from error

    @classmethod
    def from_model_config(cls, model_config) -> DreamerGenerationConfig:
        """Return the defaults: a model's config says nothing about generation."""
        return cls()


class DreamerGenerationMixin:
    """Loads and saves a `generation_config`, for models that generate without being language models."""

    generation_config_class = DreamerGenerationConfig

    @classmethod
    def can_generate(cls) -> bool:
        """Return True: transformers then saves and loads `generation_config` with the model."""
        return True

    def adjust_generation_fn(
        self,
        generation_config,
        from_auto_class,
        from_pipeline,
        pretrained_model_name_or_path,
        cache_dir,
        force_download,
        proxies,
        local_files_only,
        token,
        revision,
        subfolder,
        trust_remote_code=None,
        **kwargs,
    ) -> None:
        """Load `generation_config.json`, for `from_pretrained`; a model without that file keeps the defaults.

        Raises:
            ValueError: the file is damaged or holds impossible values.
        """
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            path = cached_file(
                pretrained_model_name_or_path,
                GENERATION_CONFIG_NAME,
                cache_dir=cache_dir,
                force_download=force_download,
                proxies=proxies,
                local_files_only=local_files_only,
                token=token,
                revision=revision,
                subfolder=subfolder,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            if path is not None:
                self.generation_config = self.generation_config_class.from_json(path)

    def rollout_schedule(
        self, num_inference_steps: int | None = None, context_signal_level: float | None = None
    ) -> RolloutSchedule:
        """Return the passes of a frame, with the values of `generation_config` for those not given.

        Raises:
            ValueError: a number of steps or a level that is not on the model's grid.
        """
        config, settings = getattr(self.config, "dynamics_config", self.config), self.generation_config
        if num_inference_steps is None:
            num_inference_steps = settings.num_inference_steps
        if context_signal_level is None:
            context_signal_level = settings.context_signal_level
        return RolloutSchedule(num_inference_steps, context_signal_level, config.num_signal_levels)


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


def draw_rollout_noise(context: torch.Tensor, num_frames: int, generator: Generators) -> RolloutNoise:
    """Draw noise in the order of a rollout: the context's, then start and commit noise of each frame."""
    batch, _, tokens, width = context.shape
    context_noise = draw_noise(context.shape, generator, context.device)
    frames = [draw_noise((batch, tokens, width), generator, context.device) for _ in range(2 * num_frames)]
    frames = torch.stack(frames, dim=1) if frames else context_noise[:, :0]
    return RolloutNoise(context_noise, frames[:, 0::2], frames[:, 1::2])


class DreamerDynamicsRolloutMixin(DreamerGenerationMixin):
    """Generation in latent space, for [`DreamerDynamicsModel`]."""

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
        context = as_frames(latents.to(self.device), actions, action_mask, action_limits(self.config, self.device))
        return DreamerLatentRollout(self, context, schedule, generator, context_noise)

    @torch.no_grad()
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
        latents, limits = latents.to(self.device), action_limits(self.config, self.device)
        num_context, num_frames = latents.shape[1], _num_frames(actions, latents.shape[1])
        actions, action_mask = prepare_actions(actions, action_mask, (len(latents), num_context + num_frames), limits)
        context = as_frames(latents, actions[:, :num_context], action_mask[:, :num_context], limits)
        noise = noise or draw_rollout_noise(context.latents, num_frames, generator)
        start = noise.start.to(self.device)
        future = as_frames(start, actions[:, num_context:], action_mask[:, num_context:], limits)
        run = _generate_cached if use_cache else _generate_uncached
        return DreamerGenerateOutput(latents=run(self, context, future, schedule, noise))


def _num_frames(actions, num_context: int) -> int:
    """Return F of actions (B,C+F,a)."""
    length = 0 if actions is None or len(actions) == 0 else len(actions[0])
    if length < num_context:
        raise ValueError(
            f"expected actions of all {num_context} context frames and of the frames to generate, (B, C + F, a), got "
            f"{length} per row; action_mask says which frames have none."
        )
    return length - num_context


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
    """Return the clean prediction (B,1,N_z,d_z) of a frame, from one pass over all frames so far."""
    frames = history.append(frame)
    levels = torch.full_like(frames.action_mask, schedule.context_signal_level_id, dtype=torch.int64)
    sizes = torch.zeros_like(levels)
    levels[:, -1], sizes[:, -1] = schedule.signal_level_id(step), schedule.step_size_id
    output = dynamics(frames.latents, levels, sizes, frames.actions, frames.action_mask)
    return output.latents[:, -1:].float()


class DreamerWorldRolloutMixin(DreamerGenerationMixin):
    """Generation in pixels, for [`DreamerWorldModel`]."""

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
        actions, action_mask = context_actions(pixel_values_videos, actions, action_mask)
        with torch.no_grad():
            latents = self.encode(pixel_values_videos).latents
        latent_rollout = self.dynamics.start_rollout(
            latents,
            actions,
            action_mask,
            schedule.num_inference_steps,
            schedule.context_signal_level,
            generator,
            context_noise,
        )
        return DreamerRollout(self, latent_rollout)

    @torch.no_grad()
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
        if is_start(pixel_values_videos):
            actions, action_mask = self._append_actions(pixel_values_videos, actions, action_mask)
        context = self.encode(pixel_values_videos).latents
        output = self.dynamics.generate(
            context,
            actions,
            action_mask,
            schedule.num_inference_steps,
            schedule.context_signal_level,
            generator,
            noise,
            use_cache,
        )
        latents = torch.cat([context.float(), output.latents], dim=1)
        frames = self._decode_by_frame(latents) if use_cache else self.tokenizer.decode(latents).pixel_values_videos
        return DreamerGenerateOutput(pixel_values_videos=frames[:, context.shape[1] :], latents=output.latents)

    def _append_actions(self, start, actions, action_mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Return actions (B,C+F,a) and mask (B,C+F): those of `StartFrames`, followed by those of the frames to come."""
        limits, shape = action_limits(self.config.dynamics_config, self.device), start.action_mask.shape
        future = prepare_actions(actions, action_mask, (shape[0], _num_frames(actions, 0)), limits)
        context = prepare_actions(start.actions, start.action_mask, shape, limits)
        return tuple(torch.cat(pair, dim=1) for pair in zip(context, future))

    def _decode_by_frame(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode (B,T,N_z,d_z) frame by frame: memory does not grow with the square of the length."""
        cache = self.tokenizer.new_decoder_cache(latents.shape[0])
        frames = [self.tokenizer.decode(frame, past_key_values=cache) for frame in latents.split(1, dim=1)]
        return torch.cat([frame.pixel_values_videos for frame in frames], dim=1)


__all__ = [
    "DreamerDynamicsRolloutMixin",
    "DreamerGenerateOutput",
    "DreamerGenerationConfig",
    "DreamerWorldRolloutMixin",
    "RolloutNoise",
]

"""`generate` and `start_rollout` of the dynamics model and of the world (arXiv 2509.24527, section 3.2).

`use_cache=False` is the plain reference: every pass sees the full history under the band mask, nothing is kept.

Shapes: B rows, C context frames, F generated frames, N_z latent tokens, d_z latent channels, S state components, a
action width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers.utils import ModelOutput

from .cache_dreamer import DreamerCache
from .camera_views import decode_cameras, encode_cameras
from .frame_inputs import (
    FrameInput,
    action_limits,
    checked_frames,
    context_actions,
    context_states,
    is_start,
    prepare_actions,
)
from .generation_config_dreamer import DreamerGenerationMixin
from .latent_rollout import DreamerLatentRollout, on_ordinary_tensors
from .rollout import DreamerRollout
from .rollout_frames import Context, FrameNoise, Frames, make_context
from .rollout_noise import Generators, draw_noise
from .scheduling_shortcut import RolloutSchedule


@dataclass
class DreamerGenerateOutput(ModelOutput):
    """Generated frames.

    Args:
        pixel_values_videos (`torch.FloatTensor` of shape `(B, F, 3, H, W)`, *optional*): in [0, 1]; None if a dynamics
            model alone generated them.
        latents (`torch.FloatTensor` of shape `(B, F, N_z, d_z)`): clean latents.
        states (`torch.FloatTensor` of shape `(B, F, S)`, *optional*): in the units of the data; None if the world has
            no state.
    """

    pixel_values_videos: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    states: torch.FloatTensor | None = None


@dataclass(frozen=True)
class RolloutNoise:
    """All the noise of a generation: context (B,C,N_z,d_z), start and commit (B,F,N_z,d_z).

    For a world with a state also that of the states: context (B,C,S), start and commit (B,F,S).
    """

    context: torch.Tensor
    start: torch.Tensor
    commit: torch.Tensor
    context_states: torch.Tensor | None = None
    start_states: torch.Tensor | None = None
    commit_states: torch.Tensor | None = None

    def of_frame(self, index: int) -> tuple[torch.Tensor | None, ...]:
        """Return the noise of a generated frame as `step` takes it: start and commit, then those of the states."""
        parts = self.start, self.commit, self.start_states, self.commit_states
        return tuple(None if part is None else part[:, index] for part in parts)

    @property
    def of_context(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The noise of latents and states of the context."""
        return self.context, self.context_states


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
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
        context_state_noise: torch.FloatTensor | None = None,
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
            states: (B,C,S) states of the context frames in the units of the training data, for a world that has a
                state. By default no context frame has one, and the world infers it from the frames.
            state_mask: (B,C) bool, False where a context frame has no state. By default every frame has one if
                `states` are given.
            context_state_noise: (B,C,S) noise of the states of the context; drawn by default, after `context_noise`.

        Returns:
            [`DreamerLatentRollout`]; any number of them can run side by side on one model.

        Raises:
            ValueError: a shape that does not fit, actions or states that are not finite, states for a world without
                one, or steps or a level that are not on the model's grid.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        context = make_context(latents, actions, action_mask, self, 0, states, state_mask)
        return DreamerLatentRollout(self, context, schedule, generator, context_noise, context_state_noise)

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
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
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
            states, state_mask: (B,C,S) and (B,C) of the context frames, as in `start_rollout`.

        Returns:
            [`DreamerGenerateOutput`] with `latents` (B,F,N_z,d_z) and, if the world has a state, `states` (B,F,S).

        Raises:
            ValueError: as in `start_rollout`.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        actions, action_mask = _prepare_all(actions, action_mask, latents.shape[:2], self.config, self.device)
        num_context = latents.shape[1]
        first = actions[:, :num_context], action_mask[:, :num_context]
        context = make_context(latents, *first, self, 0, states, state_mask)
        if use_cache:
            given = noise.of_context if noise else (None, None)
            rollout = DreamerLatentRollout(self, context, schedule, generator, *given)
            outputs = _step_through(rollout, actions, action_mask, noise)
            return _joined(outputs, context)
        noise = noise or draw_rollout_noise(context, actions.shape[1] - num_context, self.config.state_dim, generator)
        latents, states = _generate_uncached(self, context, actions, action_mask, schedule, noise)
        return DreamerGenerateOutput(latents=latents, states=states)


def draw_rollout_noise(context: Context, num_frames: int, state_dim: int, generator: Generators) -> RolloutNoise:
    """Draw noise in the order of a rollout: the context's, then each frame's; within both, that of states last."""
    latents = context.latents
    shapes = [latents.shape, (*latents.shape[:2], state_dim)] if state_dim else [latents.shape]
    first = [draw_noise(shape, generator, latents.device) for shape in shapes]
    drawn = []
    for _ in range(num_frames):
        frame = [shape[:1] + shape[2:] for shape in shapes for _ in range(2)]
        drawn.append([draw_noise(shape, generator, latents.device) for shape in frame])
    like = [part for part in first for _ in range(2)]
    stacked = [_stack([each[index] for each in drawn], part) for index, part in enumerate(like)]
    states = (first[1], *stacked[2:]) if state_dim else ()
    return RolloutNoise(first[0], *stacked[:2], *states)


def _joined(outputs: list, context: Context) -> DreamerGenerateOutput:
    """Return the latents and states of the frames of a rollout as one output."""
    states = None if context.states is None else _stack([output.state for output in outputs], context.states)
    return DreamerGenerateOutput(
        latents=_stack([output.latents for output in outputs], context.latents), states=states
    )


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
        given = () if noise is None else noise.of_frame(index)
        outputs.append(rollout.step(actions[:, num_context + index], action_mask[:, num_context + index], *given))
    return outputs


def _stack(frames: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Stack F frames (B,...) to (B,F,...); without any, return (B,0,...) of the type of `like` (B,C,...)."""
    return torch.stack(frames, dim=1) if frames else like[:, :0]


def _generate_uncached(
    dynamics, context: Context, actions, action_mask, schedule: RolloutSchedule, noise: RolloutNoise
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return generated latents (B,F,N_z,d_z) and states (B,F,S); every pass sees the full history."""
    device, num_context = dynamics.device, len(context)
    first = FrameNoise(*(None if part is None else part.to(device) for part in noise.of_context))
    history = context[:].to_noisy(first, schedule.context_signal_level)
    generated, states = [], []
    for index in range(actions.shape[1] - num_context):
        time = slice(num_context + index, num_context + index + 1)
        given = (None if part is None else part[:, None].to(device) for part in noise.of_frame(index))
        start, commit, start_states, commit_states = given
        mask = action_mask[:, time]
        has_state = None if start_states is None else torch.ones_like(mask)
        frame = Frames(start, actions[:, time], mask, start_states, has_state)
        for step in range(schedule.num_inference_steps):
            clean = _denoise_with_history(dynamics, history, frame, schedule, step)
            frame = frame.denoised(*clean, step, schedule.num_inference_steps)
        generated.append(frame.latents[:, 0])
        if frame.states is not None:
            states.append(dynamics.denormalize_states(frame.states[:, 0]))
        history = history.append(frame.to_noisy(FrameNoise(commit, commit_states), schedule.context_signal_level))
    states = None if context.states is None else _stack(states, context.states)
    return _stack(generated, context.latents), states


def _denoise_with_history(dynamics, history: Frames, frame: Frames, schedule: RolloutSchedule, step: int):
    """Return the clean prediction (B,1,N_z,d_z) of a frame and of its state, from one pass over all frames."""
    frames = history.append(frame)
    levels = torch.full_like(frames.action_mask, schedule.context_signal_level_id, dtype=torch.int64)
    sizes = torch.zeros_like(levels)
    levels[:, -1], sizes[:, -1] = schedule.signal_level_id(step), schedule.step_size_id
    conditions = levels, sizes, frames.actions, frames.action_mask
    output = dynamics(frames.latents, *conditions, states=frames.states, state_mask=frames.state_mask)
    return output.latents[:, -1:].float(), None if output.states is None else output.states[:, -1:]


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
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
        context_state_noise: torch.FloatTensor | None = None,
    ) -> DreamerRollout:
        """Start a dream from context frames.

        Args:
            pixel_values_videos: context frames (B,C,3,H,W), integer (0..255) or float in [0, 1], tensor or array; a
                list of PIL images (one clip); or `StartFrames`, which bring their actions, states and masks. C is at
                least 1.
            actions, action_mask, num_inference_steps, context_signal_level, generator, context_noise, states,
            state_mask,
            context_state_noise: as in [`DreamerDynamicsModel.start_rollout`].

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
        context = self.make_context(pixel_values_videos, actions, action_mask, states, state_mask)
        settings = schedule, generator, context_noise, context_state_noise
        return DreamerRollout(self, DreamerLatentRollout(self.dynamics, context, *settings))

    def checked_frames(self, frames: FrameInput) -> torch.Tensor:
        """Return context frames as a tensor, (B,C,3,H,W) or, with several cameras, (B,C,V,3,H,W)."""
        return checked_frames(frames, self.config.tokenizer_config, self.config.dynamics_config.camera_names)

    def num_needed_frames(self, has_agent: bool = False) -> int:
        """Return how many of the last context frames `make_context` encodes, because they can influence a rollout."""
        return self._num_needed_latents(has_agent) + self.tokenizer.encoder.transformer.reach

    def _num_needed_latents(self, has_agent: bool) -> int:
        # A rollout needs what the next frame sees; an agent knows what the last frame sees.
        dynamics = self.dynamics.transformer.reach + 2 * has_agent
        return max(dynamics, self.tokenizer.decoder.transformer.reach, 1)

    @on_ordinary_tensors
    def make_context(
        self,
        pixel_values_videos: FrameInput,
        actions=None,
        action_mask=None,
        states=None,
        state_mask=None,
        agent_tokens: torch.Tensor | None = None,
        encoder_cache: DreamerCache | None = None,
    ) -> Context:
        """Encode context frames, for `start_rollout` and `reset`; see there.

        Frames so long ago that they cannot influence a rollout are left out, and the others are encoded in chunks: a
        long context costs no more than the windows of the time layers need.

        Args:
            pixel_values_videos, actions, action_mask, states, state_mask: as in `start_rollout`.
            agent_tokens: (B,1,G,D), those of an agent that sees the rollout; None without one.
            encoder_cache: a new encoder cache, which has seen the frames then, to encode those that follow.
        """
        actions, action_mask = context_actions(pixel_values_videos, actions, action_mask)
        states = context_states(pixel_values_videos, states, state_mask, self.config.dynamics_config)
        frames, tokenizer = self.checked_frames(pixel_values_videos), self.tokenizer
        num_cameras = self.config.dynamics_config.num_cameras
        has_agent = agent_tokens is not None
        last = frames[:, -self.num_needed_frames(has_agent) :]
        cache = tokenizer.new_encoder_cache(len(last) * num_cameras) if encoder_cache is None else encoder_cache
        chunks = [last[:, chunk] for chunk in cache.chunks(last.shape[1])]
        # Without a cache one chunk is encoded as `encode` does it, bit for bit.
        cache = cache if len(chunks) > 1 or encoder_cache is not None else None
        latents = torch.cat([encode_cameras(tokenizer, chunk, cache).latents for chunk in chunks], dim=1)
        latents = latents[:, -self._num_needed_latents(has_agent) :]
        num_skipped = frames.shape[1] - latents.shape[1]
        return make_context(latents, actions, action_mask, self.dynamics, num_skipped, *states, agent_tokens)

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
        states: torch.FloatTensor | None = None,
        state_mask: torch.BoolTensor | None = None,
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
            states, state_mask: (B,C,S) and (B,C) of the context frames, as in `start_rollout`.

        Returns:
            [`DreamerGenerateOutput`] with `pixel_values_videos` (B,F,3,H,W) in [0, 1], `latents` (B,F,N_z,d_z) and, if
            the world has a state, `states` (B,F,S).

        Raises:
            ValueError: as in `start_rollout`.
        """
        schedule = self.rollout_schedule(num_inference_steps, context_signal_level)
        settings = schedule.num_inference_steps, schedule.context_signal_level, generator
        config, frames = self.config.dynamics_config, self.checked_frames(pixel_values_videos)
        num_context = frames.shape[1]
        if is_start(pixel_values_videos):
            actions, action_mask = _append_actions(pixel_values_videos, actions, action_mask, config, self.device)
        actions, action_mask = _prepare_all(actions, action_mask, frames.shape[:2], config, self.device)
        states, state_mask = context_states(pixel_values_videos, states, state_mask, config)
        if use_cache:
            first = frames, actions[:, :num_context], action_mask[:, :num_context]
            given = noise.of_context if noise else (None, None)
            rollout = self.start_rollout(*first, *settings, given[0], states, state_mask, given[1])
            outputs = _step_through(rollout, actions, action_mask, noise)
            output = _joined(outputs, rollout.latent_rollout.context)
            output.pixel_values_videos = _stack(
                [each.pixel_values for each in outputs], frames.to(self.device).float()
            )
            return output
        context = self.encode(frames).latents.float()
        conditions = actions, action_mask, *settings, noise
        output = self.dynamics.generate(context, *conditions, use_cache=False, states=states, state_mask=state_mask)
        frames = decode_cameras(self.tokenizer, torch.cat([context, output.latents], dim=1))
        output.pixel_values_videos = frames[:, num_context:]
        return output


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

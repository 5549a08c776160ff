"""Rollouts: the state of a dream, which lives in the object and never on a module (arXiv 2509.24527, section 3.2).

A rollout primes its caches with context frames, then every `step` denoises one frame and commits it. The commit pass
of a frame and the first denoising pass of the next one are one pass over two frames (time attention is causal, so
neither sees what it should not): four passes a frame instead of five.

Shapes: B rows, C context frames, N_z latent tokens, d_z latent channels, a action width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers.utils import ModelOutput

from .cache_dreamer import DreamerCache, row_indices
from .compile_rollout import compile_pass, dynamics_pass, warm_up
from .frame_inputs import action_limits, prepare_actions
from .rollout_noise import Generators, copy_generator, draw_noise, join_generators
from .scheduling_shortcut import RolloutSchedule, add_noise, euler_step


@dataclass
class DreamerRolloutOutput(ModelOutput):
    """One dreamt frame.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(B, 3, H, W)`, *optional*): the frame in [0, 1]; None in latent rollouts.
        latents (`torch.FloatTensor` of shape `(B, N_z, d_z)`): its clean latents.
    """

    pixel_values: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None


@dataclass(frozen=True)
class Frames:
    """Some frames of every row: latents (B,T,N_z,d_z), actions (B,T,a), action_mask (B,T) (False: no action)."""

    latents: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor

    def to_noisy(self, noise: torch.Tensor, signal_level: float) -> Frames:
        """The same frames at a signal level."""
        return replace(self, latents=add_noise(self.latents, noise, signal_level))

    def append(self, other: Frames) -> Frames:
        """These frames, then the other ones."""
        pairs = zip((self.latents, self.actions, self.action_mask), (other.latents, other.actions, other.action_mask))
        return Frames(*(torch.cat(pair, dim=1) for pair in pairs))

    def select(self, rows: torch.Tensor) -> Frames:
        """Return the same frames of some rows."""
        return Frames(self.latents[rows], self.actions[rows], self.action_mask[rows])

    @staticmethod
    def join(parts: Sequence[Frames]) -> Frames:
        """Return the rows of several batches of frames as one batch."""
        columns = zip(*((part.latents, part.actions, part.action_mask) for part in parts))
        return Frames(*(torch.cat(column) for column in columns))


def as_frames(latents: torch.Tensor, actions, action_mask, limits: torch.Tensor) -> Frames:
    """Return latents (B,T,N_z,d_z) as float32, with their actions (see `prepare_actions`)."""
    return Frames(latents.float(), *prepare_actions(actions, action_mask, latents.shape[:2], limits))


class DreamerLatentRollout:
    """A dream in latent space. Made by [`DreamerDynamicsModel.start_rollout`]; see there for the arguments.

    Attributes:
        frame_index: index of the frame that the next step dreams, the first context frame being 0.
        context: the frames that `reset` returns to; None after a `join` of contexts of different lengths.
        merge_commit: commit a frame together with the first denoising pass of the next one (four passes per frame
            instead of five, equal to rounding). Default: True; benchmarks switch it off.
    """

    def __init__(
        self,
        dynamics,
        context: Frames,
        schedule: RolloutSchedule,
        generator: Generators = None,
        context_noise: torch.Tensor | None = None,
    ):
        self.dynamics = dynamics
        self.schedule = schedule
        self.generator = generator
        self.merge_commit = True
        self._limits = action_limits(dynamics.config, dynamics.device)
        self._dynamics_pass = dynamics_pass
        self._cache: DreamerCache | None = None
        self._restart(context, context_noise)

    @property
    def batch_size(self) -> int:
        """Rows of the rollout."""
        return self._cache.batch_size

    @torch.no_grad()
    def step(self, actions, action_mask=None, start_noise=None, commit_noise=None) -> DreamerRolloutOutput:
        """Dreams one frame in every row.

        Args:
            actions: (B,a) raw actions in the data's units, the new frame's action tokens; None for no action.
            action_mask: (B,) bool, False where a row has no action.
            start_noise: (B,N_z,d_z) noise that the frame is made of; drawn if not given.
            commit_noise: (B,N_z,d_z) noise mixed into the frame when it becomes part of the past; drawn if not given.

        Returns:
            [`DreamerRolloutOutput`] with the frame's clean latents.

        Raises:
            ValueError: a shape that does not fit.
        """
        actions, action_mask = prepare_actions(actions, action_mask, (self.batch_size,), self._limits)
        start, commit_noise = self._noise(start_noise), self._noise(commit_noise)
        frame = Frames(start, actions[:, None], action_mask[:, None])
        for step in range(self.schedule.num_inference_steps):
            clean = self._denoise(frame, step)
            frame = replace(frame, latents=euler_step(frame.latents, clean, step, self.schedule.num_inference_steps))
        self._pending = frame.to_noisy(commit_noise, self.schedule.context_signal_level)
        if not self.merge_commit:
            self._commit_pending()
        self.frame_index += 1
        return DreamerRolloutOutput(latents=frame.latents[:, 0])

    @torch.no_grad()
    def reset(
        self, latents=None, actions=None, action_mask=None, rows=None, context_noise=None, generator: Generators = None
    ) -> torch.Tensor:
        """Starts over: from the first context (no latents given) or a new one, in all rows or in some.

        Args:
            latents: (B,C,N_z,d_z) clean context latents; with `rows`, one entry a row named there.
            actions, action_mask: (B,C,a) and (B,C), as in `start_rollout`.
            rows: indices of the rows to restart; the others go on undisturbed. None restarts the whole rollout.
            context_noise: as in `start_rollout`.
            generator: source of the noise from here on; with `rows`, one for each row named there, where the rollout
                was started with one a row. The old ones if not given.

        Returns:
            The clean context latents.

        Raises:
            ValueError: a shape or a number of generators that does not fit.
        """
        context = self._new_context(latents, actions, action_mask, rows)
        if generator is not None:
            self._replace_generators(generator, rows)
        if rows is None:
            self._restart(context, context_noise)
        else:
            self._restart_rows(torch.as_tensor(rows, device=context.latents.device), context, context_noise)
        return context.latents

    def compile(self) -> None:
        """Compiles the passes of a step, for this number of rows: minutes, with a progress bar; see
        [`DreamerRollout.compile`]."""
        self._dynamics_pass = compile_pass(dynamics_pass, self.dynamics)
        passes = ["denoising pass", "pass over two frames" if self.merge_commit else "commit pass"]
        warm_up(self._just_started().step, passes, self.dynamics.device)

    def clone(self, rows=None) -> DreamerLatentRollout:
        """An independent copy: branch the future, then step both. Given generators are copied with their state.

        Args:
            rows: indices of the rows to copy, repeated as often as wanted: `[0] * 64` is one dream in 64 copies, to
                try 64 futures in one batch. Such a copy is not compiled. None: all rows.
        """
        twin = copy.copy(self)
        twin.generator = copy_generator(self._generators_of(rows))
        if rows is None:
            twin._cache = self._cache.clone()
            return twin
        rows = row_indices(rows, self.batch_size, self.dynamics.device)
        twin._cache = self._cache.clone(rows)
        twin.context = None if self.context is None else self.context.select(rows)
        twin._pending = None if self._pending is None else self._pending.select(rows)
        twin._dynamics_pass = dynamics_pass
        return twin

    @staticmethod
    @torch.no_grad()
    def join(rollouts: Sequence[DreamerLatentRollout]) -> DreamerLatentRollout:
        """Return one rollout with the rows of several; see [`DreamerRollout.join`]."""
        first = rollouts[0]
        if any(each.dynamics is not first.dynamics or each.schedule != first.schedule for each in rollouts):
            raise ValueError("rollouts can be joined only if they share one model and one schedule.")
        joined = copy.copy(first)
        joined.generator, joined._dynamics_pass = join_generators(rollouts), dynamics_pass
        joined.frame_index = max(each.frame_index for each in rollouts)
        contexts = [each.context for each in rollouts]
        same_length = None not in contexts and len({context.latents.shape[1] for context in contexts}) == 1
        joined.context = Frames.join(contexts) if same_length else None
        if any(each._pending is None for each in rollouts):
            # Either all rows of a batch have an uncommitted frame, or none has.
            rollouts = [each if each._pending is None else each._committed_copy() for each in rollouts]
        joined._cache = DreamerCache.join([each._cache for each in rollouts])
        pending = [each._pending for each in rollouts]
        joined._pending = None if None in pending else Frames.join(pending)
        return joined

    def copy_(self, other: DreamerLatentRollout) -> None:
        """Becomes an independent copy of another rollout of this model and number of rows, in place; see
        [`DreamerRollout.copy_`]."""
        self._cache.copy_(other._cache)
        self.context, self._pending, self.frame_index = other.context, other._pending, other.frame_index
        self.generator, self.schedule = copy_generator(other.generator), other.schedule

    def _just_started(self) -> DreamerLatentRollout:
        """A copy to warm up with: its steps begin as those after a start or a restart, and draw noise of their own."""
        twin = self.clone()
        twin._pending, twin.generator = None, torch.Generator().manual_seed(0)
        return twin

    def _new_context(self, latents, actions, action_mask, rows) -> Frames:
        if latents is not None:
            return as_frames(latents, actions, action_mask, self._limits)
        if self.context is None:
            raise ValueError("rows with contexts of different lengths were joined here: reset needs a context.")
        return self.context if rows is None else self.context.select(rows)

    def _committed_copy(self) -> DreamerLatentRollout:
        twin = self.clone()
        twin._commit_pending()
        return twin

    def _generators_of(self, rows) -> Generators:
        """The generators of some rows (None: of all); a generator that all rows share is every row's."""
        if rows is None or not isinstance(self.generator, Sequence):
            return self.generator
        return [self.generator[int(row)] for row in rows]

    def _replace_generators(self, generator: Generators, rows) -> None:
        if rows is None:
            self.generator = generator
            return
        each_has_one = isinstance(self.generator, Sequence) and isinstance(generator, Sequence)
        if not each_has_one or len(generator) != len(rows):
            raise ValueError("rows get new generators only one by one: start the rollout with a list of one a row.")
        new = dict(zip((int(row) for row in rows), generator))
        self.generator = [new.get(row, old) for row, old in enumerate(self.generator)]

    def _restart(self, context: Frames, context_noise: torch.Tensor | None) -> None:
        self.context: Frames | None = context
        self._pending: Frames | None = None
        cache = self.dynamics.new_cache(context.latents.shape[0])
        self._prime(context, context_noise, cache, self.generator)
        self._cache = cache if self._cache is None else cache.in_place_of(self._cache)
        self.frame_index = context.latents.shape[1]

    def _restart_rows(self, rows: torch.Tensor, context: Frames, context_noise: torch.Tensor | None) -> None:
        if self._pending is not None:
            self._commit_pending()
        start = self._cache.next_position - context.latents.shape[1]
        cache = self.dynamics.new_cache(len(rows), start)
        self._prime(context, context_noise, cache, self._generators_of(rows))
        self._cache.replace_rows(rows, cache)

    @torch.no_grad()
    def _prime(
        self, context: Frames, noise: torch.Tensor | None, cache: DreamerCache, generator: Generators = None
    ) -> None:
        """Fills a cache with context frames at the context signal level."""
        if noise is None:
            noise = draw_noise(context.latents.shape, generator, context.latents.device)
        self._commit(context.to_noisy(noise, self.schedule.context_signal_level), cache, dynamics_pass)

    def _commit(self, frames: Frames, cache: DreamerCache, run) -> None:
        ids = torch.zeros_like(frames.action_mask, dtype=torch.int64)
        levels = ids + self.schedule.context_signal_level_id
        run(self.dynamics, frames.latents, levels, ids, frames.actions, frames.action_mask, cache, ids.shape[1])

    def _commit_pending(self) -> None:
        # Where commits are merged, one alone is rare (a row restarts), and not worth another minute of compiling.
        self._commit(self._pending, self._cache, dynamics_pass if self.merge_commit else self._dynamics_pass)
        self._pending = None

    def _denoise(self, frame: Frames, step: int) -> torch.Tensor:
        """One pass: the clean prediction (B,1,N_z,d_z) of the current frame; commits the pending one on the way."""
        levels = torch.full_like(frame.action_mask, self.schedule.signal_level_id(step), dtype=torch.int64)
        sizes = torch.full_like(levels, self.schedule.step_size_id)
        frames, num_commit = frame, 0
        if self._pending is not None:
            frames, num_commit = self._pending.append(frame), 1
            levels = torch.cat([torch.full_like(levels, self.schedule.context_signal_level_id), levels], dim=1)
            sizes = torch.cat([torch.zeros_like(sizes), sizes], dim=1)
            self._pending = None
        conditions = levels, sizes, frames.actions, frames.action_mask
        clean = self._dynamics_pass(self.dynamics, frames.latents, *conditions, self._cache, num_commit)
        return clean[:, -1:]

    def _noise(self, noise) -> torch.Tensor:
        """(B,N_z,d_z) noise, given or drawn, as one frame (B,1,N_z,d_z)."""
        config, device = self.dynamics.config, self.dynamics.device
        shape = (self.batch_size, config.num_latent_tokens, config.latent_dim)
        if noise is None:
            noise = draw_noise(shape, self.generator, device)
        elif tuple(noise.shape) != shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}: here it must be {shape}.")
        return noise.to(device)[:, None]


__all__ = ["DreamerLatentRollout", "DreamerRolloutOutput", "Frames", "as_frames"]

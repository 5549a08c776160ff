"""Rollouts in latent space (arXiv 2509.24527, section 3.2). Their state lives in the object and never on a module.

A rollout primes its cache with context frames. Then every `step` denoises one frame and commits it. The commit pass of
a frame and the first denoising pass of the next one are one pass over two frames (time attention is causal, so neither
sees what it should not): four passes per frame instead of five.

A rollout is a transaction: a call that fails or is refused leaves it unchanged, its noise included.

Shapes: B rows, R of them, C context frames, T frames, N_z latent tokens, d_z latent channels, S state
components, a action width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers.utils import ModelOutput

from .agent_rows import AgentRows
from .cache_dreamer import DreamerCache, row_indices
from .compile_rollout import agent_pass, compile_pass, dynamics_pass, warm_up
from .frame_inputs import action_limits, prepare_actions
from .rollout_frames import (
    Context,
    FrameNoise,
    Frames,
    checked_noise,
    make_context,
    noise_of_context,
    noise_or_draw,
)
from .rollout_noise import (
    Generators,
    check_generator,
    copy_generator,
    drawn_again_on_failure,
    join_generators,
)
from .scheduling_shortcut import RolloutSchedule


@dataclass
class DreamerRolloutOutput(ModelOutput):
    """One generated frame.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(B, 3, H, W)`, *optional*): the frame in [0, 1]; None in latent
            rollouts.
        latents (`torch.FloatTensor` of shape `(B, N_z, d_z)`): its clean latents.
        state (`torch.FloatTensor` of shape `(B, S)`, *optional*): its state in the units of the data; None if the
            world has no state.
        trust (`np.ndarray` of shape `(B,)`, *optional*): how far to believe it, in [0, 1]; only from a
            `TrustedRollout`.
    """

    pixel_values: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    state: torch.FloatTensor | None = None
    trust: np.ndarray | None = None


def on_ordinary_tensors(method: Callable) -> Callable:
    """Run a method without autograd. Within `torch.inference_mode`, too, its tensors can be changed outside of it."""
    return torch.inference_mode(False)(torch.no_grad()(method))


class DreamerLatentRollout:
    """A dream in latent space. Made by [`DreamerDynamicsModel.start_rollout`].

    Args:
        dynamics: the `DreamerDynamicsModel`.
        context: the frames to start from.
        schedule: the passes of a frame.
        generator, context_noise, context_state_noise: as in `start_rollout`.

    Attributes:
        generator: source of noise from here on.
        context: the frames that `reset` returns to; None after a `join` of contexts of different lengths.
        frame_index: index of the frame that the next step generates; the first context frame has index 0.
        merge_commit: commit a frame together with the first denoising pass of the next one (equal to rounding).
            Default: True; benchmarks switch it off, and it is False with an agent, which chooses the next action when
            a frame has been committed.
        agent: what the rollout holds of an agent in each row, if its context has agent tokens; otherwise None.

    Raises:
        ValueError: noise or generators that do not fit the context.
    """

    @on_ordinary_tensors
    def __init__(
        self,
        dynamics,
        context: Context,
        schedule: RolloutSchedule,
        generator: Generators = None,
        context_noise: torch.Tensor | None = None,
        context_state_noise: torch.Tensor | None = None,
    ):
        self.dynamics, self.schedule, self.generator = dynamics, schedule, generator
        self.merge_commit = context.agent_tokens is None
        self.context: Context | None = context
        self.frame_index = context.num_frames
        self._limits = action_limits(dynamics.config, dynamics.device)
        self._dynamics_pass, self._agent_pass = dynamics_pass, agent_pass
        self._pending: Frames | None = None  # generated, but not yet part of the cache
        check_generator(generator, len(context.latents))
        with drawn_again_on_failure(generator, dynamics.device):
            self._cache, self.agent = self._primed_cache(context, (context_noise, context_state_noise), generator)

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self._cache.batch_size

    @property
    def cache(self) -> DreamerCache:
        """The cache of the dynamics model, for measurements."""
        return self._cache

    @on_ordinary_tensors
    def step(
        self,
        actions,
        action_mask=None,
        start_noise=None,
        commit_noise=None,
        start_state_noise=None,
        commit_state_noise=None,
        known_latents=None,
    ) -> DreamerRolloutOutput:
        """Generate one frame in every row.

        Args:
            actions: (B,a) raw actions in the units of the training data, each for the new frame of a row; None for no
                action. Values outside the range of the training data are clipped to it.
            action_mask: (B,) bool, False where a row has no action. Default: every row has one.
            start_noise: (B,N_z,d_z) noise that the frame starts from; drawn by default.
            commit_noise: (B,N_z,d_z) noise mixed into the frame when it becomes part of the past; drawn by default.
            start_state_noise, commit_state_noise: (B,S), likewise for the state of a world that has one. They are
                drawn after those of the latents.
            known_latents: (B,N_z,d_z) clean latents of the frame, if it is known: then only its state is generated.

        Returns:
            [`DreamerRolloutOutput`] with the frame's clean latents, and its state if the world has one.

        Raises:
            ValueError: a shape that does not fit, or actions that are not finite.
        """
        actions, action_mask = prepare_actions(actions, action_mask, (self.batch_size,), self._limits)
        known = self._checked(known_latents)
        noise = [self._checked(each) for each in (start_noise, commit_noise)]
        state_noise = [self._checked(each, is_state=True) for each in (start_state_noise, commit_state_noise)]
        with self.undone_on_failure():
            frame, commit_noise = self._start_frame(noise, state_noise, actions[:, None], action_mask[:, None])
            for step in range(self.schedule.num_inference_steps):
                clean, states = self._denoise(frame, step)
                clean = clean if known is None else known[:, None]
                frame = frame.denoised(clean, states, step, self.schedule.num_inference_steps)
            self._pending = frame.to_noisy(commit_noise, self.schedule.context_signal_level)
            if not self.merge_commit:
                self._commit_pending()
            self.frame_index += 1
        state = None if frame.states is None else self.dynamics.denormalize_states(frame.states[:, 0])
        return DreamerRolloutOutput(latents=frame.latents[:, 0], state=state)

    @on_ordinary_tensors
    def observe(
        self,
        latents,
        actions,
        action_mask=None,
        states=None,
        state_mask=None,
        commit_noise=None,
        commit_state_noise=None,
    ) -> None:
        """Make a frame that is known, such as that of a real camera, the past of every row: nothing is generated.

        Args:
            latents: (B,N_z,d_z) clean latents of the frame.
            actions, action_mask: (B,a) and (B,), those that led to it; as in `step`.
            states, state_mask: (B,S) and (B,), its state in the units of the data, of a world that has one.
            commit_noise, commit_state_noise: as in `step`.

        Raises:
            ValueError: a shape that does not fit, or values that are not finite.
        """
        latents = self._checked(latents)
        rows = [None if part is None else torch.as_tensor(part)[:, None] for part in (actions, action_mask)]
        of_state = [None if part is None else torch.as_tensor(part)[:, None] for part in (states, state_mask)]
        tokens = None if self.agent is None else self.agent.tokens
        frame = make_context(latents[:, None], *rows, self.dynamics, 0, *of_state, tokens)
        noise = [self._checked(commit_noise), self._checked(commit_state_noise, is_state=True)]
        noise = [None if part is None else part[:, None] for part in noise]
        with self.undone_on_failure():
            if self._pending is not None:
                self._commit_pending()
            drawn = noise_of_context(*noise, frame, self.dynamics.config, self.generator, self.dynamics.device)
            self._pending = frame[:].to_noisy(drawn, self.schedule.context_signal_level)
            if not self.merge_commit:
                self._commit_pending()
            self.frame_index += 1

    def reset(
        self,
        latents=None,
        actions=None,
        action_mask=None,
        rows=None,
        context_noise=None,
        generator: Generators = None,
        states=None,
        state_mask=None,
    ) -> torch.Tensor:
        """Start again, from the first context or a new one, in all rows or in some.

        Args:
            latents: (B,C,N_z,d_z) clean context latents; with `rows`, (R,C,N_z,d_z). Default: the first context.
            actions, action_mask: (B,C,a) and (B,C), as in `start_rollout`.
            rows: R indices of the rows to restart; the others continue undisturbed. Default: all rows.
            context_noise: as in `start_rollout`.
            generator: source of noise from here on; with `rows`, one for each of them, if the rollout was started with
                one per row. Default: the present ones.
            states, state_mask: (B,C,S) and (B,C), as in `start_rollout`.

        Returns:
            Clean latents (B,C,N_z,d_z) of the context frames, of those that can influence the rollout.

        Raises:
            ValueError: a shape or a number of generators that does not fit, or indices that are not those of rows.
        """
        context = None
        if latents is not None:
            context = make_context(latents, actions, action_mask, self.dynamics, 0, states, state_mask)
        return self.restart(context, rows, context_noise, generator).latents

    @on_ordinary_tensors
    def restart(
        self, context: Context | None = None, rows=None, context_noise=None, generator: Generators = None
    ) -> Context:
        """Start again from a context made by `make_context`; see `reset`. Returns the context used."""
        if rows is not None:
            rows = row_indices(rows, self.batch_size, self.dynamics.device, unique=True)
        context = self.context_of(rows) if context is None else context
        if self.agent is not None and context.agent_tokens is None:  # the task stays the same
            tokens = self.agent.tokens if rows is None else self.agent.tokens[rows]
            context = replace(context, agent_tokens=tokens.expand(-1, len(context), -1, -1))
        if rows is None:
            check_generator(generator, len(context.latents))
            self._restart(context, context_noise, self.generator if generator is None else generator)
        else:
            self._check_row_generators(generator, rows)
            self._restart_rows(rows, context, context_noise, generator)
        return context

    def context_of(self, rows: torch.Tensor | None) -> Context:
        """Return the first context of some rows (None: of all).

        Raises:
            ValueError: rollouts with contexts of different lengths were joined.
        """
        if self.context is None:
            raise ValueError("rows with contexts of different lengths were joined here: reset needs a context.")
        return self.context if rows is None else self.context.select(rows)

    @on_ordinary_tensors
    def compile(self) -> None:
        """Compile the passes of a step for this number of rows; see [`DreamerRollout.compile`]."""
        compiled = compile_pass(dynamics_pass, self.dynamics)
        twin = self.clone()
        # Its first steps meet every kind of pass: without a pending frame first, then with one.
        twin._pending, twin.generator, twin._dynamics_pass = None, torch.Generator().manual_seed(0), compiled
        if self.agent is not None:
            twin._agent_pass = compile_pass(agent_pass, self.dynamics)
        names = ["denoising pass", "pass over two frames" if self.merge_commit else "commit pass"]
        warm_up(lambda: twin.step(None), names, self.dynamics.device)
        self._dynamics_pass, self._agent_pass = compiled, twin._agent_pass

    @on_ordinary_tensors
    def clone(self, rows=None) -> DreamerLatentRollout:
        """Return an independent copy; see [`DreamerRollout.clone`]."""
        twin = copy.copy(self)
        if rows is None:
            twin.generator, twin._cache = copy_generator(self.generator), self._cache.clone()
            return twin
        rows = row_indices(rows, self.batch_size, self.dynamics.device)
        twin.generator = copy_generator(self._generators_of(rows))
        twin._cache = self._cache.clone(rows)
        twin.context = None if self.context is None else self.context.select(rows)
        twin._pending = None if self._pending is None else self._pending.select(rows)
        twin.agent = None if self.agent is None else self.agent.select(rows)
        twin._dynamics_pass, twin._agent_pass = dynamics_pass, agent_pass
        return twin

    @staticmethod
    @on_ordinary_tensors
    def join(rollouts: Sequence[DreamerLatentRollout]) -> DreamerLatentRollout:
        """Return one rollout with the rows of several; see [`DreamerRollout.join`]."""
        if not rollouts:
            raise ValueError("expected at least one rollout to join.")
        first = rollouts[0]
        if any(each.dynamics is not first.dynamics or each.schedule != first.schedule for each in rollouts):
            raise ValueError("rollouts can be joined only if they share one model and one schedule.")
        if len({each.agent is None for each in rollouts}) > 1:
            raise ValueError("rollouts can be joined only if all of them have agent tokens, or none has.")
        joined = copy.copy(first)
        joined.generator = join_generators(
            [each.generator for each in rollouts], [each.batch_size for each in rollouts]
        )
        joined.frame_index = max(each.frame_index for each in rollouts)
        contexts = [each.context for each in rollouts]
        lengths = {None if context is None else (len(context), context.num_frames) for context in contexts}
        joined.context = Frames.join(contexts) if len(lengths) == 1 and None not in lengths else None
        if any(each._pending is None for each in rollouts):
            # Either all rows of a batch have an uncommitted frame, or none has.
            rollouts = [each if each._pending is None else each._committed_copy() for each in rollouts]
        joined._cache = DreamerCache.join([each._cache for each in rollouts])
        joined._pending = None if rollouts[0]._pending is None else Frames.join([each._pending for each in rollouts])
        if first.agent is not None:
            joined.agent = AgentRows.join([each.agent for each in rollouts])
        joined._dynamics_pass, joined._agent_pass = dynamics_pass, agent_pass
        return joined

    @on_ordinary_tensors
    def copy_(self, other: DreamerLatentRollout) -> None:
        """Become an independent copy of another rollout in place; see [`DreamerRollout.copy_`]."""
        if other.dynamics is not self.dynamics:
            raise ValueError("expected a rollout of the same model, got one of another: clone it instead.")
        if other.batch_size != self.batch_size:
            raise ValueError(
                f"expected a rollout of {self.batch_size} row(s), got one of {other.batch_size}: clone it instead."
            )
        if (other.agent is None) != (self.agent is None):
            raise ValueError("expected a rollout with agent tokens like this one: clone it instead.")
        self._cache.copy_(other._cache)
        self.context, self._pending, self.frame_index = other.context, other._pending, other.frame_index
        self.agent = other.agent
        self.generator, self.schedule = copy_generator(other.generator), other.schedule

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Bring the rollout back to where it was if the block, which may step it, fails."""
        pending, frame_index, agent = self._pending, self.frame_index, self.agent
        with drawn_again_on_failure(self.generator, self.dynamics.device), self._cache.undone_on_failure():
            try:
                yield
            except BaseException:
                self._pending, self.frame_index, self.agent = pending, frame_index, agent
                raise

    def _restart(self, context: Context, context_noise, generator: Generators) -> None:
        with drawn_again_on_failure(generator, self.dynamics.device):
            cache, agent = self._primed_cache(context, (context_noise, None), generator)
        if cache.batch_size != self.batch_size:
            self._dynamics_pass, self._agent_pass = dynamics_pass, agent_pass  # compiled for another number of rows
        self.agent = agent
        self._cache = cache.in_place_of(self._cache)
        self.context, self.generator = context, generator
        self._pending, self.frame_index = None, context.num_frames

    def _restart_rows(self, rows: torch.Tensor, context: Context, context_noise, generator: Generators) -> None:
        if len(context.latents) != len(rows):
            raise ValueError(f"expected a context of {len(rows)} row(s), as many as rows, got {len(context.latents)}.")
        source = self._generators_of(rows) if generator is None else generator
        with self.undone_on_failure(), drawn_again_on_failure(source, self.dynamics.device):
            if self._pending is not None:
                self._commit_pending()
            cache, agent = self._primed_cache(context, (context_noise, None), source, self._cache.next_position)
        self._cache.replace_rows(rows, cache)
        self.agent = None if agent is None else self.agent.with_rows(rows, agent)
        if generator is not None:
            new = dict(zip(rows.tolist(), generator))
            self.generator = [new.get(row, old) for row, old in enumerate(self.generator)]

    def _check_row_generators(self, generator: Generators, rows: torch.Tensor) -> None:
        check_generator(generator, len(rows))
        if generator is not None and not (isinstance(generator, Sequence) and isinstance(self.generator, Sequence)):
            raise ValueError("rows get new generators one by one: start the rollout with a list of one per row.")

    def _generators_of(self, rows: torch.Tensor) -> Generators:
        """Return the generators of some rows; a generator that all rows share is every row's."""
        if not isinstance(self.generator, Sequence):
            return self.generator
        return [self.generator[row] for row in rows.tolist()]

    def _committed_copy(self) -> DreamerLatentRollout:
        twin = self.clone()
        twin._commit_pending()
        return twin

    def _primed_cache(
        self, context: Context, noise: tuple, generator: Generators, end_position: torch.Tensor | None = None
    ) -> tuple[DreamerCache, AgentRows | None]:
        """Return a new cache that holds the context at the context signal level, and what an agent knows then.

        Args:
            noise: that of latents and states of the context; None for what is to be drawn.
            end_position: position of the frame after the context. Default: its number of frames.
        """
        dynamics = self.dynamics
        drawn = noise_of_context(*noise, context, dynamics.config, generator, dynamics.device)
        noisy = context.to_noisy(drawn[context.num_skipped :], self.schedule.context_signal_level)
        # An agent knows what the last two frames see, which is two frames more than the next one sees.
        needed = dynamics.transformer.reach + 2 * (context.agent_tokens is not None)
        noisy = noisy[-max(needed, 1) :]
        end_position = context.num_frames if end_position is None else end_position
        cache = dynamics.new_cache(len(context.latents), end_position - len(noisy))
        agent = None
        for chunk in cache.chunks(len(noisy)):
            agent = self._commit(noisy[chunk], cache, agent)
        return cache, agent

    def _commit(
        self,
        frames: Frames,
        cache: DreamerCache,
        agent: AgentRows | None,
        run: Callable = dynamics_pass,
        run_agent: Callable = agent_pass,
    ) -> AgentRows | None:
        """Commit frames, and return what the agent, if there is one, has then; `agent` is what it had before."""
        ids = torch.zeros_like(frames.action_mask, dtype=torch.int64)
        levels = ids + self.schedule.context_signal_level_id
        conditions = levels, ids, frames.actions, frames.action_mask
        tokens = frames.agent_tokens
        if tokens is None:
            run(self.dynamics, frames.latents, *conditions, cache, len(frames), *_states(frames))
            return None
        seen = None if agent is None else agent.seen
        states = run_agent(self.dynamics, frames.latents, *conditions, cache, tokens, seen, *_states(frames))
        return AgentRows(tokens[:, -1:], states)

    def _commit_pending(self) -> None:
        # Where commits are merged, one alone is rare (a row restarts), and not worth another minute of compiling.
        run = dynamics_pass if self.merge_commit else self._dynamics_pass
        self.agent = self._commit(self._pending, self._cache, self.agent, run, self._agent_pass)
        self._pending = None

    def _denoise(self, frame: Frames, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the clean prediction (B,1,N_z,d_z) of a frame from one pass, which also commits the pending frame,
        and that of its state (B,1,S) if there is one."""
        levels = torch.full_like(frame.action_mask, self.schedule.signal_level_id(step), dtype=torch.int64)
        sizes = torch.full_like(levels, self.schedule.step_size_id)
        frames, num_commit = frame, 0
        if self._pending is not None:
            frames, num_commit = self._pending.append(frame), 1
            levels = torch.cat([torch.full_like(levels, self.schedule.context_signal_level_id), levels], dim=1)
            sizes = torch.cat([torch.zeros_like(sizes), sizes], dim=1)
        conditions = levels, sizes, frames.actions, frames.action_mask
        clean = self._dynamics_pass(
            self.dynamics, frames.latents, *conditions, self._cache, num_commit, *_states(frames)
        )
        self._pending = None
        if frame.states is None:
            return clean[:, -1:], None
        return clean[0][:, -1:], clean[1][:, -1:]

    def _start_frame(
        self, noise: list, state_noise: list, actions: torch.Tensor, action_mask: torch.Tensor
    ) -> tuple[Frames, FrameNoise]:
        """Return the frame of noise that a step starts from, and the noise to commit it with.

        Args:
            noise, state_noise: those that are given, of the start and of the commit; None for what is to be drawn.
            actions, action_mask: (B,1,a) and (B,1).
        """
        start, commit = (self._drawn(each) for each in noise)
        frame = Frames(start, actions, action_mask, agent_tokens=None if self.agent is None else self.agent.tokens)
        if not self.dynamics.config.state_dim:
            return frame, FrameNoise(commit)
        start, commit_state = (self._drawn(each, is_state=True) for each in state_noise)
        return replace(frame, states=start, state_mask=torch.ones_like(action_mask)), FrameNoise(commit, commit_state)

    def _drawn(self, noise: torch.Tensor | None, is_state: bool = False) -> torch.Tensor:
        """Return noise of one frame, (B,1,N_z,d_z) or (B,1,S), the given one or a new one."""
        return noise_or_draw(noise, self._shape(is_state), self.generator, self.dynamics.device)[:, None]

    def _checked(self, values, is_state: bool = False) -> torch.Tensor | None:
        """Check given latents or noise, (B,N_z,d_z) or, of the state, (B,S)."""
        return checked_noise(values, self._shape(is_state), self.dynamics.device)

    def _shape(self, is_state: bool) -> tuple[int, ...]:
        config, rows = self.dynamics.config, self.batch_size
        return (rows, config.state_dim) if is_state else (rows, config.num_latent_tokens, config.latent_dim)


def _states(frames: Frames) -> tuple[torch.Tensor, ...]:
    """Return what a pass takes of the states of frames: nothing if there are none."""
    return () if frames.states is None else (frames.states, frames.state_mask)


__all__ = ["DreamerLatentRollout", "DreamerRolloutOutput", "on_ordinary_tensors"]

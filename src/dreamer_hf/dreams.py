"""Dreams of one world: started, stepped together, restarted, branched and rewound.

    dreams = Dreams(world, starts)
    first, second = dreams.begin([0, 3], seeds=[5, 6])   # at the start frames 0 and 3; a `Dream` each
    dreams.step([first, second], actions)                # raw actions (2, A); both in one batch
    dreams.step([second], actions[1:])                   # `first` waits, at no cost
    dreams.restart([first], [1], seeds=[7])              # in place: what was compiled stays compiled
    (branch,) = dreams.clone([first])                    # an independent dream with the same future
    dreams.rewind([first], [branch])                     # back to the state of `branch`, in place
    dreams.rollout([first, second]).compile()            # the rollout whose rows are these dreams, in this order

The world is a `DreamerWorldModel` (PyTorch) or an `OnnxWorld` (ONNX Runtime, without PyTorch). Latents are tensors of
the one, and NumPy arrays of the other.

Any set of dreams can be stepped. A set that stays the same keeps its rollout; when it changes, rows are taken out of
their rollouts and joined. To end a dream, drop it. Every row draws noise from its own generator, so a dream does not
depend on the others (except for rounding), and a seed determines its frames.

Shapes: R dreams, C context frames, A action components, H, W pixels, N_z latent tokens, d_z latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from .engines import engine_for
from .engines.world_engine import as_numpy, clip_actions, is_start
from .media import to_uint8
from .seeded_noise import SeededNoise
from .threads import ThreadChoice
from .trust import TrustedRollout

if TYPE_CHECKING:
    import torch

    from .modeling_dreamer_world import DreamerWorldModel
    from .onnx import OnnxRollout, OnnxStarts, OnnxWorld
    from .rollout import DreamerRollout
    from .start_frames import StartFrames
    from .trust import TrustModel


@dataclass(eq=False)
class Dream:
    """One dream: a row of a rollout, where it started, and what is seen now. Made and changed by `Dreams` only.

    Attributes:
        start: index of its start frames; None if it started from frames that were given.
        seed: seed of its noise.
        step: number of frames since its start frames.
        frame: uint8 (H, W, 3) RGB, the current frame; several cameras are side by side.
        action: float32 (A,), the raw action that led to `frame`, clipped to the range of the data; at the start, the
            last action of the start frames, or `ActionSpace.rest` if they have none.
        latents: (N_z, d_z), the clean latents of `frame`: a tensor on the world's device, or a NumPy array.
        state: float32 (S,), the state of `frame` in the units of the data, if the world has one; at the start, that of
            the start frames, or the mean of the training data if they have none.
        trust: how far to believe `frame`, in [0, 1], if the dreams have a trust model; 1 at the start.
        rollout, row: where the dream is kept.
    """

    rollout: DreamerRollout | OnnxRollout
    row: int
    start: int | None = None
    seed: int = 0
    step: int = 0
    frame: np.ndarray | None = None
    action: np.ndarray | None = None
    latents: torch.Tensor | np.ndarray | None = None
    state: np.ndarray | None = None
    trust: float | None = None


class Dreams:
    """Starts dreams of a world and steps any set of them as one batch.

    Args:
        world: a `DreamerWorldModel` in eval mode, or an `OnnxWorld`.
        starts: start frames that dreams can begin from; None if all dreams begin from frames that are given.
        num_inference_steps: denoising passes per frame, a power of two; None: as in `world.generation_config`.
        trust: gives every frame its trust, at the cost of one more dream and an encoder pass (see `trust`). Default:
            none.

    Attributes:
        engine: the world's `WorldEngine`.
        space: the world's actions.
        state_space: the world's state, of length 0 if it has none.
        frame_size: height and width of `Dream.frame`.
        fps: the world's frame rate.

    Raises:
        ValueError: the start frames do not fit the world, or it cannot dream with that number of passes.
    """

    def __init__(
        self,
        world: DreamerWorldModel | OnnxWorld,
        starts: StartFrames | OnnxStarts | None = None,
        num_inference_steps: int | None = None,
        trust: TrustModel | None = None,
    ):
        self.trust = trust
        self.world, self.engine = world, engine_for(world)
        self.starts = None if starts is None else self.engine.own_starts(starts)
        self.engine.check_num_inference_steps(num_inference_steps)
        self.num_inference_steps = num_inference_steps
        self.space, self.fps = self.engine.space, self.engine.fps
        self.state_space, self.frame_size = self.engine.state_space, self.engine.frame_size
        self._all: WeakSet[Dream] = WeakSet()
        self._reserved: dict[int, DreamerRollout] = {}  # by number of rows

    def reserve(self, sizes: Sequence[int], compile: bool = True) -> None:
        """Keep a rollout for each of these numbers of rows, and step every set of dreams in the smallest that holds
        it.

        Rows without a dream are padding: they dream along and nobody sees them. So nothing is compiled again while the
        set changes, as players of a server come and go. On a GPU, call this in the thread that steps the dreams: CUDA
        graphs belong to it.

        Args:
            sizes: numbers of rows. A set that is larger than all of them gets another rollout, not compiled.
            compile: compile the rollouts, which takes minutes for each size (`DreamerRollout.compile`).

        Raises:
            ValueError: there are no start frames, or rollouts of this world cannot be compiled.
            RuntimeError: this machine cannot compile.
        """
        if self.starts is None or (compile and not self.engine.can_compile):
            raise ValueError("only PyTorch worlds with start frames are compiled: choose --engine torch.")
        for size in sorted(set(sizes)):
            frames = self.starts.select([0] * size)
            rollout, _ = self._start_rollout(frames, [0] * size)
            if compile:
                rollout.compile()
            self._reserved[size] = rollout

    def begin(self, starts: Sequence[int] | StartFrames | OnnxStarts, seeds: Sequence[int]) -> list[Dream]:
        """Start R dreams as the rows of one new rollout.

        Args:
            starts: R indices of `self.starts`, or start frames of R rows.
            seeds: R seeds of the dreams' noise.

        Raises:
            ValueError: start frames that do not fit the world, or an index out of range.
        """
        frames = self._start_frames(starts)
        rollout, latents = self._start_rollout(frames, seeds)
        dreams = self._put(rollout, [Dream(rollout, row) for row in range(len(seeds))])
        self._show_start(dreams, starts, seeds, frames, latents)
        return dreams

    def restart(
        self, dreams: Sequence[Dream], starts: Sequence[int] | StartFrames | OnnxStarts, seeds: Sequence[int]
    ) -> None:
        """Start R dreams again, in place; arguments and errors as in `begin`.

        The dreams must be rows of one rollout, as after stepping together; its other rows continue undisturbed.
        """
        frames = self._start_frames(starts)
        rollout, rows = dreams[0].rollout, [dream.row for dream in dreams]
        assert all(dream.rollout is rollout for dream in dreams)
        rows = None if rows == list(range(rollout.batch_size)) else rows
        latents = rollout.reset(frames, rows=rows, generator=_generators(seeds))
        self._show_start(dreams, starts, seeds, frames, latents)

    def step(self, dreams: Sequence[Dream], actions: Sequence[np.ndarray]) -> None:
        """Dream one frame in each of R dreams, with raw actions (R, A).

        Raises:
            ValueError: actions of another shape, or not finite.
        """
        raw = clip_actions(np.stack(actions), len(dreams), self.engine.limits)
        rollout = self.rollout(dreams)
        padding = rollout.batch_size - len(dreams)
        output = rollout.step(np.pad(raw, ((0, padding), (0, 0)), mode="edge"))
        frames = to_uint8(self.engine.tile(output.pixel_values))
        for dream, frame, action, latents in zip(dreams, frames, raw, output.latents):
            dream.frame, dream.action, dream.latents, dream.step = frame, action, latents, dream.step + 1
        if len(self.state_space):
            for dream, state in zip(dreams, as_numpy(output.state)):
                dream.state = state
        if self.trust is not None:
            for dream, trust in zip(dreams, output.trust):
                dream.trust = float(trust)

    def choose_threads(self, dreams: Sequence[Dream], threads: int | None = None) -> ThreadChoice | None:
        """Set the number of CPU threads that suits stepping these dreams, without changing them.

        Args:
            dreams: the dreams that will step together.
            threads: a number to set without measuring.

        Returns:
            The choice, to be printed; None on a GPU, unless `threads` is given.
        """
        copies, actions = self.clone(dreams), [self.space.rest] * len(dreams)
        return self.engine.choose_threads(lambda: self.step(copies, actions), threads)

    def clone(self, dreams: Sequence[Dream]) -> list[Dream]:
        """Copy R dreams: the copies have the same future, and are the rows of one new rollout."""
        return self._put(self.rollout(dreams).clone(), [replace(dream) for dream in dreams])

    def rewind(self, dreams: Sequence[Dream], moments: Sequence[Dream]) -> None:
        """Bring R dreams back to the state of as many clones, in place; the clones do not change."""
        past = self.rollout(moments)
        past = past.clone() if self._reserved else past  # the reserved rollout may have to hold the dreams
        self.rollout(dreams).copy_(past)
        for dream, moment in zip(dreams, moments, strict=True):
            dream.start, dream.seed, dream.step = moment.start, moment.seed, moment.step
            dream.frame, dream.action, dream.latents = moment.frame, moment.action, moment.latents
            dream.state, dream.trust = moment.state, moment.trust

    def rollout(self, dreams: Sequence[Dream]) -> DreamerRollout | OnnxRollout:
        """Return the rollout whose rows are exactly these dreams, in this order; joins their rows if needed.

        After `reserve`, rows of padding may follow.
        """
        size = min((size for size in self._reserved if size >= len(dreams)), default=len(dreams))
        reserved, first = self._reserved.get(size), dreams[0].rollout
        in_place = all(dream.rollout is first and dream.row == row for row, dream in enumerate(dreams))
        if in_place and first.batch_size == size and reserved in (None, first):
            return first
        # What stays behind gets a rollout of one row, so that the old rollout can be freed.
        moved = {id(reserved), *(id(dream.rollout) for dream in dreams)}
        left = [dream for dream in self._all if id(dream.rollout) in moved and dream not in dreams]
        for dream in left:
            self._put(dream.rollout.clone(rows=[dream.row]), [dream])
        parts = [
            (rollout, [dream.row for dream in group])
            for rollout, group in groupby(dreams, lambda dream: dream.rollout)
        ]
        if size > len(dreams):
            parts.append((first, [dreams[0].row] * (size - len(dreams))))
        join = self.engine.join if self.trust is None else TrustedRollout.join
        joined = join([_take(rollout, rows) for rollout, rows in parts])
        if reserved is not None:
            reserved.copy_(joined)
            joined = reserved
        self._put(joined, dreams)
        return joined

    def _start_rollout(self, frames, seeds: Sequence[int]) -> tuple:
        """Return a rollout of start frames, and their latents."""
        rollout, latents = self.engine.start_rollout(frames, self.num_inference_steps, _generators(seeds))
        return rollout if self.trust is None else TrustedRollout(self.engine, rollout, self.trust), latents

    def _put(self, rollout, dreams: Sequence[Dream]) -> Sequence[Dream]:
        """Make the dreams the rows of a rollout."""
        for row, dream in enumerate(dreams):
            dream.rollout, dream.row = rollout, row
        self._all.update(dreams)
        return dreams

    def _start_frames(self, starts: Sequence[int] | StartFrames | OnnxStarts):
        return self.engine.own_starts(starts) if is_start(starts) else self.starts.select(starts)

    def _show_start(self, dreams: Sequence[Dream], starts, seeds, frames, latents) -> None:
        shown = np.moveaxis(as_numpy(self.engine.tile(frames.pixel_values_videos[:, -1])), 1, -1)
        states = self._states(frames)
        actions, known = as_numpy(frames.actions[:, -1]), as_numpy(frames.action_mask[:, -1])
        for row, dream in enumerate(dreams):
            dream.start = None if is_start(starts) else int(starts[row])
            dream.seed, dream.step, dream.frame, dream.latents = int(seeds[row]), 0, shown[row], latents[row, -1]
            dream.action = actions[row] if known[row] else self.space.rest
            dream.state = states[row] if len(self.state_space) else None
            dream.trust = None if self.trust is None else 1.0

    def _states(self, frames) -> np.ndarray:
        """Return the states (R, S) of the last of some start frames; where there is none, the mean of the data."""
        unknown = np.tile(self.state_space.mean, (len(frames), 1))
        if not len(self.state_space) or frames.states is None:
            return unknown
        states, known = as_numpy(frames.states[:, -1]), as_numpy(frames.state_mask[:, -1])
        return np.where(known[:, None], states, unknown)


def _generators(seeds: Sequence[int]) -> list[SeededNoise]:
    """Return one source of noise for each seed: a seed gives the same dream on every device and in every engine."""
    return [SeededNoise(int(seed)) for seed in seeds]


def _take(rollout, rows: list[int]):
    """Return some rows of a rollout; no copy is made of a rollout that is taken as a whole."""
    return rollout if rows == list(range(rollout.batch_size)) else rollout.clone(rows=rows)


__all__ = ["Dream", "Dreams"]

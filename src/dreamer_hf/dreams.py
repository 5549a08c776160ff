"""Dreams of one world: started, stepped together, restarted, branched and rewound.

    dreams = Dreams(world, starts)
    first, second = dreams.begin([0, 3], seeds=[5, 6])   # at the start frames 0 and 3; a `Dream` each
    dreams.step([first, second], actions)                # raw actions (2, A); both in one batch
    dreams.step([second], actions[1:])                   # `first` waits, at no cost
    dreams.restart([first], [1], seeds=[7])              # in place: what was compiled stays compiled
    (branch,) = dreams.clone([first])                    # an independent dream with the same future
    dreams.rewind([first], [branch])                     # back to the state of `branch`, in place
    dreams.rollout([first, second]).compile()            # the rollout whose rows are these dreams, in this order

Any set of dreams can be stepped. A set that stays the same keeps its rollout; when it changes, rows are taken out of
their rollouts and joined. To end a dream, drop it. Every row draws noise from its own generator, so a dream does not
depend on the others (except for rounding), and a seed determines its frames.

Shapes: R dreams, C context frames, A action components, H, W pixels, N_z latent tokens, d_z latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from weakref import WeakSet

import numpy as np
import torch

from .action_space import ActionSpace
from .camera_views import tile_cameras
from .frame_inputs import action_limits, prepare_actions
from .media import to_uint8
from .modeling_dreamer_world import DreamerWorldModel
from .rollout import DreamerRollout
from .seeded_noise import SeededNoise
from .start_frames import StartFrames
from .state_space import StateSpace
from .threads import ThreadChoice, choose_threads


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
        latents: (N_z, d_z), the clean latents of `frame`, on the world's device.
        state: float32 (S,), the state of `frame` in the units of the data, if the world has one; at the start, that of
            the start frames, or the mean of the training data if they have none.
        rollout, row: where the dream is kept.
    """

    rollout: DreamerRollout
    row: int
    start: int | None = None
    seed: int = 0
    step: int = 0
    frame: np.ndarray | None = None
    action: np.ndarray | None = None
    latents: torch.Tensor | None = None
    state: np.ndarray | None = None


class Dreams:
    """Starts dreams of a world and steps any set of them as one batch.

    Args:
        world: the model, in eval mode.
        starts: start frames that dreams can begin from; None if all dreams begin from frames that are given.
        num_inference_steps: denoising passes per frame, a power of two; None: as in `world.generation_config`.

    Attributes:
        space: the world's actions.
        state_space: the world's state, of length 0 if it has none.
        frame_size: height and width of `Dream.frame`.
        fps: the world's frame rate.

    Raises:
        ValueError: the start frames do not fit the world, or it cannot dream with that number of passes.
    """

    def __init__(
        self, world: DreamerWorldModel, starts: StartFrames | None = None, num_inference_steps: int | None = None
    ):
        if starts is not None:
            starts.check_fits(world.config)
        config = world.config.dynamics_config
        world.rollout_schedule(num_inference_steps)  # raises if it is impossible
        self.world, self.starts, self.num_inference_steps = world, starts, num_inference_steps
        self.space, self.fps = ActionSpace.from_config(config), config.fps
        self.state_space = StateSpace.from_config(config)
        height, width = world.config.tokenizer_config.frame_size
        self.frame_size = (height, width * config.num_cameras)
        self._limits = action_limits(config)
        self._all: WeakSet[Dream] = WeakSet()

    def begin(self, starts: Sequence[int] | StartFrames, seeds: Sequence[int]) -> list[Dream]:
        """Start R dreams as the rows of one new rollout.

        Args:
            starts: R indices of `self.starts`, or start frames of R rows.
            seeds: R seeds of the dreams' noise.

        Raises:
            ValueError: start frames that do not fit the world, or an index out of range.
        """
        frames = self._start_frames(starts)
        rollout = self.world.start_rollout(
            frames, num_inference_steps=self.num_inference_steps, generator=_generators(seeds)
        )
        dreams = self._put(rollout, [Dream(rollout, row) for row in range(len(seeds))])
        self._show_start(dreams, starts, seeds, frames, rollout.latent_rollout.context.latents)
        return dreams

    def restart(self, dreams: Sequence[Dream], starts: Sequence[int] | StartFrames, seeds: Sequence[int]) -> None:
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
        raw, _ = prepare_actions(np.stack(actions), None, (len(dreams),), self._limits)
        output = self.rollout(dreams).step(raw)
        frames = to_uint8(tile_cameras(output.pixel_values[:, None])[:, 0])
        for dream, frame, action, latents in zip(dreams, frames, raw.numpy(), output.latents):
            dream.frame, dream.action, dream.latents, dream.step = frame, action, latents, dream.step + 1
        if output.state is not None:
            for dream, state in zip(dreams, output.state.float().cpu().numpy()):
                dream.state = state

    def choose_threads(self, dreams: Sequence[Dream], threads: int | None = None) -> ThreadChoice | None:
        """Set the number of CPU threads that suits stepping these dreams, without changing them.

        Args:
            dreams: the dreams that will step together.
            threads: a number to set without measuring.

        Returns:
            The choice, to be printed; None on a GPU, unless `threads` is given.
        """
        if threads is None and self.world.device.type != "cpu":
            return None
        copies, actions = self.clone(dreams), [self.space.rest] * len(dreams)
        return choose_threads(lambda: self.step(copies, actions), threads)

    def clone(self, dreams: Sequence[Dream]) -> list[Dream]:
        """Copy R dreams: the copies have the same future, and are the rows of one new rollout."""
        return self._put(self.rollout(dreams).clone(), [replace(dream) for dream in dreams])

    def rewind(self, dreams: Sequence[Dream], moments: Sequence[Dream]) -> None:
        """Bring R dreams back to the state of as many clones, in place; the clones do not change."""
        self.rollout(dreams).copy_(self.rollout(moments))
        for dream, moment in zip(dreams, moments, strict=True):
            dream.start, dream.seed, dream.step = moment.start, moment.seed, moment.step
            dream.frame, dream.action, dream.latents = moment.frame, moment.action, moment.latents
            dream.state = moment.state

    def rollout(self, dreams: Sequence[Dream]) -> DreamerRollout:
        """Return the rollout whose rows are exactly these dreams, in this order; joins their rows if needed."""
        rollouts = {id(dream.rollout): dream.rollout for dream in dreams}
        first = dreams[0].rollout
        if len(rollouts) == 1 and [dream.row for dream in dreams] == list(range(first.batch_size)):
            return first
        # What stays behind gets a rollout of one row, so that the old rollout can be freed.
        left = [dream for dream in self._all if id(dream.rollout) in rollouts and dream not in dreams]
        for dream in left:
            self._put(dream.rollout.clone(rows=[dream.row]), [dream])
        parts = [
            (rollout, [dream.row for dream in group])
            for rollout, group in groupby(dreams, lambda dream: dream.rollout)
        ]
        joined = DreamerRollout.join([_take(rollout, rows) for rollout, rows in parts])
        self._put(joined, dreams)
        return joined

    def _put(self, rollout: DreamerRollout, dreams: Sequence[Dream]) -> Sequence[Dream]:
        """Make the dreams the rows of a rollout."""
        for row, dream in enumerate(dreams):
            dream.rollout, dream.row = rollout, row
        self._all.update(dreams)
        return dreams

    def _start_frames(self, starts: Sequence[int] | StartFrames) -> StartFrames:
        if isinstance(starts, StartFrames):
            starts.check_fits(self.world.config)
        else:
            starts = self.starts.select(starts)
        return starts

    def _show_start(self, dreams: Sequence[Dream], starts, seeds, frames: StartFrames, latents: torch.Tensor) -> None:
        shown = tile_cameras(frames.pixel_values_videos[:, -1:])[:, 0].permute(0, 2, 3, 1).cpu().numpy()
        states = self._states(frames)
        actions, known = frames.actions[:, -1].cpu().numpy(), frames.action_mask[:, -1].tolist()
        for row, dream in enumerate(dreams):
            dream.start = None if isinstance(starts, StartFrames) else int(starts[row])
            dream.seed, dream.step, dream.frame, dream.latents = int(seeds[row]), 0, shown[row], latents[row, -1]
            dream.action = actions[row] if known[row] else self.space.rest
            dream.state = states[row] if len(self.state_space) else None

    def _states(self, frames: StartFrames) -> np.ndarray:
        """Return the states (R, S) of the last of some start frames; where there is none, the mean of the data."""
        unknown = np.tile(self.state_space.mean, (len(frames), 1))
        if frames.states is None or not len(self.state_space):
            return unknown
        states, known = frames.states[:, -1].cpu().numpy(), frames.state_mask[:, -1].cpu().numpy()
        return np.where(known[:, None], states, unknown)


def _generators(seeds: Sequence[int]) -> list[SeededNoise]:
    """Return one source of noise for each seed: a seed gives the same dream on every device and in every engine."""
    return [SeededNoise(int(seed)) for seed in seeds]


def _take(rollout: DreamerRollout, rows: list[int]) -> DreamerRollout:
    """Return some rows of a rollout; no copy is made of a rollout that is taken as a whole."""
    return rollout if rows == list(range(rollout.batch_size)) else rollout.clone(rows=rows)


__all__ = ["Dream", "Dreams"]

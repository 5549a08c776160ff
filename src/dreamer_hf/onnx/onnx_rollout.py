"""Dreams on ONNX Runtime: the rollout of `dreamer_hf.rollout` with NumPy arrays.

Every row has its own clock, and always one frame that is generated but not yet part of the past: the first pass of a
step commits it together with the first denoising of the new frame. A call that fails leaves the rollout unchanged, its
noise included.

Shapes: B rows, R of them, C context frames, T frames, N_z latent tokens, d_z latent channels, S state components, a
action width, V cameras, H, W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..rollout_schedule import RolloutSchedule
from ..seeded_noise import SeededNoise, draw_normal, draw_normals
from .onnx_frames import LatentFrames, OnnxContext, camera_rows
from .ring import Ring, chunks

if TYPE_CHECKING:
    from .onnx_world import OnnxWorld


@dataclass
class OnnxRolloutOutput:
    """One generated frame.

    Attributes:
        pixel_values: float32 (B,3,H,W), the frame in [0, 1]; (B,V,3,H,W) for V cameras.
        latents: float32 (B,N_z,d_z), its clean latents.
        state: float32 (B,S), its state in the units of the data; None if the world has no state.
        trust: float32 (B,) in [0, 1], how far to believe it; only from a `TrustedRollout`.
    """

    pixel_values: np.ndarray
    latents: np.ndarray
    state: np.ndarray | None = None
    trust: np.ndarray | None = None


class OnnxRollout:
    """A dream in pixels. Made by [`OnnxWorld.start_rollout`]; see there for an example.

    Args:
        world: the `OnnxWorld`.
        context: the frames to start from.
        schedule: the passes of a frame.
        generator: one source of noise for each row.
        context_noise: float32 (B,C,N_z,d_z) noise of the context; drawn by default.
        context_state_noise: float32 (B,C,S) noise of its states, drawn after that of the latents by default.

    Attributes:
        world, schedule, generator: as given.
        context: the frames that `reset` returns to; None after a `join` of contexts of different lengths.
        frame_index: index of the frame that the next step generates; the first context frame has index 0.

    Raises:
        ValueError: noise or generators that do not fit the context.
    """

    def __init__(
        self,
        world: OnnxWorld,
        context: OnnxContext,
        schedule: RolloutSchedule,
        generator: Sequence[SeededNoise],
        context_noise: np.ndarray | None = None,
        context_state_noise: np.ndarray | None = None,
    ):
        self.world, self.schedule, self.generator = world, schedule, generator
        self.context: OnnxContext | None = context
        self.frame_index = context.num_frames
        noise = context_noise, context_state_noise
        self._ring, self._decoder_ring, self._pending = self._started(context, generator, noise)

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self._ring.batch_size

    def step(
        self,
        actions,
        action_mask=None,
        start_noise=None,
        commit_noise=None,
        start_state_noise=None,
        commit_state_noise=None,
    ) -> OnnxRolloutOutput:
        """Generate one frame in every row.

        Args:
            actions: (B,a) raw actions in the units of the training data, each for the new frame of a row; None for no
                action. Values outside the range of the training data are clipped to it.
            action_mask: (B,) bool, False where a row has no action. Default: every row has one.
            start_noise: (B,N_z,d_z) noise that the frame starts from; drawn by default.
            commit_noise: (B,N_z,d_z) noise mixed into the frame when it becomes part of the past; drawn by default.
            start_state_noise, commit_state_noise: (B,S), likewise for the state of a world that has one. They are
                drawn after those of the latents.

        Returns:
            [`OnnxRolloutOutput`].

        Raises:
            ValueError: a shape that does not fit, or actions that are not finite.
        """
        actions, action_mask = self.world.prepare_actions(actions, action_mask, (self.batch_size,))
        noise = [_checked_noise(each, self._noise_shape()) for each in (start_noise, commit_noise)]
        state_noise = [
            _checked_noise(each, self._noise_shape(is_state=True)) for each in (start_state_noise, commit_state_noise)
        ]
        with self._undone_on_failure():
            frame, commit_noise = self._start_frame(noise, state_noise, actions[:, None], action_mask[:, None])
            frame = self._denoise(frame)
            pixels = self.world.decode(frame.latents, self._decoder_ring)
        self._pending = frame.to_noisy(*commit_noise, self.schedule.context_signal_level)
        self.frame_index += 1
        state = None if frame.states is None else self.world.denormalize_states(frame.states[:, 0])
        return OnnxRolloutOutput(pixels[:, 0], frame.latents[:, 0], state)

    def reset(
        self,
        pixel_values_videos=None,
        actions=None,
        action_mask=None,
        rows=None,
        context_noise=None,
        generator: Sequence[SeededNoise] | None = None,
        states=None,
        state_mask=None,
    ) -> np.ndarray:
        """Start again, from the first context or a new one, in all rows or in some.

        Args:
            pixel_values_videos, actions, action_mask, states, state_mask: as in [`OnnxWorld.start_rollout`], for the
                rows that restart. Default: the first context.
            rows: R indices of the rows to restart; the others continue undisturbed. Default: all rows.
            context_noise: as in `start_rollout`.
            generator: sources of noise from here on, one for each row that restarts. Default: the present ones.

        Returns:
            Clean latents (B,C,N_z,d_z) of the context frames, of those that can influence the rollout.

        Raises:
            ValueError: frames, actions, noise or generators that do not fit, or indices that are not those of rows.
        """
        indices = None if rows is None else row_indices(rows, self.batch_size, unique=True)
        if pixel_values_videos is None:
            context = self._context_of(indices)
        else:
            context = self.world.make_context(pixel_values_videos, actions, action_mask, states, state_mask)
        count = len(context.latents)
        if indices is not None and count != len(indices):
            raise ValueError(f"expected a context of {len(indices)} row(s), as many as rows, got {count}.")
        if generator is None:
            generator = self.generator if indices is None else [self.generator[row] for row in indices]
        started = self._started(context, generator, (context_noise, None))
        if indices is None:
            self._ring, self._decoder_ring, self._pending = started
            self.context, self.generator, self.frame_index = context, list(generator), context.num_frames
            return context.latents
        ring, decoder_ring, pending = started
        self._ring.replace_rows(indices, ring)
        self._decoder_ring.replace_rows(camera_rows(indices, self.world.num_cameras), decoder_ring)
        self._pending = self._pending.with_rows(indices, pending)
        new = dict(zip(indices.tolist(), generator))
        self.generator = [new.get(row, old) for row, old in enumerate(self.generator)]
        return context.latents

    def clone(self, rows: Sequence[int] | None = None) -> OnnxRollout:
        """Return an independent copy: branch the future, then step both. Generators are copied with their state.

        Args:
            rows: indices of the rows to copy, in this order and as often as named. Default: all rows.

        Raises:
            ValueError: `rows` is empty or holds something else than indices of rows.
        """
        indices = np.arange(self.batch_size) if rows is None else row_indices(rows, self.batch_size)
        twin = copy.copy(self)
        twin._ring = self._ring.select(indices)
        twin._decoder_ring = self._decoder_ring.select(camera_rows(indices, self.world.num_cameras))
        twin._pending = self._pending.select(indices)
        twin.context = None if self.context is None else self.context.select(indices)
        twin.generator = [self.generator[row].copy() for row in indices]
        return twin

    @staticmethod
    def join(rollouts: Sequence[OnnxRollout]) -> OnnxRollout:
        """Return one rollout with the rows of several, in this order; they stay unchanged.

        Each row continues as it would have in its own rollout, to rounding, also if that one is at another frame. The
        `frame_index` of the result is the largest one; `reset` needs frames if the contexts had different lengths.

        Raises:
            ValueError: the rollouts are of different worlds or schedules.
        """
        if not rollouts:
            raise ValueError("expected at least one rollout to join.")
        first = rollouts[0]
        if any(each.world is not first.world or each.schedule != first.schedule for each in rollouts):
            raise ValueError("rollouts can be joined only if they share one world and one schedule.")
        joined = copy.copy(first)
        joined._ring = Ring.join([each._ring for each in rollouts])
        joined._decoder_ring = Ring.join([each._decoder_ring for each in rollouts])
        joined._pending = LatentFrames.join([each._pending for each in rollouts])
        joined.generator = [source.copy() for each in rollouts for source in each.generator]
        joined.frame_index = max(each.frame_index for each in rollouts)
        contexts = [each.context for each in rollouts]
        lengths = {None if context is None else (len(context), context.num_frames) for context in contexts}
        joined.context = OnnxContext.join(contexts) if len(lengths) == 1 and None not in lengths else None
        return joined

    def copy_(self, other: OnnxRollout) -> None:
        """Become an independent copy of another rollout, in place.

        Raises:
            ValueError: the other rollout is of another world, or has another number of rows.
        """
        if other.world is not self.world:
            raise ValueError("expected a rollout of the same world, got one of another: clone it instead.")
        if other.batch_size != self.batch_size:
            raise ValueError(
                f"expected a rollout of {self.batch_size} row(s), got one of {other.batch_size}: clone it instead."
            )
        vars(self).update(vars(other.clone()))

    def _context_of(self, rows: np.ndarray | None) -> OnnxContext:
        """Return the first context of some rows (None: of all)."""
        if self.context is None:
            raise ValueError("rows with contexts of different lengths were joined here: reset needs a context.")
        return self.context if rows is None else self.context.select(rows)

    def _started(
        self, context: OnnxContext, generator: Sequence[SeededNoise], noise: tuple
    ) -> tuple[Ring, Ring, LatentFrames]:
        """Return rings that have seen the context, and its last frame, which is not yet committed.

        Args:
            context: the frames.
            generator: one source of noise for each row.
            noise: that of latents and states of the context; None for what is to be drawn.
        """
        rows = len(context.latents)
        check_generators(generator, rows)
        with _drawn_again_on_failure(generator):
            drawn = self._context_noise(context, generator, *noise)
            noisy = context.to_noisy(*drawn, self.schedule.context_signal_level)
            dynamics, decoder = self.world.graphs["dynamics"], self.world.graphs["decoder"]
            frames = noisy[-max(dynamics.entry.reach, 1) :]
            ring = Ring(dynamics, rows, context.num_frames - len(frames))
            for chunk in chunks(len(frames) - 1, dynamics.entry.context_length):
                self._commit(ring, frames[: len(frames) - 1][chunk])
            latents = context.latents[:, -max(decoder.entry.reach, 1) :]
            decoder_rows = rows * self.world.num_cameras
            decoder_ring = Ring(decoder, decoder_rows, context.num_frames - latents.shape[1])
            for chunk in chunks(latents.shape[1] if decoder_ring.keys else 0, decoder.entry.context_length):
                self.world.decode(latents[:, chunk], decoder_ring)
        return ring, decoder_ring, frames[-1:]

    def _context_noise(
        self, context: OnnxContext, generator: Sequence[SeededNoise], noise, state_noise
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the noise of the context frames that are not skipped, given or drawn: of latents, then of states."""

        def of(noise, frame_shape: tuple[int, ...]) -> np.ndarray:
            shape = (context.num_frames, *frame_shape)
            noise = _checked_noise(noise, (len(context.latents), *shape))
            noise = draw_normal(generator, shape) if noise is None else noise
            return noise[:, context.num_skipped :]

        world = self.world
        latent_noise = of(noise, world.latent_shape)
        return latent_noise, of(state_noise, (len(world.state_space),)) if world.has_state else None

    def _start_frame(
        self, noise: list, state_noise: list, actions: np.ndarray, action_mask: np.ndarray
    ) -> tuple[LatentFrames, tuple[np.ndarray, np.ndarray | None]]:
        """Return the frame (T = 1) of noise that a step starts from, and the noise to commit it with.

        Args:
            noise, state_noise: those that are given, of the start and of the commit; None for what is to be drawn.
            actions, action_mask: (B,1,a) and (B,1).
        """
        start, commit = self._drawn(noise)
        frame = LatentFrames(start, actions, action_mask)
        if not self.world.has_state:
            return frame, (commit, None)
        states, commit_states = self._drawn(state_noise, is_state=True)
        return replace(frame, states=states, state_mask=np.ones_like(action_mask)), (commit, commit_states)

    def _drawn(self, given: Sequence[np.ndarray | None], is_state: bool = False) -> list[np.ndarray]:
        """Return noise of one frame, (B,1,N_z,d_z) or (B,1,S), the given one or, for None, a new one."""
        missing = sum(noise is None for noise in given)
        shape = self._noise_shape(is_state)[1:]
        drawn = iter(draw_normals(self.generator, shape, missing) if missing else ())
        return [(next(drawn) if noise is None else noise)[:, None] for noise in given]

    def _noise_shape(self, is_state: bool = False) -> tuple[int, ...]:
        world = self.world
        return (self.batch_size, *((len(world.state_space),) if is_state else world.latent_shape))

    def _commit(self, ring: Ring, frames: LatentFrames) -> None:
        """Make frames part of the past of a ring; their prediction is not needed."""
        if ring.keys:
            levels = np.full(frames.action_mask.shape, self.schedule.context_signal_level_id, np.int64)
            feeds = self._feeds(frames, levels, np.zeros_like(levels)) | ring.inputs(len(frames))
            ring.commit(ring.graph.run(feeds, ring.outputs), len(frames))
        else:
            ring.next_position += len(frames)

    def _denoise(self, frame: LatentFrames) -> LatentFrames:
        """Return a frame (T = 1) after K passes, the first of which commits the pending one."""
        steps, ring = self.schedule.num_inference_steps, self._ring
        predictions = ["clean", "clean_states"] if self.world.has_state else ["clean"]
        pair = self._pending.append(frame)
        levels = np.full(pair.action_mask.shape, self.schedule.context_signal_level_id, np.int64)
        sizes = np.zeros_like(levels)
        levels[:, 1], sizes[:, 1] = self.schedule.signal_level_id(0), self.schedule.step_size_id
        feeds = self._feeds(pair, levels, sizes) | ring.inputs(2)
        outputs = ring.graph.run(feeds, [*predictions, *ring.outputs])
        ring.commit(outputs[len(predictions) :], 1)
        clean = [output[:, 1:] for output in outputs[: len(predictions)]]
        frame = frame.moved_toward(*_pair(clean), steps)
        past = ring.inputs(1) if steps > 1 else {}
        sizes = sizes[:, 1:]
        for step in range(1, steps):
            levels = np.full_like(sizes, self.schedule.signal_level_id(step))
            clean = ring.graph.run(self._feeds(frame, levels, sizes) | past, predictions)
            frame = frame.moved_toward(*_pair(clean), steps - step)
        return frame

    def _feeds(self, frames: LatentFrames, levels: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        return frames.named | {"signal_level_ids": levels, "step_size_ids": sizes}

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        rings = self._ring.undone_on_failure(), self._decoder_ring.undone_on_failure()
        with _drawn_again_on_failure(self.generator), rings[0], rings[1]:
            yield


def row_indices(rows: Sequence[int], batch_size: int, unique: bool = False) -> np.ndarray:
    """Return indices of rows as an int64 array.

    Raises:
        ValueError: `rows` is empty, holds something else than indices of rows, or, with `unique`, holds one twice.
    """
    indices = np.asarray(rows)
    valid = indices.ndim == 1 and indices.size > 0 and np.issubdtype(indices.dtype, np.integer)
    valid = valid and 0 <= indices.min() <= indices.max() < batch_size
    if not valid or (unique and len(np.unique(indices)) < len(indices)):
        kind = "different indices" if unique else "indices"
        raise ValueError(f"expected one or more {kind} from 0 to {batch_size - 1} for rows, got {rows!r}.")
    return indices.astype(np.int64)


def check_generators(generator: Sequence[SeededNoise], num_rows: int) -> None:
    """Raise a ValueError unless there is one `SeededNoise` for each row."""
    if not isinstance(generator, Sequence) or not all(isinstance(each, SeededNoise) for each in generator):
        raise ValueError(f"expected a list of one SeededNoise per row for generator, got {generator!r}.")
    if len(generator) != num_rows:
        raise ValueError(f"expected one generator for each of {num_rows} rows, got {len(generator)}.")


@contextmanager
def _drawn_again_on_failure(generator: Sequence[SeededNoise]) -> Iterator[None]:
    states = [source.get_state() for source in generator]
    try:
        yield
    except BaseException:
        for source, state in zip(generator, states):
            source.set_state(state)
        raise


def _pair(predictions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return clean latents and clean states, None for a world without a state."""
    return predictions[0], predictions[1] if len(predictions) > 1 else None


def _checked_noise(noise, shape: tuple[int, ...]) -> np.ndarray | None:
    if noise is None:
        return None
    noise = np.asarray(noise, dtype=np.float32)
    if noise.shape != shape:
        raise ValueError(f"expected noise of shape {shape}, got {noise.shape}.")
    return noise


__all__ = ["OnnxRollout", "OnnxRolloutOutput", "row_indices"]

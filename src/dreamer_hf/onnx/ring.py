"""The past of the rows of a rollout: a ring of keys and values for each time layer, with a clock for each row.

Frame p of a row has slot `p % P`. A pass sees the ring and its own frames; the host then writes the frames that it
keeps into the ring. Because every row has its own clock, rows restart, leave and join without a change to the others.

Shapes: B rows, T frames of a pass, P frames of the ring, h head width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .graph_session import Graph

EMPTY_SLOT = -(2**40)
"""Position of a slot that holds no frame: so far in the past that no window reaches it."""

HIDDEN = np.float32(-1e9)
"""What the mask adds to the logits of keys that a frame does not see."""

MIN_CHUNK_FRAMES = 32
"""Fewest frames of the passes that a long sequence is split into."""


class Ring:
    """What a graph's time layers have seen, in B rows.

    Args:
        graph: the graph.
        batch_size: B.
        start_position: position of the next frame, in all rows.

    Attributes:
        next_position: (B,) int64, position of each row's next frame.
        slot_positions: (B,P) int64, positions of the frames in the ring, `EMPTY_SLOT` for none.
        keys, values: of each time layer, float32 (B, heads, P, h).
    """

    def __init__(self, graph: Graph, batch_size: int, start_position: int = 0):
        self.graph = graph
        frames, entry = graph.ring_frames, graph.entry
        self.next_position = np.full(batch_size, start_position, np.int64)
        self.slot_positions = np.full((batch_size, frames), EMPTY_SLOT, np.int64)
        shapes = [(batch_size, heads, frames, entry.head_dim) for heads in entry.cache_heads if frames]
        self.keys = [np.zeros(shape, np.float32) for shape in shapes]
        self.values = [np.zeros(shape, np.float32) for shape in shapes]

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.next_position)

    @property
    def _arrays(self) -> list[np.ndarray]:
        return [self.next_position, self.slot_positions, *self.keys, *self.values]

    def inputs(self, num_frames: int) -> dict[str, np.ndarray]:
        """Return the inputs of a pass over the next T frames that tell it about time and the past."""
        if not self.keys:
            return {}
        entry = self.graph.entry
        positions = self.next_position[:, None] + np.arange(num_frames)
        cosines, sines = rotary_tables(positions, entry.head_dim, entry.rope_theta)
        keys = np.concatenate([self.slot_positions, positions], axis=1)
        distance = positions[:, :, None] - keys[:, None, :]
        visible = (distance >= 0) & (distance < entry.context_length)
        feeds = {"cos": cosines, "sin": sines, "mask": np.where(visible, np.float32(0), HIDDEN)[:, None]}
        feeds |= {f"past_key_{layer}": array for layer, array in enumerate(self.keys)}
        return feeds | {f"past_value_{layer}": array for layer, array in enumerate(self.values)}

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of a graph that `commit` takes."""
        return [f"new_{kind}_{layer}" for kind in ("key", "value") for layer in range(len(self.keys))]

    def commit(self, new: Sequence[np.ndarray], num_frames: int) -> None:
        """Keep the first frames of a pass.

        Args:
            new: its keys of every time layer, (B, heads, T, h), then its values.
            num_frames: how many of its frames to keep.
        """
        for array, states in zip(self.keys + self.values, new):
            self._write(array, states, num_frames)
        if self.keys:
            kept = np.arange(max(0, num_frames - self.slot_positions.shape[1]), num_frames)
            positions = self.next_position[:, None] + kept
            np.put_along_axis(self.slot_positions, positions % self.slot_positions.shape[1], positions, axis=1)
        self.next_position += num_frames

    def _write(self, array: np.ndarray, states: np.ndarray, num_frames: int) -> None:
        """Write the first frames of a pass, (B, heads, T, h), into the slots of a layer's array."""
        size = array.shape[2]
        for frame in range(max(0, num_frames - size), num_frames):
            array[self._slots(frame)] = states[:, :, frame]

    def _slots(self, frame: int) -> tuple:
        """Return the index of the slots of a coming frame in the arrays of the layers."""
        slots = (self.next_position + frame) % self.slot_positions.shape[1]
        if (slots == slots[0]).all():  # as in rows that started together; a plain index is faster
            return slice(None), slice(None), int(slots[0])
        return np.arange(self.batch_size), slice(None), slots

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Undo what is committed in this block, one frame at most, if the block fails."""
        saved = self._next_slot()
        clock = self.next_position.copy(), self.slot_positions.copy()
        try:
            yield
        except BaseException:
            self.next_position[:], self.slot_positions[:] = clock
            for array, states in zip(self.keys + self.values, saved):
                self._write(array, states, 1)
            raise

    def _next_slot(self) -> list[np.ndarray]:
        """Return what the slots of the next frame hold, (B, heads, 1, h) for each array."""
        if not self.keys:
            return []
        slots = self._slots(0)
        return [array[slots][:, :, None].copy() for array in self.keys + self.values]

    def select(self, rows: np.ndarray) -> Ring:
        """Return an independent copy of some rows, in this order and as often as named."""
        twin = copy.copy(self)
        twin.next_position, twin.slot_positions = self.next_position[rows], self.slot_positions[rows]
        twin.keys, twin.values = ([array[rows] for array in arrays] for arrays in (self.keys, self.values))
        return twin

    def replace_rows(self, rows: np.ndarray, source: Ring) -> None:
        """Replace rows by those of another ring of the same graph, which has as many."""
        for ours, theirs in zip(self._arrays, source._arrays):
            ours[rows] = theirs

    @staticmethod
    def join(rings: Sequence[Ring]) -> Ring:
        """Return one ring with the rows of several."""
        joined = copy.copy(rings[0])
        joined.next_position = np.concatenate([ring.next_position for ring in rings])
        joined.slot_positions = np.concatenate([ring.slot_positions for ring in rings])
        joined.keys = [np.concatenate(parts) for parts in zip(*(ring.keys for ring in rings))]
        joined.values = [np.concatenate(parts) for parts in zip(*(ring.values for ring in rings))]
        return joined


def chunks(num_frames: int, context_length: int) -> Iterator[slice]:
    """Yield slices that split a sequence into the passes to give it in: the cost of a pass is quadratic."""
    length = max(context_length, MIN_CHUNK_FRAMES)
    for start in range(0, num_frames, length):
        yield slice(start, start + length)


def rotary_tables(positions: np.ndarray, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and signed sines, each float32 (*positions.shape, h), as `rotary.rotary_tables` does."""
    angles = positions[..., None] * theta ** -(np.arange(0, head_dim, 2) / head_dim)
    cosines, sines = np.cos(angles), np.sin(angles)
    return (
        np.concatenate([cosines, cosines], axis=-1).astype(np.float32),
        np.concatenate([-sines, sines], axis=-1).astype(np.float32),
    )


__all__ = ["Ring", "chunks"]

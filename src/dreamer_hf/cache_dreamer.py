"""The key-value cache of the time layers: a ring with static shapes, which the caller owns.

Space layers need no cache. A time layer keeps the keys and values of the last `context_length` frames plus one, so
that a pass over two frames (commit of frame t, first denoising of frame t+1) finds both of their windows. Frame `p`
has slot `p % capacity`; a pass that is not committed writes there too, and the next pass over the same frame
overwrites it. Nothing is ever moved, and every index is a tensor, so a step can be captured as one graph.

Shapes: B rows, T frames of a pass, K keys, N tokens of a frame, H_kv key-value heads, h head width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer

from .rotary import rotary_tables, rotate

# A slot that holds no frame yet: so far in the past that no window reaches it.
EMPTY_SLOT = -(2**40)

MIN_CHUNK_FRAMES = 32
"""Fewest frames of the passes that a long sequence is split into; see `DreamerCache.chunks`."""


@dataclass(frozen=True)
class TimePlan:
    """The positions of a pass in time and in the cache; made once per pass and read by every time layer.

    Attributes:
        positions: (T,) int64, the frames' positions.
        mask: (1 or B,1,T,K) additive mask of the time attention.
        slots: slots of the ring that the pass writes; None without a cache.
        written: the frames of the pass that go into those slots; None without a cache.
        in_place: whether attention reads only the ring; if not, the ring followed by the frames of the pass.
        commits: whether the cache keeps any of the frames.
    """

    positions: torch.Tensor
    mask: torch.Tensor
    slots: torch.Tensor | None = None
    written: slice | None = None
    in_place: bool = False
    commits: bool = False


def additive_mask(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return 0 where a boolean mask is True and the dtype's minimum elsewhere, as eager attention and SDPA take it.

    The result is contiguous even if the mask is a transpose: the fast attention kernels of a GPU take no other.
    """
    hidden = torch.zeros_like(visible, dtype=dtype, memory_format=torch.contiguous_format)
    return hidden.masked_fill_(~visible, torch.finfo(dtype).min)


def in_window(queries: torch.Tensor, keys: torch.Tensor, context_length: int) -> torch.Tensor:
    """Return (T,K) bool for positions (T,) and (K,): whether a key is in the window that ends at the query's frame."""
    distance = queries[:, None] - keys[None, :]
    return (distance >= 0) & (distance < context_length)


def uncached_plan(num_frames: int, context_length: int, dtype: torch.dtype, device: torch.device) -> TimePlan:
    """Return the plan of a pass over a whole sequence: a causal band."""
    positions = torch.arange(num_frames, device=device)
    visible = in_window(positions, positions, context_length)
    return TimePlan(positions, additive_mask(visible, dtype)[None, None])


def context_copies_plan(
    num_frames: int, num_copied_frames: int, context_length: int, dtype: torch.dtype, device: torch.device
) -> TimePlan:
    """Return the plan of a pass over a context of `num_copied_frames` frames, followed by copies of it.

    The context is a causal band. Frame t of a copy has the position of frame t of the context, and sees the context
    before t and itself: neither frame t of the context nor any other frame of a copy.
    """
    index = torch.arange(num_frames, device=device)
    positions = index % num_copied_frames
    is_context = index < num_copied_frames
    visible = in_window(positions, positions, context_length) & is_context
    visible &= is_context[:, None] | (positions[:, None] > positions)
    visible |= index[:, None] == index
    return TimePlan(positions, additive_mask(visible, dtype)[None, None])


class RingLayer(CacheLayerMixin):
    """Keys and values of one time layer, each (B, N * H_kv, capacity, h)."""

    is_compileable = True

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, heads, _, width = key_states.shape
        self.keys = key_states.new_zeros(batch, heads, self.capacity, width)
        self.values = value_states.new_zeros(batch, heads, self.capacity, width)
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, plan: TimePlan):
        """Write the frames of a pass, each (B, N * H_kv, T, h), and return the keys and values that it attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        ring = self._ring(key_states.shape[1], plan.commits)
        pairs = tuple(zip(ring, (key_states, value_states)))
        if plan.in_place:
            self._write(pairs, plan)
            return tuple(past.to(new.dtype) for past, new in pairs)
        # The new frames do not fit into the ring: attend to both, then keep the last ones.
        attended = tuple(torch.cat([past.to(new.dtype), new], 2) for past, new in pairs)
        self._write(pairs, plan)
        return attended

    def _ring(self, width: int, commits: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of the first `width` of N * H_kv.

        An agent's tokens come last in a frame, and no other token sees them. So a pass that commits nothing can leave
        them out.
        """
        full = self.keys.shape[1]
        if width == full:
            return self.keys, self.values
        if width > full or commits:
            raise ValueError(
                "a cache holds agent tokens of all frames, or of none: give them to every pass that commits frames, "
                "or start with a new cache."
            )
        return self.keys[:, :width], self.values[:, :width]

    @staticmethod
    def _write(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], plan: TimePlan) -> None:
        for ring, new in pairs:
            ring.index_copy_(2, plan.slots, new[:, :, plan.written].to(ring.dtype))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.capacity, 0

    def get_seq_length(self) -> int:
        raise NotImplementedError("a ring layer does not count frames: ask the DreamerCache.")

    def get_max_length(self) -> int:
        return self.capacity


class DreamerCache(Cache):
    """Cache of one space-time transformer. The caller makes it, passes it to every pass, and owns it.

    Args:
        num_layers: number of layers of the transformer.
        time_every: every layer with a number divisible by this is a time layer.
        context_length: number of frames that a time layer sees, including the current one.
        batch_size: number of rows, each of which can be restarted alone. Default: 1.
        device: default: the CPU.
        start_position: position of the first frame. Positions are relative, so any integer will do. Default: 0.
        rope_theta: base of the rotary embedding of the keys, which `join` rotates further. Default: 10000.

    All rows share one clock. A row that was restarted has a later start than the others: `row_starts` hides what the
    ring holds from before.
    """

    def __init__(
        self,
        num_layers: int,
        time_every: int,
        context_length: int,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        start_position: int | torch.Tensor = 0,
        rope_theta: float = 10000.0,
    ):
        self.context_length = context_length
        self.rope_theta = rope_theta
        self.capacity = context_length + 1
        is_time = [(index + 1) % time_every == 0 for index in range(num_layers)]
        super().__init__(layers=[RingLayer(self.capacity) if time else DummyLayer() for time in is_time])
        self.next_position = torch.as_tensor(start_position, dtype=torch.int64, device=device).clone()
        self.slot_positions = torch.full((self.capacity,), EMPTY_SLOT, dtype=torch.int64, device=device)
        self.row_starts = self.next_position.repeat(batch_size)

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.row_starts.shape[0]

    @property
    def ring_layers(self) -> list[RingLayer]:
        """The caches of the time layers."""
        return [layer for layer in self.layers if isinstance(layer, RingLayer)]

    def plan(self, num_frames: int, num_commit_frames: int, dtype: torch.dtype) -> TimePlan:
        """Return the plan of a pass over the next `num_frames` frames; the first `num_commit_frames` are to be kept.

        Up to two frames fit into the ring together with the window of the first one. More are attended to next to the
        ring.
        """
        positions = self.next_position + torch.arange(num_frames, device=self.next_position.device)
        if num_frames <= self.capacity - self.context_length + 1:
            slots, written = positions % self.capacity, slice(None)
            self.slot_positions.index_copy_(0, slots, positions)
            mask = self._mask(positions, self.slot_positions, dtype)
            return TimePlan(positions, mask, slots, written, in_place=True, commits=num_commit_frames > 0)
        # What an earlier pass left uncommitted in the ring is not part of the past.
        past = self.slot_positions.masked_fill(self.slot_positions >= self.next_position, EMPTY_SLOT)
        mask = self._mask(positions, torch.cat([past, positions]), dtype)
        written = slice(max(0, num_commit_frames - self.capacity), num_commit_frames)
        slots = positions[written] % self.capacity
        self.slot_positions.index_copy_(0, slots, positions[written])
        return TimePlan(positions, mask, slots, written, commits=num_commit_frames > 0)

    def _mask(self, queries: torch.Tensor, keys: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        visible = in_window(queries, keys, self.context_length)[None] & (keys >= self.row_starts[:, None])[:, None]
        return additive_mask(visible, dtype)[:, None]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, plan: TimePlan):
        """Write the keys and values of a pass in one time layer, and return those to attend to."""
        return self.layers[layer_idx].update(key_states, value_states, plan)

    def advance(self, num_commit_frames: int) -> None:
        """End a pass: its first `num_commit_frames` frames now belong to the past."""
        self.next_position.add_(num_commit_frames)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of frames in row 0 since its start (waits for the device)."""
        return int(self.next_position - self.row_starts[0])

    def chunks(self, num_frames: int) -> Iterator[slice]:
        """Yield slices that split a sequence into the passes to give it in.

        A pass attends to the ring and to all of its frames, so the cost of one long pass is quadratic.
        """
        length = max(self.context_length, MIN_CHUNK_FRAMES)
        for start in range(0, num_frames, length):
            yield slice(start, start + length)

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Undo what the passes in this block have committed if the block fails.

        What they wrote into the ring stays there. No window includes it, and the next pass overwrites it.
        """
        position = self.next_position.clone()
        try:
            yield
        except BaseException:
            self.next_position.copy_(position)
            raise

    def replace_rows(self, rows: torch.Tensor, source: DreamerCache) -> None:
        """Replace rows by those of `source`, a cache of `len(rows)` rows that ends at the same position."""
        for layer, new in zip(self.ring_layers, source.ring_layers):
            layer.keys.index_copy_(0, rows, new.keys.to(layer.keys.dtype))
            layer.values.index_copy_(0, rows, new.values.to(layer.values.dtype))
        # Rows share the slots' positions; a slot that only the new rows have filled is hidden from the others by
        # their own start.
        torch.maximum(self.slot_positions, source.slot_positions, out=self.slot_positions)
        self.row_starts.index_copy_(0, rows, source.row_starts)

    def copy_(self, other: DreamerCache) -> None:
        """Copy another cache with as many rows into this one, in place: CUDA graphs write where they were recorded."""
        for ours, theirs in zip(self.ring_layers, other.ring_layers):
            ours.keys.copy_(theirs.keys)
            ours.values.copy_(theirs.values)
        for name in ("next_position", "slot_positions", "row_starts"):
            getattr(self, name).copy_(getattr(other, name))

    def in_place_of(self, old: DreamerCache) -> DreamerCache:
        """Return this cache in the memory of an old one with as many rows, which need not be compiled again."""
        if old.batch_size != self.batch_size:
            return self
        old.copy_(self)
        return old

    def clone(self, rows: Sequence[int] | torch.Tensor | None = None) -> DreamerCache:
        """Return an independent copy.

        Args:
            rows: indices of the rows to copy, in this order and as often as named; all rows by default.

        Raises:
            ValueError: `rows` is empty or holds something else than indices of rows.
        """
        if rows is not None:
            rows = row_indices(rows, self.batch_size, self.row_starts.device)
        twin = copy.copy(self)
        twin.layers = [copy.copy(layer) for layer in self.layers]
        for layer in twin.ring_layers:
            if layer.is_initialized:
                layer.keys, layer.values = _copy_rows(layer.keys, rows), _copy_rows(layer.values, rows)
        twin.next_position, twin.slot_positions = self.next_position.clone(), self.slot_positions.clone()
        twin.row_starts = _copy_rows(self.row_starts, rows)
        return twin

    @staticmethod
    def join(caches: Sequence[DreamerCache]) -> DreamerCache:
        """Return one cache with the rows of several caches of one transformer, which stay unchanged.

        The rows of a cache share one clock, so the new one takes the latest of theirs.
        """
        end = max(int(cache.next_position) for cache in caches)
        caches = [cache._shift(end - int(cache.next_position)) for cache in caches]
        joined = caches[0].clone()
        for layer, *parts in zip(joined.ring_layers, *(cache.ring_layers for cache in caches)):
            layer.keys = torch.cat([part.keys for part in parts])
            layer.values = torch.cat([part.values for part in parts])
        # As in `replace_rows`: a slot that only some rows have filled is hidden from the others by their own start.
        joined.slot_positions = torch.stack([cache.slot_positions for cache in caches]).amax(0)
        joined.row_starts = torch.cat([cache.row_starts for cache in caches])
        return joined

    def _shift(self, distance: int) -> DreamerCache:
        """Return this cache with its clock `distance` frames later.

        Rotary positions are relative: keys rotated by the distance, and moved in the ring by as many slots, are those
        that the same frames would have there (exact to rounding).
        """
        if distance == 0:
            return self
        twin = self.clone()
        angle, places = torch.tensor([distance], device=self.next_position.device), distance % self.capacity
        for layer in twin.ring_layers:
            tables = rotary_tables(angle, layer.keys.shape[-1], self.rope_theta, torch.float32)
            keys = rotate(layer.keys.float(), tables).to(layer.keys.dtype)
            layer.keys, layer.values = keys.roll(places, 2), layer.values.roll(places, 2)
        twin.slot_positions = (twin.slot_positions + distance).roll(places)
        twin.next_position += distance
        twin.row_starts += distance
        return twin


def row_indices(
    rows: Sequence[int] | torch.Tensor, batch_size: int, device: torch.device, unique: bool = False
) -> torch.Tensor:
    """Return indices of rows as an int64 tensor on a device.

    Raises:
        ValueError: `rows` is empty, holds something else than indices of rows, or, with `unique`, holds one twice.
    """
    indices = np.asarray(rows.cpu() if isinstance(rows, torch.Tensor) else rows)
    valid = indices.ndim == 1 and indices.size > 0 and np.issubdtype(indices.dtype, np.integer)
    valid = valid and 0 <= indices.min() <= indices.max() < batch_size
    if not valid or (unique and len(np.unique(indices)) < len(indices)):
        kind = "different indices" if unique else "indices"
        raise ValueError(f"expected one or more {kind} from 0 to {batch_size - 1} for rows, got {rows!r}.")
    return torch.as_tensor(indices, dtype=torch.int64, device=device)


def _copy_rows(states: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return states.clone() if rows is None else states.index_select(0, rows)


__all__ = ["DreamerCache", "TimePlan", "additive_mask", "context_copies_plan", "row_indices", "uncached_plan"]

"""Rows that hold still: takes single rows out of a batched rollout, and joins rollouts into a batch.

The rows of a rollout share one clock, so a step moves all of them. A row that has to wait is taken out, and put back
when it goes on, beside rows whose clocks show another time by then. Rotary positions are relative: turning a row's
cached keys on by the difference, and moving them on in the ring, is all that it takes (to rounding).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from .cache_dreamer import DreamerCache
from .modeling_layers import rotary_tables, rotate
from .rollout import DreamerLatentRollout, DreamerRollout, Frames


@torch.no_grad()
def take_row(rollout: DreamerRollout, row: int) -> DreamerRollout:
    """One row as a rollout of its own, which goes on as the row would have.

    It draws noise from the rollout's own generator: pass the row's noise to `step` where rows have noise of their own.
    """
    rows = slice(row, row + 1)
    latent = copy.copy(rollout.latent_rollout)
    latent._cache = _cache_rows(latent._cache, rows)
    latent._context = _frame_rows(latent._context, rows)
    latent._pending = None if latent._pending is None else _frame_rows(latent._pending, rows)
    taken = copy.copy(rollout)
    taken.latent_rollout = latent
    taken._context_latents = rollout._context_latents[rows]
    taken._decoder_cache = _cache_rows(rollout._decoder_cache, rows)
    return taken


@torch.no_grad()
def join_rows(rollouts: Sequence[DreamerRollout]) -> DreamerRollout:
    """Joins rollouts of one world and one schedule into one batch, their rows in the order given.

    The given rollouts must not be stepped any more. The batch cannot `reset` to its first context, which is not of the
    same length in every row; its `frame_index` is that of the rollout that has gone furthest.
    """
    if len(rollouts) == 1:
        return rollouts[0]
    first = rollouts[0]
    dynamics, tokenizer = first.world.config.dynamics_config, first.world.config.tokenizer_config
    latents = [rollout.latent_rollout for rollout in rollouts]
    _agree_on_pending(latents)
    joined = copy.copy(first)
    joined.latent_rollout = copy.copy(first.latent_rollout)
    joined.latent_rollout._cache = _join_caches([latent._cache for latent in latents], dynamics)
    joined.latent_rollout._context = _join_frames([_without_time(latent._context) for latent in latents])
    joined._context_latents = joined.latent_rollout._context.latents
    joined.latent_rollout.frame_index = max(latent.frame_index for latent in latents)
    if first.latent_rollout._pending is not None:
        joined.latent_rollout._pending = _join_frames([latent._pending for latent in latents])
    joined._decoder_cache = _join_caches([rollout._decoder_cache for rollout in rollouts], tokenizer)
    return joined


def _agree_on_pending(latents: Sequence[DreamerLatentRollout]) -> None:
    """All rows of a batch have an uncommitted frame, or none has: where only some do, commits theirs."""
    pending = [latent for latent in latents if latent._pending is not None]
    if len(pending) < len(latents):
        for latent in pending:
            latent._commit_pending()


def _frame_rows(frames: Frames, rows: slice) -> Frames:
    return Frames(frames.latents[rows], frames.actions[rows], frames.action_mask[rows])


def _without_time(frames: Frames) -> Frames:
    """None of the frames of every row."""
    return Frames(frames.latents[:, :0], frames.actions[:, :0], frames.action_mask[:, :0])


def _join_frames(frames: Sequence[Frames]) -> Frames:
    columns = zip(*((frame.latents, frame.actions, frame.action_mask) for frame in frames))
    return Frames(*(torch.cat(column) for column in columns))


def _cache_rows(cache: DreamerCache, rows: slice) -> DreamerCache:
    """Some rows of a cache, copied."""
    taken = copy.copy(cache)
    taken.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in taken.ring_layers:
        layer.keys, layer.values = layer.keys[rows].clone(), layer.values[rows].clone()
    taken.next_position, taken.slot_positions = cache.next_position.clone(), cache.slot_positions.clone()
    taken.row_starts = cache.row_starts[rows].clone()
    return taken


def _join_caches(caches: Sequence[DreamerCache], config) -> DreamerCache:
    """One cache of the rows of all, at the latest of their positions."""
    end = max(int(cache.next_position) for cache in caches)
    for cache in caches:
        _move_on(cache, end - int(cache.next_position), config)
    joined = copy.copy(caches[0])
    joined.layers = [copy.copy(layer) for layer in joined.layers]
    for layer, *parts in zip(joined.ring_layers, *(cache.ring_layers for cache in caches)):
        layer.keys = torch.cat([part.keys for part in parts])
        layer.values = torch.cat([part.values for part in parts])
    # As in `replace_rows`: a slot that only some rows have filled is hidden from the others by their own start.
    joined.slot_positions = torch.stack([cache.slot_positions for cache in caches]).amax(0)
    joined.row_starts = torch.cat([cache.row_starts for cache in caches])
    return joined


def _move_on(cache: DreamerCache, distance: int, config) -> None:
    """Places what a cache holds `distance` frames later."""
    if distance == 0:
        return
    positions = torch.tensor([distance], device=cache.next_position.device)
    tables = rotary_tables(positions, config.head_dim, config.rope_theta, torch.float32)
    for layer in cache.ring_layers:
        turned = rotate(layer.keys.float(), tables).to(layer.keys.dtype)
        layer.keys, layer.values = (states.roll(distance % cache.capacity, 2) for states in (turned, layer.values))
    cache.slot_positions = (cache.slot_positions + distance).roll(distance % cache.capacity)
    cache.next_position, cache.row_starts = cache.next_position + distance, cache.row_starts + distance


__all__ = ["join_rows", "take_row"]

"""Where the dreams of an environment start: at the world's start frames or at frames passed to `reset`.

Shapes: R rows that start, C context frames, H, W pixels, A action components.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engines import WorldEngine

OPTIONS = ("start_index", "frames", "actions", "action_mask")


def select_starts(starts, fractions: Sequence[float], options: dict, engine: WorldEngine):
    """Return where each of R rows starts: the indices of start frames, or the frames passed to `reset`.

    Args:
        starts: the start frames to choose from; None if there are none.
        fractions: R random numbers in [0, 1) that choose if the options do not.
        options: of `reset`: `start_index`, one for all rows or R of them; or `frames`, uint8 (C, H, W, 3) for all rows
            or (R, C, H, W, 3), with `actions` (C, A) or (R, C, A) float and `action_mask` (C,) or (R, C) bool, as in
            `start_rollout`.
        engine: of the world; start frames have its form.

    Raises:
        ValueError: an option is unknown or does not fit, or there are no start frames.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ValueError(f"reset knows no option {unknown[0]!r}: use {', '.join(OPTIONS)}.")
    if options.get("frames") is not None:
        return _given(options, len(fractions), engine)
    if starts is None:
        raise ValueError("there are no start frames: make the environment with start=..., or reset it with frames.")
    indices = options.get("start_index")
    if indices is None:
        indices = [int(fraction * len(starts)) for fraction in fractions]
    return np.broadcast_to(np.asarray(indices), len(fractions)).tolist()


def _given(options: dict, num_rows: int, engine: WorldEngine):
    frames = np.asarray(options["frames"])
    if frames.dtype != np.uint8 or frames.ndim not in (4, 5):
        raise ValueError(
            f"the frames are {frames.dtype} {frames.shape}: give uint8 (C, H, W, 3), or (rows, C, H, W, 3)."
        )
    frames = _for_rows(frames, num_rows, 4, "frames")
    shape, width = frames.shape[:2], engine.space.size
    actions, mask = options.get("actions"), options.get("action_mask")
    if mask is None:
        mask = np.full(shape[1], actions is not None)
    if actions is None:
        actions = np.zeros((shape[1], width))
    return engine.make_starts(
        np.moveaxis(frames, -1, 2).copy(),
        _for_rows(np.asarray(actions, np.float32), num_rows, 2, "actions").copy(),
        _for_rows(np.asarray(mask, bool), num_rows, 1, "action_mask").copy(),
    )


def _for_rows(values: np.ndarray, num_rows: int, ndim: int, name: str) -> np.ndarray:
    """Return values for each row, given values for each row or for all of them."""
    if values.ndim == ndim:
        return np.broadcast_to(values, (num_rows, *values.shape))
    if values.ndim != ndim + 1 or len(values) != num_rows:
        raise ValueError(f"{name} of shape {values.shape} are not for {num_rows} rows: give one entry a row, or one.")
    return values

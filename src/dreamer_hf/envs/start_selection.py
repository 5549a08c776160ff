"""Where the dreams of an environment start: at the world's start frames or at frames passed to `reset`.

Shapes: R rows that start, C context frames, V cameras, H, W pixels, A action components, S state components.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engines import WorldEngine

OPTIONS = ("start_index", "frames", "actions", "action_mask", "states", "state_mask")


def select_starts(starts, fractions: Sequence[float], options: dict, engine: WorldEngine):
    """Return where each of R rows starts: the indices of start frames, or the frames passed to `reset`.

    Args:
        starts: the start frames to choose from; None if there are none.
        fractions: R random numbers in [0, 1) that choose if the options do not.
        options: of `reset`: `start_index`, one for all rows or R of them; or `frames`, uint8 (C, H, W, 3) for all rows
            or (R, C, H, W, 3), with `actions` (C, A) or (R, C, A) float and `action_mask` (C,) or (R, C) bool, as in
            `start_rollout`. Frames of V cameras are (C, V, H, W, 3) or (R, C, V, H, W, 3). A world with a state also
            takes `states`, (C, S) or (R, C, S) float in the units of the data, and `state_mask` (C,) or (R, C) bool.
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
    frames = _frames_of_all_rows(options["frames"], num_rows, engine)
    shape, width = frames.shape[:2], engine.space.size
    actions, mask = options.get("actions"), options.get("action_mask")
    if mask is None:
        mask = np.full(shape[1], actions is not None)
    if actions is None:
        actions = np.zeros((shape[1], width))
    return engine.make_starts(
        np.moveaxis(frames, -1, -3).copy(),
        _for_rows(np.asarray(actions, np.float32), num_rows, 2, "actions").copy(),
        _for_rows(np.asarray(mask, bool), num_rows, 1, "action_mask").copy(),
        *_states_of_all_rows(options, num_rows, shape[1], engine),
    )


def _frames_of_all_rows(frames, num_rows: int, engine: WorldEngine) -> np.ndarray:
    frames, cameras = np.asarray(frames), engine.camera_names
    one_row = "(C, H, W, 3)" if cameras is None else f"(C, {len(cameras)}, H, W, 3)"
    ndim = one_row.count(",") + 1
    if frames.dtype != np.uint8 or frames.ndim not in (ndim, ndim + 1):
        shown = "" if cameras is None else f", an image of each camera ({', '.join(cameras)})"
        raise ValueError(
            f"the frames are {frames.dtype} {frames.shape}: give uint8 {one_row}, or (rows, {one_row[1:]}{shown}."
        )
    return _for_rows(frames, num_rows, ndim, "frames")


def _states_of_all_rows(
    options: dict, num_rows: int, num_frames: int, engine: WorldEngine
) -> tuple[np.ndarray | None, np.ndarray | None]:
    states, mask = options.get("states"), options.get("state_mask")
    if states is None:
        return None, None
    if not len(engine.state_space):
        raise ValueError("the world has no state: leave states and state_mask out.")
    mask = np.ones(num_frames, bool) if mask is None else np.asarray(mask, bool)
    return (
        _for_rows(np.asarray(states, np.float32), num_rows, 2, "states").copy(),
        _for_rows(mask, num_rows, 1, "state_mask").copy(),
    )


def _for_rows(values: np.ndarray, num_rows: int, ndim: int, name: str) -> np.ndarray:
    """Return values for each row, given values for each row or for all of them."""
    if values.ndim == ndim:
        return np.broadcast_to(values, (num_rows, *values.shape))
    if values.ndim != ndim + 1 or len(values) != num_rows:
        raise ValueError(f"{name} of shape {values.shape} are not for {num_rows} rows: give one entry a row, or one.")
    return values

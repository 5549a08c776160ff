"""How far agent and block in generated videos of PushT are from where they are in the real video.

Both are found in the frames (see `state`). Positions are in percent of the frame's width, angles in degrees.
Shapes: B episodes, F steps, S side of a frame.
"""

import numpy as np
import torch
from tqdm import tqdm

from ..frame_inputs import to_unit_range
from .state import PushTState, find_pusht_state
from .task import WORLD_SIZE

PERCENT = 100 / WORLD_SIZE
MOVED = 2.0
"""A block counts as moved once it has been further than this, in percent of the width, from where it was. Positions
are found to a tenth of that."""
MIN_SIDE = 32
"""Side in pixels of the smallest frames in which agent and block can be found."""
PUSHT_FRACTION = 0.9
"""Frames are of PushT if agent and block are found in at least this fraction of them."""


def is_pusht(frames: torch.Tensor) -> bool:
    """Return whether real frames (B, 3, H, W), uint8, show the PushT simulator."""
    if min(frames.shape[-2:]) < MIN_SIDE or frames.shape[-1] != frames.shape[-2]:
        return False
    state = find_pusht_state(to_unit_range(frames))
    is_found = ~torch.isnan(state.agent[:, 0]) & ~torch.isnan(state.angle)
    return is_found.float().mean().item() >= PUSHT_FRACTION


def state_errors(
    videos: dict[str, torch.Tensor], real: torch.Tensor, last_context_frame: torch.Tensor
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Compare the states found in videos with those found in the real one.

    Args:
        videos: float videos (B, F, 3, S, S) in [0, 1] by name; a video of one frame (B, 1, 3, S, S) is a still image.
        real: (B, F, 3, S, S), the real video.
        last_context_frame: (B, 3, S, S), the real frame before the first one.

    Returns:
        Two values:
        - Arrays (B, F) by metric and name: `agent_error` and `block_error` (percent of the frame's width) and
          `angle_error` (degrees), infinite where the video shows no agent or block; `agent_found` and `block_found`
          (1 or 0). All are NaN where none is found in the real frame either.
        - (B, F) whether the real block has moved away from its place in the last context frame up to this step (1 or
          0; NaN if it was not found there).
    """
    before, truth = _find(last_context_frame[:, None]), _find(real)
    is_there = {"agent": ~torch.isnan(truth.agent[..., 0]), "block": ~torch.isnan(truth.angle)}
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, video in tqdm(videos.items(), desc="finding agent and block", unit="video", leave=False):
        state = _find(video)
        turn = (state.angle - truth.angle + torch.pi) % (2 * torch.pi) - torch.pi
        errors = {
            "agent_error": (state.agent - truth.agent).norm(dim=-1) * PERCENT,
            "block_error": (state.block - truth.block).norm(dim=-1) * PERCENT,
            "angle_error": turn.abs().rad2deg(),
        }
        for metric, error in errors.items():
            there = is_there["agent" if metric == "agent_error" else "block"]
            error = torch.where(there, error.nan_to_num(nan=torch.inf), torch.nan)
            values.setdefault(metric, {})[name] = error.double().numpy()
        for thing in is_there:
            error = values[f"{thing}_error"][name]
            values.setdefault(f"{thing}_found", {})[name] = np.where(np.isnan(error), np.nan, np.isfinite(error))
    return values, _moved(truth.block, before.block)


def _find(video: torch.Tensor) -> PushTState:
    """Return the states in a video (B, F, 3, S, S), with leading dimensions (B, F)."""
    state = find_pusht_state(video.flatten(0, 1))
    return PushTState(*(part.unflatten(0, video.shape[:2]) for part in vars(state).values()))


def _moved(block: torch.Tensor, before: torch.Tensor) -> np.ndarray:
    """Return (B, F) whether a block (B, F, 2) has moved away from its place before, (B, 1, 2)."""
    distance = ((block - before).norm(dim=-1) * PERCENT).numpy()
    furthest = np.fmax.accumulate(distance, axis=1)
    return np.where(np.isnan(furthest), np.nan, furthest > MOVED).astype(np.float64)


__all__ = ["is_pusht", "state_errors"]

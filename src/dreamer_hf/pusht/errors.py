"""How far off agent and block of a dreamt PushT are, by what is found in dreamt and in real frames.

Positions are in percent of the frame's width, angles in degrees. Shapes: B episodes, F steps, S side of a frame.
"""

import numpy as np
import torch
from tqdm import tqdm

from ..evaluation.dreams import REAL, REPEAT
from .player import WORLD_SIZE
from .state import PushTState, find_pusht_state

PERCENT = 100 / WORLD_SIZE
MOVED = 2.0
"""Percent of the width: a block that has been further than this from where it lay has been moved. The finder is sure to
a tenth of it."""
SMALLEST = 32
"""Side in pixels below which nothing is looked for."""
PUSHT_SHARE = 0.9
"""Frames are PushT's if agent and block are found in this share of them."""


def is_pusht(frames: torch.Tensor) -> bool:
    """Whether real frames (B,3,S,S), uint8, show the PushT simulator."""
    if min(frames.shape[-2:]) < SMALLEST or frames.shape[-1] != frames.shape[-2]:
        return False
    state = find_pusht_state(frames.float() / 255)
    is_found = ~torch.isnan(state.agent[:, 0]) & ~torch.isnan(state.angle)
    return is_found.float().mean().item() >= PUSHT_SHARE


def pusht_values(videos: dict[str, torch.Tensor], last_given: torch.Tensor) -> dict[str, dict[str, np.ndarray]]:
    """Compares the states found in videos with those found in the real one.

    Args:
        videos: (B,F,3,S,S) in [0, 1] by candidate, and "real".
        last_given: (B,3,S,S), the real frame before the first one.

    Returns:
        Arrays (B,F) by measure and candidate: `agent_error` and `block_error` (percent of the frame's width),
        `angle_error` (degrees), infinite where a candidate shows nothing to be found; `agent_found` and `block_found`
        (1 or 0); all NaN where the real frame shows nothing either. And `block_moved`, of "real": whether the block has
        been away from where it lay in the last given frame up to this step (1 or 0).
    """
    steps = videos[REAL].shape[1]
    before = _find(last_given[:, None])
    shown = tqdm(videos.items(), desc="finding agent and block", unit="candidate", leave=False)
    states = {name: _find(video) for name, video in shown if name != REPEAT}
    states[REPEAT] = PushTState(*(part.expand(-1, steps, *part.shape[2:]) for part in vars(before).values()))
    real = states.pop(REAL)
    values = {"block_moved": {REAL: _moved(real.block, before.block)}}
    for name, state in states.items():
        turn = (state.angle - real.angle + torch.pi) % (2 * torch.pi) - torch.pi
        errors = {
            "agent_error": (state.agent - real.agent).norm(dim=-1) * PERCENT,
            "block_error": (state.block - real.block).norm(dim=-1) * PERCENT,
            "angle_error": turn.abs().rad2deg(),
        }
        real_agent, real_block = ~torch.isnan(real.agent[..., 0]), ~torch.isnan(real.angle)
        for measure, error in errors.items():
            there = real_agent if measure == "agent_error" else real_block
            error = torch.where(there, error.nan_to_num(nan=torch.inf), torch.nan)
            values.setdefault(measure, {})[name] = error.double().numpy()
        for measure, found in (("agent_found", "agent_error"), ("block_found", "block_error")):
            error = values[found][name]
            values.setdefault(measure, {})[name] = np.where(np.isnan(error), np.nan, np.isfinite(error))
    return values


def _find(video: torch.Tensor) -> PushTState:
    """(B,F,3,S,S) -> states with leading sizes (B,F)."""
    state = find_pusht_state(video.flatten(0, 1))
    return PushTState(*(part.unflatten(0, video.shape[:2]) for part in vars(state).values()))


def _moved(block: torch.Tensor, before: torch.Tensor) -> np.ndarray:
    """(B,F,2) and (B,1,2) -> (B,F): 1, 0, or NaN where the block was not found before."""
    distance = ((block - before).norm(dim=-1) * PERCENT).numpy()
    furthest = np.fmax.accumulate(distance, axis=1)
    return np.where(np.isnan(furthest), np.nan, furthest > MOVED).astype(np.float64)

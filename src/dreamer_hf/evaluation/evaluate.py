"""Measures a world on held-out episodes: everything by episode and step, nothing averaged yet.

Shapes: B episodes of a batch, E all episodes, T frames, C given frames, F dreamt frames, N latent tokens, d latent
channels, H, W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..data import ShardDataset
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..modeling_dreamer_world import DreamerWorldModel
from ..pusht.errors import is_pusht, pusht_values
from .dreams import (
    CANDIDATES,
    DREAM,
    OTHERS,
    REAL,
    REPEAT,
    TOKENIZER,
    ZEROED,
    Clips,
    decode_latents,
    dream,
    encode_frames,
    held_out_clips,
    relative_components,
)
from .metrics import frame_scores

Values = dict[str, dict[str, np.ndarray]]
"""Arrays (E,F) by measure and candidate; NaN where there is nothing to measure."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        num_context_frames, num_dreamt_frames: C and F; episodes that are shorter are left out.
        num_episodes: E at most.
        batch_size: episodes that are dreamt at once. It decides which noise an episode gets, not how well it is dreamt.
        num_filmed: episodes whose frames are kept.
        seed: of the dreams' noise.
    """

    num_context_frames: int = 8
    num_dreamt_frames: int = 64
    num_episodes: int = 64
    batch_size: int = 64
    num_filmed: int = 3
    seed: int = 0

    def __post_init__(self):
        if min(self.num_context_frames, self.num_dreamt_frames, self.num_episodes, self.batch_size) < 1:
            raise ValueError("context frames, dreamt frames, episodes and batch size must each be at least 1.")


@dataclass(frozen=True)
class Measurements:
    """What was measured.

    Attributes:
        values: `mse`, `ssim` and perhaps `lpips` of every candidate against the real frames; `reencoding` of the
            latents that dreams and tokenizer decoded (see `reencoding_distance`); for PushT, those of `pusht_values`.
        features: latents of every frame, (E,F,N*d) by "real" and candidate.
        films: for the first episodes, (T,3,H,W) by "real" and candidate.
        is_relative: (a,) bool, the components of an action that zeroing set to 0; the others were held.
        num_episodes: E.
    """

    values: Values
    features: dict[str, np.ndarray]
    films: list[dict[str, torch.Tensor]]
    is_relative: torch.Tensor
    num_episodes: int


@torch.no_grad()
def measure_world(
    world: DreamerWorldModel, data: ShardDataset, options: EvaluationOptions, perceptual: nn.Module | None = None
) -> Measurements:
    """Dreams the beginnings of held-out episodes and compares them with what really followed.

    With a single episode there is no other one to take actions from: that floor is then left out.

    Args:
        world: the model, in eval mode.
        data: held-out episodes of frames.
        options: how to evaluate.
        perceptual: an `lpips.LPIPS` on the world's device, or None.

    Raises:
        ValueError: the data do not fit the world, or no episode is long enough.
    """
    num_given, num_dreamt = options.num_context_frames, options.num_dreamt_frames
    frames, real = held_out_clips(world, data, num_given, num_dreamt, options.num_episodes)
    is_relative = relative_components(data)
    clips = _all_clips(real, is_relative)
    reads_state = is_pusht(frames[:, num_given - 1])
    collected, features, films = [], [], []
    batches = range(0, len(frames), options.batch_size)
    with tqdm(total=len(batches) * len(clips) * num_dreamt, desc="dreaming", unit="frame") as progress:
        for start in batches:
            rows = slice(start, start + options.batch_size)
            progress.set_description("dreaming")
            noise = torch.Generator().manual_seed(options.seed + start)
            dreamt = {
                name: dream(world.dynamics, those.rows(rows), noise.clone_state(), progress.update)
                for name, those in clips.items()
            }
            progress.set_description("comparing")
            views = _all_views(world.tokenizer, frames[rows], real.latents[rows], dreamt, num_given)
            collected.append(_compare(views, num_given, perceptual, reads_state))
            features.append({name: view.encoded[:, num_given:].flatten(2).numpy() for name, view in views.items()})
            films += _films(views, options.num_filmed - len(films))
    return Measurements(_joined(collected), _concatenated(features), films, is_relative, len(frames))


def _all_clips(clips: Clips, is_relative: torch.Tensor) -> dict[str, Clips]:
    """What is dreamt, by candidate."""
    steered = {DREAM: clips, ZEROED: clips.with_actions_zeroed(is_relative)}
    return steered | ({OTHERS: clips.with_actions_of_others()} if len(clips.latents) > 1 else {})


@dataclass(frozen=True)
class _View:
    """What a candidate, or "real", shows: frames (B,T,3,H,W) in [0, 1] and their latents (B,T,N,d); and the latents that
    the frames were decoded from, if they were."""

    frames: torch.Tensor
    encoded: torch.Tensor
    decoded_from: torch.Tensor | None = None


def _all_views(
    tokenizer: DreamerTokenizerModel,
    frames: torch.Tensor,
    latents: torch.Tensor,
    dreamt: dict[str, torch.Tensor],
    num_given: int,
) -> dict[str, _View]:
    """The frames of "real" and every candidate: dreams decoded, everything encoded."""
    real = frames.float() / 255
    last = real[:, num_given - 1 : num_given].expand_as(real[:, num_given:])
    repeated = torch.cat([real[:, :num_given], last], dim=1)
    views = {REAL: _View(real, latents), REPEAT: _View(repeated, encode_frames(tokenizer, repeated))}
    for name, future in (dreamt | {TOKENIZER: latents[:, num_given:]}).items():
        whole = torch.cat([latents[:, :num_given], future.to(latents)], dim=1)
        decoded = decode_latents(tokenizer, whole)
        views[name] = _View(decoded, encode_frames(tokenizer, decoded), whole)
    return {name: views[name] for name in (REAL, *CANDIDATES) if name in views}


def reencoding_distance(latents: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
    """(B,T,N,d) and the same decoded and encoded once more -> (B,T) root mean square distance of their numbers.

    What a tokenizer made itself comes back nearly as it was. What a dream made up between the tokenizer's latents, and
    that no frame has, does not: the more a dream hallucinates, the larger this is.
    """
    return (latents - again).float().square().mean(dim=(2, 3)).sqrt().double().cpu()


def _compare(views: dict[str, _View], num_given: int, perceptual: nn.Module | None, reads_state: bool) -> Values:
    future = {name: view.frames[:, num_given:] for name, view in views.items()}
    values: Values = {"reencoding": {}}
    for name in [name for name in views if name != REAL]:
        for measure, scores in frame_scores(future[name], future[REAL], perceptual).items():
            values.setdefault(measure, {})[name] = scores.numpy()
        if views[name].decoded_from is not None:
            distance = reencoding_distance(views[name].decoded_from, views[name].encoded)
            values["reencoding"][name] = distance[:, num_given:].numpy()
    if reads_state:
        values |= pusht_values(future, views[REAL].frames[:, num_given - 1])
    return values


def _joined(batches: list[Values]) -> Values:
    return {measure: _concatenated([batch[measure] for batch in batches]) for measure in batches[0]}


def _concatenated(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of several batches, one after the other."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _films(views: dict[str, _View], count: int) -> list[dict[str, torch.Tensor]]:
    return [
        {name: view.frames[row] for name, view in views.items()} for row in range(min(count, len(views[REAL].frames)))
    ]


__all__ = ["EvaluationOptions", "Measurements", "Values", "measure_world", "reencoding_distance"]

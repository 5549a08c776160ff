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
from .pusht_errors import is_pusht, pusht_values
from .quality import frame_scores

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
            latents of dream, floors and tokenizer (see `reencoding_distance`); for PushT, those of `pusht_values`.
        films: for the first episodes, (T,3,H,W) by "real" and candidate.
        is_relative: (a,) bool, the components of an action that zeroing set to 0; the others were held.
        num_episodes: E.
    """

    values: Values
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
    collected, films = [], []
    batches = range(0, len(frames), options.batch_size)
    with tqdm(total=len(batches) * len(clips) * num_dreamt, desc="dreaming", unit="frame") as progress:
        for start in batches:
            rows = slice(start, start + options.batch_size)
            noise = torch.Generator().manual_seed(options.seed + start)
            dreamt = {
                name: dream(world.dynamics, those.rows(rows), noise.clone_state(), progress.update)
                for name, those in clips.items()
            }
            videos, reencoding = _to_pixels(world.tokenizer, frames[rows], real.latents[rows], dreamt, num_given)
            collected.append(_compare(videos, reencoding, num_given, perceptual, reads_state))
            films += _films(videos, options.num_filmed - len(films))
    return Measurements(_joined(collected), films, is_relative, len(frames))


def _all_clips(clips: Clips, is_relative: torch.Tensor) -> dict[str, Clips]:
    """What is dreamt, by candidate."""
    steered = {DREAM: clips, ZEROED: clips.with_actions_zeroed(is_relative)}
    return steered | ({OTHERS: clips.with_actions_of_others()} if len(clips.latents) > 1 else {})


def _to_pixels(
    tokenizer: DreamerTokenizerModel,
    frames: torch.Tensor,
    latents: torch.Tensor,
    dreamt: dict[str, torch.Tensor],
    num_given: int,
) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """Videos (B,T,3,H,W) of "real" and every candidate, and how far latents move when decoded and encoded (B,F)."""
    real = frames.float() / 255
    last = real[:, num_given - 1 : num_given].expand_as(real[:, num_given:])
    videos = {REAL: real, REPEAT: torch.cat([real[:, :num_given], last], dim=1)}
    given = latents[:, :num_given]
    reencoding = {}
    for name, future in (dreamt | {TOKENIZER: latents[:, num_given:]}).items():
        whole = torch.cat([given, future.to(given.dtype)], dim=1)
        videos[name] = decode_latents(tokenizer, whole)
        again = encode_frames(tokenizer, videos[name])
        reencoding[name] = reencoding_distance(whole, again)[:, num_given:].numpy()
    return {name: videos[name] for name in (REAL, *CANDIDATES) if name in videos}, reencoding


def reencoding_distance(latents: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
    """(B,T,N,d) and the same decoded and encoded once more -> (B,T) root mean square distance of their numbers.

    What a tokenizer made itself comes back nearly as it was. What a dream made up between the tokenizer's latents, and
    that no frame has, does not: the more a dream hallucinates, the larger this is.
    """
    return (latents - again).float().square().mean(dim=(2, 3)).sqrt().double().cpu()


def _compare(
    videos: dict[str, torch.Tensor],
    reencoding: dict[str, np.ndarray],
    num_given: int,
    perceptual: nn.Module | None,
    reads_state: bool,
) -> Values:
    future = {name: video[:, num_given:] for name, video in videos.items()}
    values: Values = {"reencoding": reencoding}
    for name in future.keys() - {REAL}:
        for measure, scores in frame_scores(future[name], future[REAL], perceptual).items():
            values.setdefault(measure, {})[name] = scores.numpy()
    if reads_state:
        values |= pusht_values(future, videos[REAL][:, num_given - 1])
    return values


def _joined(batches: list[Values]) -> Values:
    """Values of several batches, one after the other."""
    return {
        measure: {name: np.concatenate([batch[measure][name] for batch in batches]) for name in candidates}
        for measure, candidates in batches[0].items()
    }


def _films(videos: dict[str, torch.Tensor], count: int) -> list[dict[str, torch.Tensor]]:
    return [{name: video[row] for name, video in videos.items()} for row in range(min(count, len(videos[REAL])))]


__all__ = ["EvaluationOptions", "Measurements", "Values", "measure_world", "reencoding_distance"]

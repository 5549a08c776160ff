"""Measuring a world on held-out episodes. Every metric is kept for each episode and step; nothing is averaged here.

Shapes: B episodes of a batch, E all episodes, T frames, C context frames, F dream frames, N latent tokens, d latent
channels, S state components, H, W pixels, a action components. Frames of V cameras are (B, T, V, 3, H, W).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..action_space import ActionSpace
from ..camera_views import tile_cameras
from ..data import ShardDataset
from ..frame_inputs import to_unit_range
from ..image_metrics import frame_scores
from ..modeling_dreamer_tokenizer import DreamerTokenizerModel
from ..modeling_dreamer_world import DreamerWorldModel
from ..pusht.state_errors import is_pusht, state_errors
from ..state_space import StateSpace
from .evaluation_options import Protocol
from .open_loop import (
    CANDIDATES,
    DREAM,
    OTHERS,
    REAL,
    REPEAT,
    TOKENIZER,
    TRUE_LATENTS,
    ZEROED,
    Clips,
    DreamedFrames,
    decode_latents,
    dream_clips,
    encode_frames,
    long_episodes,
    read_clips,
)

STATE_ERROR = "state_error/"
"""Prefix of the metrics of single components of the state, before their names."""
CAMERA_ERROR = "mse/"
"""Prefix of the squared errors of single cameras, before their names."""
Values = dict[str, dict[str, np.ndarray]]
"""Arrays (E, F) by metric and candidate; NaN where there is no value."""


@dataclass(frozen=True)
class Measurements:
    """The values of all metrics for each episode and step.

    Attributes:
        values: `mse`, `ssim` and perhaps `lpips` of each candidate against the real frames (`mse/NAME` of each of
            several cameras); `reencoding` of the
        latents
            that the dreams and the tokenizer decoded (see `reencoding_distance`); for PushT, those of `state_errors`
            and `block_moved` of the real frames; for a world and data with a state, those of `state_distances`.
        features: latents of all frames, (E, F, N*d) by "real" and candidate.
        videos: for the first episodes, (T, 3, H, W) by "real" and candidate.
        is_relative: (a,) bool, the action components that were zeroed as 0; the others kept their last value.
        num_episodes: E.
    """

    values: Values
    features: dict[str, np.ndarray]
    videos: list[dict[str, torch.Tensor]]
    is_relative: torch.Tensor
    num_episodes: int


@dataclass(frozen=True)
class MeasurementPlan:
    """What to dream of which episodes. Its batches depend on the plan alone, so that they can be measured anywhere.

    Attributes:
        positions: of the E episodes in the data.
        protocol: what to dream of them.
        shows_pusht: whether their frames show PushT.
    """

    positions: tuple[int, ...]
    protocol: Protocol
    shows_pusht: bool

    @property
    def batches(self) -> range:
        """The numbers of the first episodes of all batches."""
        return range(0, len(self.positions), self.protocol.batch_size)

    @property
    def num_frames(self) -> int:
        """How many dreamed frames that is, those of all candidates counted."""
        return len(self.batches) * (2 + (len(self.positions) > 1)) * self.protocol.num_dream_frames


@dataclass(frozen=True)
class BatchMeasurements:
    """`Measurements` of one batch."""

    values: Values
    features: dict[str, np.ndarray]
    videos: list[dict[str, torch.Tensor]]


def measure_world(
    world: DreamerWorldModel, data: ShardDataset, protocol: Protocol, perceptual: nn.Module | None = None
) -> Measurements:
    """Dream held-out episodes from their first frames and compare the dreams with the real frames.

    With a single episode there is no other one to take actions from; that baseline is then omitted.

    Args:
        world: the model, in eval mode.
        data: held-out episodes of frames that fit the world (see `check_data_fits`).
        protocol: what to dream.
        perceptual: an `lpips.LPIPS` on the world's device, or None.

    Raises:
        ValueError: no episode is long enough.
    """
    plan = plan_measurement(world, data, protocol)
    with tqdm(total=plan.num_frames, desc="dreaming", unit="frame") as progress:
        parts = [measure_batch(world, data, plan, start, perceptual, progress.update) for start in plan.batches]
    return join_batches(world, plan, parts)


def plan_measurement(world: DreamerWorldModel, data: ShardDataset, protocol: Protocol) -> MeasurementPlan:
    """Return what `measure_world` measures; arguments and errors are the same."""
    context = protocol.num_context_frames
    positions = long_episodes(data, context + protocol.num_dream_frames, protocol.num_episodes)
    shows_pusht = False
    if not world.config.dynamics_config.camera_names:
        last = [data.window(position, context - 1, 1)["pixel_values_videos"][0] for position in positions]
        shows_pusht = is_pusht(torch.stack(last))
    return MeasurementPlan(tuple(positions), protocol, shows_pusht)


@torch.no_grad()
def measure_batch(
    world: DreamerWorldModel,
    data: ShardDataset,
    plan: MeasurementPlan,
    start: int,
    perceptual: nn.Module | None = None,
    on_frame: Callable[[], object] | None = None,
) -> BatchMeasurements:
    """Measure one batch of a plan.

    Args:
        world, data, perceptual: as for `measure_world`.
        plan: of these.
        start: one of `plan.batches`.
        on_frame: called after every step of the dreams.
    """
    protocol, config = plan.protocol, world.config.dynamics_config
    context = protocol.num_context_frames
    positions = plan.positions[start : start + protocol.batch_size]
    frames, real = read_clips(world.tokenizer, data, positions, context, protocol.num_dream_frames)
    clips = {DREAM: real, ZEROED: real.with_zeroed_actions(_relative_components(world))}
    if len(plan.positions) > 1:
        after = plan.positions[(start + len(positions)) % len(plan.positions)]
        clips[OTHERS] = _with_next_actions(real, data.window(after, 0, frames.shape[1]))
    noise = torch.Generator().manual_seed(protocol.seed + start)
    dreams = {name: dream_clips(world.dynamics, each, noise.clone_state(), on_frame) for name, each in clips.items()}
    latents = {name: dream.latents for name, dream in dreams.items()}
    views = _all_views(world.tokenizer, frames, real.latents, latents, context)
    values = _compare(views, context, perceptual, plan.shows_pusht, config.camera_names)
    if real.states is not None and config.state_dim:
        values |= _state_values(world, real, dreams, noise)
    features = {name: view.encoded[:, context:].flatten(2).numpy() for name, view in views.items()}
    shown = range(max(0, min(len(positions), protocol.num_videos - start)))
    videos = [{name: tile_cameras(view.frames[row : row + 1])[0] for name, view in views.items()} for row in shown]
    return BatchMeasurements(values, features, videos)


def join_batches(world: DreamerWorldModel, plan: MeasurementPlan, parts: Sequence[BatchMeasurements]) -> Measurements:
    """Return the measurements of all batches of a plan, given in order."""
    joined = {metric: _concatenate([part.values[metric] for part in parts]) for metric in parts[0].values}
    features, videos = (
        _concatenate([part.features for part in parts]),
        [video for part in parts for video in part.videos],
    )
    return Measurements(joined, features, videos, _relative_components(world), len(plan.positions))


def _relative_components(world: DreamerWorldModel) -> torch.Tensor:
    return torch.from_numpy(ActionSpace.from_config(world.config.dynamics_config).relative)


def _with_next_actions(clips: Clips, after: dict[str, torch.Tensor]) -> Clips:
    """Return the same clips, to be dreamed under the actions of the next episode each; `after` is the one after the
    last.

    A permutation in time would not do: it keeps the sum of relative actions, and with it where the agent ends up.
    """
    actions = torch.cat([clips.actions[1:], after["actions"][None]])
    return clips.with_future_actions(actions, torch.cat([clips.action_mask[1:], after["action_mask"][None]]))


@dataclass(frozen=True)
class _View:
    """What a candidate, or "real", shows: frames (B, T, 3, H, W) in [0, 1] and their latents (B, T, N, d); and, if the
    frames were decoded from latents, those."""

    frames: torch.Tensor
    encoded: torch.Tensor
    decoded_from: torch.Tensor | None = None


def _all_views(
    tokenizer: DreamerTokenizerModel,
    frames: torch.Tensor,
    latents: torch.Tensor,
    dreams: dict[str, torch.Tensor],
    context: int,
) -> dict[str, _View]:
    """Decode the dreams and encode all frames; return the views of "real" and of every candidate."""
    real = to_unit_range(frames)
    last = real[:, context - 1 : context].expand_as(real[:, context:])
    repeated = torch.cat([real[:, :context], last], dim=1)
    views = {REAL: _View(real, latents), REPEAT: _View(repeated, encode_frames(tokenizer, repeated))}
    for name, future in (dreams | {TOKENIZER: latents[:, context:]}).items():
        whole = torch.cat([latents[:, :context], future.to(latents)], dim=1)
        decoded = decode_latents(tokenizer, whole)
        views[name] = _View(decoded, encode_frames(tokenizer, decoded), whole)
    return {name: views[name] for name in (REAL, *CANDIDATES) if name in views}


def reencoding_distance(latents: torch.Tensor, reencoded: torch.Tensor) -> torch.Tensor:
    """Return the root mean square difference (B, T) of latents (B, T, N, d) to the same after decoding and encoding.

    Latents that a tokenizer made itself return almost unchanged. Those that lie between them, and that no frame has,
    do not: the more a dream hallucinates, the larger the difference.
    """
    return (latents - reencoded).float().square().mean(dim=(2, 3)).sqrt().double().cpu()


def _camera_scores(
    video: torch.Tensor, real: torch.Tensor, perceptual: nn.Module | None, camera_names: list[str] | None
) -> dict[str, np.ndarray]:
    """Return the scores (B, F) of a candidate's frames; of several cameras their means, and the `mse` of each."""
    if not camera_names:
        return {metric: scores.numpy() for metric, scores in frame_scores(video, real, perceptual).items()}
    scores = [frame_scores(video[:, :, camera], real[:, :, camera], perceptual) for camera in range(len(camera_names))]
    means = {metric: torch.stack([each[metric] for each in scores]).mean(dim=0).numpy() for metric in scores[0]}
    return means | {f"{CAMERA_ERROR}{name}": each["mse"].numpy() for name, each in zip(camera_names, scores)}


def _compare(
    views: dict[str, _View],
    context: int,
    perceptual: nn.Module | None,
    shows_pusht: bool,
    camera_names: list[str] | None,
) -> Values:
    future = {name: view.frames[:, context:] for name, view in views.items()}
    real = future.pop(REAL)
    values: Values = {"reencoding": {}}
    for name, video in future.items():
        for metric, scores in _camera_scores(video, real, perceptual, camera_names).items():
            values.setdefault(metric, {})[name] = scores
        if views[name].decoded_from is not None:
            distance = reencoding_distance(views[name].decoded_from, views[name].encoded)
            values["reencoding"][name] = distance[:, context:].numpy()
    if shows_pusht:
        future[REPEAT] = future[REPEAT][:, :1]  # The same image at every step: its state is looked for once.
        errors, moved = state_errors(future, real, views[REAL].frames[:, context - 1])
        values |= errors | {"block_moved": {REAL: moved}}
    return values


def _state_values(
    world: DreamerWorldModel, clips: Clips, dreams: dict[str, DreamedFrames], noise: torch.Generator
) -> Values:
    """Return the `state_distances` of some dreams, and of the states that are dreamed given the true latents."""
    known = dream_clips(world.dynamics, clips, noise.clone_state(), knows_latents=True)
    states = {name: dream.states for name, dream in (dreams | {TRUE_LATENTS: known}).items()}
    return state_distances(states, clips, StateSpace.from_config(world.config.dynamics_config))


def state_distances(dreamed: dict[str, torch.Tensor], clips: Clips, space: StateSpace) -> Values:
    """Return how far dreamed states, and the last one of the context, are from the real ones.

    Args:
        dreamed: states (B, F, S) by candidate.
        clips: the real episodes.
        space: the state of the world.

    Returns:
        `state_error`, in percent of the range of each component in the training data, averaged over them; and
        `state_error/NAME` of each component, in the units of the data. NaN where a frame has no state, and for the
        last state of a context that has none.
    """
    context = clips.num_context_frames
    states, has_state = clips.states.double().cpu(), clips.state_mask[..., None].cpu()
    states = states.masked_fill(~has_state, torch.nan)
    real, last = states[:, context:], states[:, context - 1 : context]
    values: Values = {}
    for name, ours in (dreamed | {REPEAT: last.expand_as(real)}).items():
        errors = (ours.double().cpu() - real).abs().numpy()
        values.setdefault("state_error", {})[name] = 100 * (errors / space.extent).mean(axis=2)
        for component, label in enumerate(space.names):
            values.setdefault(f"{STATE_ERROR}{label}", {})[name] = errors[..., component]
    return values


def _concatenate(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


__all__ = [
    "CAMERA_ERROR",
    "STATE_ERROR",
    "BatchMeasurements",
    "MeasurementPlan",
    "Measurements",
    "Values",
    "join_batches",
    "measure_batch",
    "measure_world",
    "plan_measurement",
    "reencoding_distance",
    "state_distances",
]

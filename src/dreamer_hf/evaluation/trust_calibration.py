"""Fitting a world's trust model on held-out episodes, and testing it on others; see `trust` and docs/ranking.md.

Shapes: E episodes, F dreamed frames, H, W pixels, M = E * F samples, K signals.
"""

import time
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..camera_views import decode_cameras, encode_cameras
from ..data import ShardDataset
from ..data.files import write_json
from ..engines import engine_for
from ..engines.engine_choice import choose_engine
from ..engines.opening import open_world, ready_export
from ..engines.world_engine import as_numpy
from ..frame_inputs import to_unit_range
from ..loading import load_world
from ..modeling_dreamer_world import DreamerWorldModel
from ..onnx import OnnxWorld
from ..options import WorldOptions
from ..pusht.state_errors import is_pusht, state_errors
from ..seeded_noise import SeededNoise
from ..start_frames import StartFrames
from ..trust import FLOOR, SIGNALS, TRUST_NAME, TrustedRollout, TrustModel, trust_content
from ..worlds import resolve_model
from .data_checks import check_data_fits
from .logistic import auroc, cross_validated, fit_logistic, log_loss
from .tables import markdown_table
from .trust_options import TrustOptions

DEFAULT_TOLERANCES = {"position": 5.0, "image": 6.0}
UNITS = {"position": "% of the width", "image": "dB below the tokenizer"}
WORTH_IT = 0.005
"""A further signal has to lower the cross-validated log loss by this many nats."""
NUM_BINS = 5
TIMED_STEPS = 4
"""Steps of a batch that are taken without the signals, too, to measure what these cost."""


@dataclass(frozen=True)
class WatchedDreams:
    """The dreams of held-out episodes, frame by frame.

    Attributes:
        signals: (E, F) float64 by name.
        distances: (E, F) float64, from reality; NaN where it is not known.
        step_seconds, watched_seconds: mean time of a step without and with the signals.
    """

    signals: dict[str, np.ndarray]
    distances: np.ndarray
    step_seconds: float
    watched_seconds: float


def calibrate_trust(options: TrustOptions) -> str:
    """Fit a trust model to a world, write it where the options say, and return what it is worth.

    Raises:
        ValueError, OSError: the world or the data cannot be loaded or do not fit; nothing is written anywhere; the
            dreams never, or always, leave reality by more than the tolerance.
    """
    folder = Path(resolve_model(options.model))
    if not options.save and options.output is None:
        raise ValueError("there is nowhere to write the model: give --save, or --output FILE.json.")
    if options.save and not folder.is_dir():
        raise ValueError(f"--save needs a world in a folder, which {options.model} is not: give --output FILE.json.")
    world = load_world(options.model, options.device)
    data = _open(world, options.data_dir, options.split)
    dreamer = _dreamer(options, world)
    measure = options.measure if options.measure != "auto" else _measure_for(world, data)
    tolerance = options.tolerance if options.tolerance is not None else DEFAULT_TOLERANCES[measure]
    dreams = watch_dreams(world, data, replace(options, measure=measure), dreamer)
    trust = fit_trust(dreams, measure, tolerance, world.rollout_schedule(options.num_inference_steps))
    lines = [_summary(trust, dreams, data)]
    if options.test_dir is not None:
        test_data = _open(world, options.test_dir, "all")
        lines.append(_tested(trust, watch_dreams(world, test_data, replace(options, measure=measure), dreamer)))
    places = [folder / TRUST_NAME if options.save else None, options.output and Path(options.output)]
    for path in filter(None, places):
        write_json(path, trust_content(trust))
        lines.append(f"Written to {path}.")
    return "\n\n".join(lines)


@torch.no_grad()
def watch_dreams(
    world: DreamerWorldModel, data: ShardDataset, options: TrustOptions, dreamer: DreamerWorldModel | OnnxWorld
) -> WatchedDreams:
    """Dream held-out episodes under their own actions and collect the signals and the distance from reality.

    Args:
        world: the model, in eval mode.
        data: episodes of frames that fit the world.
        options: how many episodes, how long, and the measure ("position" or "image").
        dreamer: what dreams: the model itself, or its export.

    Raises:
        ValueError: no episode is long enough.
    """
    horizon = options.fit(data.episode_lengths)
    context, length = horizon.num_context_frames, horizon.num_context_frames + horizon.num_dream_frames
    long_enough = [index for index, frames in enumerate(data.episode_lengths) if frames >= length]
    if not long_enough:
        raise ValueError(f"no episode of {data.data_dir} has {length} frames: choose a smaller --num_context_frames.")
    windows = [data.window(index, 0, length) for index in long_enough[: options.num_episodes]]
    parts, times = [], []
    batches = range(0, len(windows), options.batch_size)
    with tqdm(total=len(batches) * horizon.num_dream_frames, desc="dreaming", unit="frame") as progress:
        for first in batches:
            batch = windows[first : first + options.batch_size]
            clips = {name: torch.stack([each[name] for each in batch]) for name in batch[0]}
            seeds = [options.seed + first + row for row in range(len(batch))]
            signals, frames, seconds = _dream(dreamer, clips, context, seeds, options.num_inference_steps, progress)
            real = to_unit_range(clips["pixel_values_videos"])
            parts.append(
                (signals, _distances(world, frames, real[:, context:], real[:, context - 1], options.measure))
            )
            times.append(seconds)
    signals = {name: np.concatenate([part[0][name] for part in parts]) for name in SIGNALS}
    plain, watched = np.mean(times, axis=0)
    return WatchedDreams(signals, np.concatenate([part[1] for part in parts]), float(plain), float(watched))


def fit_trust(dreams: WatchedDreams, measure: str, tolerance: float, schedule) -> TrustModel:
    """Fit a trust model, on as few signals as predict about as well as more do (by cross-validation over episodes).

    Args:
        dreams: what was dreamed.
        measure, tolerance: what counts as having left reality.
        schedule: the `RolloutSchedule` of the dreams.

    Raises:
        ValueError: the dreams never, or always, leave reality by more than the tolerance, or there is one episode.
    """
    known, labels, logs = _samples(dreams, tolerance)
    if len(dreams.distances) < 2:
        raise ValueError("one episode is too few to fit on: record more.")
    if not 0 < labels.mean() < 1:
        how = "always" if labels.all() else "never"
        raise ValueError(f"these dreams {how} leave reality by more than {tolerance:g}: choose another --tolerance.")
    episodes = np.nonzero(known)[0]
    best, best_loss, best_auroc = None, np.inf, np.nan
    for size in range(1, len(SIGNALS) + 1):
        for names in combinations(SIGNALS, size):
            features = np.column_stack([logs[name] for name in names])
            probability = cross_validated(features, labels, episodes)
            loss = log_loss(probability, labels)
            # The step alone says nothing about a single dream.
            if names != ("step",) and loss < best_loss - (WORTH_IT if best and size > len(best) else 0):
                best, best_loss, best_auroc = names, loss, auroc(probability, labels)
    model = fit_logistic(np.column_stack([logs[name] for name in best]), labels)
    return TrustModel(
        best,
        tuple(float(weight) for weight in model.weights),
        model.bias,
        measure,
        float(tolerance),
        int(known.sum()),
        len(dreams.distances),
        float(best_auroc),
        schedule.num_inference_steps,
    )


def _open(world: DreamerWorldModel, folder: str, split: str) -> ShardDataset:
    data = ShardDataset(folder, None, split=split, action_offset=world.config.dynamics_config.action_offset)
    check_data_fits(world.config, data)
    return data


def _measure_for(world: DreamerWorldModel, data: ShardDataset) -> str:
    if world.config.dynamics_config.camera_names:
        return "image"
    shown = torch.stack(
        [data.window(index, 0, 1)["pixel_values_videos"][0] for index in range(min(8, len(data.episode_lengths)))]
    )
    return "position" if is_pusht(shown) else "image"


def _dreamer(options: TrustOptions, world: DreamerWorldModel) -> DreamerWorldModel | OnnxWorld:
    """Return what dreams: the loaded model, or its export if that is the engine of the options."""
    world_options = WorldOptions(model=options.model, device=options.device, engine=options.engine)
    choice = choose_engine(world_options, False, lambda: ready_export(options.model) is not None)
    return world if choice.name == "torch" else open_world(options.model, world_options).world


def _dream(dreamer, clips: dict, context: int, seeds: list[int], num_inference_steps: int | None, progress) -> tuple:
    """Dream the clips; return the signals (B, F), the frames (B, F, ...), and the seconds of a plain and a watched
    step."""
    engine = engine_for(dreamer)
    names = {"pixel_values_videos", "actions", "action_mask"}
    if len(engine.state_space):
        names |= {"states", "state_mask"} & set(clips)
    starts = engine.own_starts(StartFrames(**{name: clips[name][:, :context].contiguous() for name in names}))
    rollout, _ = engine.start_rollout(starts, num_inference_steps, [SeededNoise(seed) for seed in seeds])
    plain, watched = rollout.clone(), TrustedRollout(engine, rollout, None)
    signals, frames, seconds = [], [], np.zeros(2)
    for index in range(context, clips["actions"].shape[1]):
        arguments = clips["actions"][:, index].numpy(), clips["action_mask"][:, index].numpy()
        started = time.perf_counter()
        frames.append(as_numpy(watched.step(*arguments).pixel_values))
        if len(frames) <= TIMED_STEPS:
            middle = time.perf_counter()
            plain.step(*arguments)
            seconds += np.array([time.perf_counter() - middle, middle - started]) / TIMED_STEPS
        signals.append(watched.signals)
        progress.update()
    joined = {name: np.stack([each[name] for each in signals], axis=1) for name in SIGNALS}
    return joined, torch.from_numpy(np.stack(frames, axis=1)), seconds


def _distances(
    world, frames: torch.Tensor, real: torch.Tensor, last_context: torch.Tensor, measure: str
) -> np.ndarray:
    """Return how far dreamed frames (B, F, ...) are from real ones: (B, F)."""
    if measure == "position":
        if frames.ndim != 5 or not is_pusht(last_context):
            raise ValueError("positions can be measured in frames of PushT only: choose --measure image.")
        values, _ = state_errors({"dream": frames}, real, last_context)
        agent, block = values["agent_error"]["dream"], values["block_error"]["dream"]
        return np.fmax(agent, block)
    axes = tuple(range(2, frames.ndim))
    decoded = torch.cat([_reconstruction(world.tokenizer, clip) for clip in real.split(1)])
    ours, theirs = ((each - real).square().mean(dim=axes).clamp_min(1e-12).log10() for each in (frames, decoded))
    return (10 * (ours - theirs)).double().numpy()


def _reconstruction(tokenizer, frames: torch.Tensor) -> torch.Tensor:
    return decode_cameras(tokenizer, encode_cameras(tokenizer, frames).latents).cpu()


def _samples(dreams: WatchedDreams, tolerance: float) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return which frames have a distance (E, F), and of these the labels (M,) and the logarithms of the signals."""
    known = ~np.isnan(dreams.distances)
    logs = {name: np.log(np.maximum(values[known], FLOOR)) for name, values in dreams.signals.items()}
    return known, dreams.distances[known] > tolerance, logs


def _summary(trust: TrustModel, dreams: WatchedDreams, data: ShardDataset) -> str:
    known, labels, logs = _samples(dreams, trust.tolerance)
    episodes = np.nonzero(known)[0]
    rows = []
    for size in range(1, len(SIGNALS) + 1):
        for names in combinations(SIGNALS, size):
            probability = cross_validated(np.column_stack([logs[name] for name in names]), labels, episodes)
            chosen = " (chosen)" if names == trust.signals else ""
            rows.append(
                [
                    " + ".join(names) + chosen,
                    f"{auroc(probability, labels):.3f}",
                    f"{log_loss(probability, labels):.3f}",
                ]
            )
    head = (
        f"{trust.num_episodes} episodes of {data.data_dir}, {trust.num_frames} frames, of which "
        f"{100 * labels.mean():.0f} % are more than {trust.tolerance:g} {UNITS[trust.measure]} from reality. A step "
        f"takes {1000 * dreams.step_seconds:.1f} ms, with trust {1000 * dreams.watched_seconds:.1f} ms "
        f"({dreams.watched_seconds / max(dreams.step_seconds, 1e-9):.2f} times)."
    )
    return "\n\n".join([head, markdown_table(["signals", "AUROC, cross-validated", "log loss, nats"], rows)])


def _tested(trust: TrustModel, dreams: WatchedDreams) -> str:
    """Return how the model does on other episodes: AUROC, and how often dreams of some trust have left reality."""
    known, labels, _ = _samples(dreams, trust.tolerance)
    distrust = 1 - trust({name: values[known] for name, values in dreams.signals.items()}).astype(np.float64)
    rows = []
    for low in np.arange(NUM_BINS) / NUM_BINS:
        inside = (distrust >= low) & (distrust < low + 1 / NUM_BINS + (low == 1 - 1 / NUM_BINS))
        if inside.any():
            share = f"{100 * labels[inside].mean():.0f}"
            rows.append(
                [
                    f"{low:.1f} to {low + 1 / NUM_BINS:.1f}",
                    str(int(inside.sum())),
                    f"{distrust[inside].mean():.2f}",
                    share,
                ]
            )
    head = f"Test: {len(dreams.distances)} other episodes, {len(labels)} frames. AUROC {auroc(distrust, labels):.3f}."
    return "\n\n".join([head, markdown_table(["1 - trust", "frames", "mean", "left reality, %"], rows)])


__all__ = ["WatchedDreams", "calibrate_trust", "fit_trust", "watch_dreams"]

"""From measurements to `evaluation.json`, and from there to a Markdown table.

The JSON holds every figure at every step; whatever is shown elsewhere (table, plots, model card) is read from it.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import ShardDataset
from ..data.files import replacing
from ..modeling_dreamer_world import DreamerWorldModel
from .bootstrap import Bootstrap, Estimate, mean, median
from .dreams import CANDIDATES, DREAM, OTHERS, REAL, REPEAT, TOKENIZER, ZEROED
from .evaluate import EvaluationOptions, Measurements, Values
from .frechet import frechet_by_band

EVALUATION_NAME = "evaluation.json"
FORMAT_VERSION = 1
FEWEST = 5
"""Episodes in which the block has moved, or is at rest, below which nothing is said of them."""
# By which kinds of components the actions have.
ZEROED_NOTES = {
    (True,): "Actions zeroed: all components are relative and are set to 0 in the data's units (no change).",
    (False,): "Actions zeroed: all components are absolute and stay at the last value given (no change).",
    (False, True): "Actions zeroed: relative components are set to 0 in the data's units, absolute ones stay at the "
    "last value given (no change).",
}
TABLE_STEPS = (1, 4, 8, 16, 32, 64)
TITLES = CANDIDATES | {REAL: "real frames"}

Figures = dict[str, dict[str, dict[str, list[float | str | None]]]]
"""By measure, candidate, and statistic (`mean`, `median`, each also with `_low` and `_high`): a value for each step."""


def evaluation_of(
    world: DreamerWorldModel, data: ShardDataset, options: EvaluationOptions, measurements: Measurements
) -> dict:
    """The contents of `evaluation.json`; see docs/evaluation.md for the keys. Names no path of this machine."""
    frechet = _frechet(measurements.features)
    return {
        "format_version": FORMAT_VERSION,
        "world": {
            "tokenizer_fingerprint": world.tokenizer.fingerprint(),
            "parameters": world.num_parameters(),
            "dtype": str(world.dtype).removeprefix("torch."),
        },
        "data": {
            "source": (data.metadata.source or {}).get("repo_id"),
            "num_episodes": measurements.num_episodes,
            "fps": data.fps,
            "image_size": list(data.image_size),
        },
        "protocol": {
            "num_context_frames": options.num_context_frames,
            "num_dreamt_frames": options.num_dreamt_frames,
            "batch_size": options.batch_size,
            "seed": options.seed,
            "relative_action_components": measurements.is_relative.tolist(),
        },
        "notes": _notes(measurements, has_frechet=any(frechet.values())),
        "frechet": frechet,
        "figures": figures_of(measurements.values, Bootstrap(measurements.num_episodes, options.seed)),
    }


def _frechet(features: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Fréchet distances of every candidate to the real frames, by band of steps."""
    bands = {name: frechet_by_band(ours, features[REAL]) for name, ours in features.items() if name != REAL}
    return {
        name: {band: float(f"{distance:.5g}") for band, distance in distances.items()}
        for name, distances in bands.items()
    }


def _notes(measurements: Measurements, has_frechet: bool) -> list[str]:
    """What zeroed actions are here, and what was left out and why."""
    values = measurements.values
    notes = [ZEROED_NOTES[tuple(sorted(set(measurements.is_relative.tolist())))]]
    if OTHERS not in values["mse"]:
        notes.append("One episode only: no other one to take actions from.")
    if "lpips" not in values:
        notes.append("LPIPS was not measured: not asked for, or its weights are not on the machine that evaluated.")
    if "agent_error" not in values:
        notes.append("No state was read off the pixels: these are not frames of PushT.")
    if not has_frechet:
        notes.append("No Fréchet distance: fewer frames than features.")
    return notes


def figures_of(values: Values, bootstrap: Bootstrap) -> Figures:
    """Means and medians over episodes with their intervals.

    PSNR is that of the mean (the median) squared error; `psnr_above` is what the dream is above a floor, both over the
    same resamples. Means leave out the infinite errors of what was not found; medians count them.
    """
    values = dict(values)
    squared = values.pop("mse")
    figures: Figures = {"psnr": {}, "psnr_above": {}}
    for name, errors in squared.items():
        figures["psnr"][name] = _statistics(bootstrap, errors, transform=_psnr)
        if name not in (DREAM, TOKENIZER):
            difference = bootstrap.estimate(lambda a, b: _psnr(mean(a)) - _psnr(mean(b)), squared[DREAM], errors)
            figures["psnr_above"][name] = _lists("mean", difference)
    moved = values.pop("block_moved", None)
    for measure, candidates in values.items():
        figures[measure] = {name: _statistics(bootstrap, array) for name, array in candidates.items()}
    if moved is not None:
        figures["block_moved"] = {REAL: _statistics(bootstrap, moved[REAL])}
        for measure, wanted in (("block_error_where_moved", 1), ("block_error_where_at_rest", 0)):
            figures[measure] = {
                name: _statistics(bootstrap, _where(moved[REAL] == wanted, errors))
                for name, errors in values["block_error"].items()
            }
    return figures


def _where(wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(E,F) twice: the values that are wanted, at steps where they are enough to say something."""
    return np.where(wanted & (wanted.sum(axis=0) >= FEWEST), values, np.nan)


def _psnr(squared_error: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(squared_error, 1e-12))


def _statistics(bootstrap: Bootstrap, values: np.ndarray, transform=None) -> dict[str, list[float | str | None]]:
    lists = {}
    for name, statistic in (("mean", mean), ("median", median)):
        estimate = bootstrap.estimate(statistic, values)
        lists |= _lists(name, estimate.transformed(transform) if transform else estimate)
    return lists


def _lists(name: str, estimate: Estimate) -> dict[str, list[float | str | None]]:
    arrays = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: [_number(value) for value in array] for key, array in arrays.items()}


def _number(value: float) -> float | str | None:
    """Five digits; JSON knows neither NaN (null) nor infinity ("inf", which `float` reads)."""
    if math.isnan(value):
        return None
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def write_evaluation(path: Path, evaluation: dict) -> None:
    """Writes `evaluation.json`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(evaluation, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_evaluation(path: Path) -> dict:
    """Reads what `write_evaluation` wrote.

    Raises:
        ValueError: damaged, or of another version.
    """
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: write it again with examples/evaluate.py.") from error
    version = evaluation.get("format_version") if isinstance(evaluation, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has version {version}, this package reads {FORMAT_VERSION}: evaluate again with "
            "examples/evaluate.py."
        )
    return evaluation


@dataclass(frozen=True)
class TableGroup:
    """Rows of the table that belong together: one measure of several candidates, and how it is written."""

    title: str
    measure: str
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    statistic: str = "mean"
    form: str = ".1f"
    scale: float = 1.0


FLOORS = (REPEAT, OTHERS, ZEROED)
TABLE = (
    TableGroup("PSNR, dB", "psnr"),
    TableGroup("PSNR of the dream above that of, dB", "psnr_above", FLOORS, form="+.1f"),
    TableGroup("SSIM", "ssim", form=".3f"),
    TableGroup("LPIPS (lower is better)", "lpips", form=".3f"),
    TableGroup("Latents decoded and encoded again: distance", "reencoding", (DREAM, TOKENIZER), form=".3f"),
    TableGroup("Agent: median error, % of the width", "agent_error", statistic="median"),
    TableGroup("Agent found, % of the episodes", "agent_found", (DREAM, TOKENIZER), form=".0f", scale=100),
    TableGroup("Block has moved, % of the episodes", "block_moved", (REAL,), form=".0f", scale=100),
    TableGroup("Block that has moved: median error, % of the width", "block_error_where_moved", statistic="median"),
    TableGroup("Block at rest: median error, % of the width", "block_error_where_at_rest", statistic="median"),
    TableGroup("Block: median error of the angle, degrees", "angle_error", (DREAM, REPEAT, TOKENIZER), "median"),
    TableGroup("Block found, % of the episodes", "block_found", (DREAM, TOKENIZER), form=".0f", scale=100),
)


def markdown_table(evaluation: dict) -> str:
    """The main figures at some steps, with their 95 % intervals, and what has to be said with them."""
    data, protocol = evaluation["data"], evaluation["protocol"]
    steps = [step for step in TABLE_STEPS if step <= protocol["num_dreamt_frames"]]
    rows = [["dreamt frame", *map(str, steps)], ["---"] * (len(steps) + 1)]
    for group in TABLE:
        figures = evaluation["figures"].get(group.measure, {})
        if figures:
            rows.append([f"**{group.title}**"] + [""] * len(steps))
            for name in group.candidates:
                if name in figures:
                    rows.append([TITLES[name], *(_cell(figures[name], group, step) for step in steps)])
    head = (
        f"{data['num_episodes']} held-out episodes, {protocol['num_context_frames']} frames given, then open loop, "
        f"computed in {evaluation['world']['dtype']}. In brackets: 95 % intervals over episodes (bootstrap)."
    )
    parts = [head, _table(rows)]
    bands = list(evaluation["frechet"][DREAM])
    if bands:
        title = "Fréchet distance to real frames, by latents of the world's own tokenizer: frames"
        rows = [[title, *bands], ["---"] * (len(bands) + 1)]
        for name, distances in evaluation["frechet"].items():
            rows.append([TITLES[name], *(f"{distances[band]:.2f}" for band in bands)])
        parts.append(_table(rows))
    return "\n\n".join([*parts, " ".join(evaluation["notes"])])


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(figures: dict, group: TableGroup, step: int) -> str:
    numbers = [figures[f"{group.statistic}{end}"][step - 1] for end in ("", "_low", "_high")]
    if None in numbers:
        return "-"
    value, low, high = (
        format(float(number) * group.scale, group.form) if math.isfinite(float(number)) else "not found"
        for number in numbers
    )
    return value if value == "not found" else f"{value} [{low}, {high}]"

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
from .dreams import CANDIDATES, DREAM, OTHERS, REAL, REPEAT, TOKENIZER, ZEROED
from .measuring import EvaluationOptions, Measurements, Values
from .statistics import Bootstrap, Estimate, mean, median

EVALUATION_NAME = "evaluation.json"
FORMAT_VERSION = 1
TABLE_STEPS = (1, 4, 8, 16, 32, 64)

Figures = dict[str, dict[str, dict[str, list[float | str | None]]]]
"""By measure, candidate, and statistic (`mean`, `median`, each also with `_low` and `_high`): a value for each step."""


def evaluation_of(
    world: DreamerWorldModel, data: ShardDataset, options: EvaluationOptions, measurements: Measurements
) -> dict:
    """The contents of `evaluation.json`; see docs/evaluation.md for the keys. Names no path of this machine."""
    values = measurements.values
    is_relative = measurements.is_relative.tolist()
    notes = [ZEROED_NOTES.get(tuple(sorted(set(is_relative))), ZEROED_NOTES[(False, True)])]
    if OTHERS not in values["mse"]:
        notes.append("One episode only: no other one to take actions from.")
    if "lpips" not in values:
        notes.append("LPIPS was not measured: its weights are not on the machine that evaluated.")
    if "agent_error" not in values:
        notes.append("No state was read off the pixels: these are not frames of PushT.")
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
            "relative_action_components": is_relative,
        },
        "notes": notes,
        "figures": figures_of(values, Bootstrap(measurements.num_episodes, options.seed)),
    }


ZEROED_NOTES = {
    (True,): "Actions zeroed: all components are relative and are set to 0 in the data's units (no change).",
    (False,): "Actions zeroed: all components are absolute and stay at the last value given (no change).",
    (False, True): "Actions zeroed: relative components are set to 0 in the data's units, absolute ones stay at the "
    "last value given (no change).",
}


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
                name: _statistics(bootstrap, np.where(moved[REAL] == wanted, errors, np.nan))
                for name, errors in values["block_error"].items()
            }
    return figures


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
class TableRow:
    """A row of the table: title, where its figures lie, and how they are written."""

    title: str
    measure: str
    candidate: str
    statistic: str = "mean"
    form: str = ".1f"
    scale: float = 1.0


def _rows() -> list[TableRow]:
    rows = [TableRow(f"PSNR, dB: {title}", "psnr", name) for name, title in CANDIDATES.items()]
    for name in (REPEAT, OTHERS, ZEROED):
        rows.append(TableRow(f"PSNR of the dream above {CANDIDATES[name]}, dB", "psnr_above", name, form="+.1f"))
    for measure, title in (("ssim", "SSIM"), ("lpips", "LPIPS (lower is better)")):
        rows += [TableRow(f"{title}: {CANDIDATES[name]}", measure, name, form=".3f") for name in CANDIDATES]
    for name, title in ((DREAM, "dream"), (TOKENIZER, "real frames")):
        rows.append(TableRow(f"latents decoded and encoded again, distance: {title}", "reencoding", name, form=".3f"))
    for name, title in CANDIDATES.items():
        rows.append(TableRow(f"agent, error in % of the width (median): {title}", "agent_error", name, "median"))
    for name in (DREAM, TOKENIZER):
        rows.append(TableRow(f"agent found, %: {CANDIDATES[name]}", "agent_found", name, form=".0f", scale=100))
        rows.append(TableRow(f"block found, %: {CANDIDATES[name]}", "block_found", name, form=".0f", scale=100))
    rows.append(TableRow("episodes in which the block has moved, %", "block_moved", REAL, form=".0f", scale=100))
    for measure, where in (
        ("block_error_where_moved", "where it has moved"),
        ("block_error_where_at_rest", "at rest"),
    ):
        for name in (DREAM, REPEAT):
            title = f"block {where}, error in % of the width (median): {CANDIDATES[name]}"
            rows.append(TableRow(title, measure, name, "median"))
    for name in (DREAM, REPEAT):
        rows.append(TableRow(f"block, error in degrees (median): {CANDIDATES[name]}", "angle_error", name, "median"))
    return rows


def markdown_table(evaluation: dict) -> str:
    """The main figures at some steps, with their 95 % intervals, and what has to be said with them."""
    data, protocol = evaluation["data"], evaluation["protocol"]
    steps = [step for step in TABLE_STEPS if step <= protocol["num_dreamt_frames"]]
    lines = ["| dreamt frame | " + " | ".join(map(str, steps)) + " |", "| --- |" + " --- |" * len(steps)]
    for row in _rows():
        figures = evaluation["figures"].get(row.measure, {}).get(row.candidate)
        if figures is not None:
            cells = [_cell(figures, row, step) for step in steps]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    head = (
        f"{data['num_episodes']} held-out episodes, {protocol['num_context_frames']} frames given, then open loop, "
        f"computed in {evaluation['world']['dtype']}. In brackets: 95 % intervals over episodes (bootstrap)."
    )
    return "\n".join([head, "", *lines, "", *evaluation["notes"]])


def _cell(figures: dict, row: TableRow, step: int) -> str:
    numbers = [figures[f"{row.statistic}{end}"][step - 1] for end in ("", "_low", "_high")]
    if None in numbers:
        return "-"
    value, low, high = (
        format(float(number) * row.scale, row.form) if math.isfinite(float(number)) else "not found"
        for number in numbers
    )
    return value if value == "not found" else f"{value} [{low}, {high}]"

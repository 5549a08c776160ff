"""Markdown tables, and the main figures of an evaluation as one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .measurements import STATE_ERROR
from .open_loop import CANDIDATES, DREAM, OTHERS, REAL, REPEAT, STATE_CANDIDATES, TOKENIZER, TRUE_LATENTS, ZEROED

TABLE_STEPS = (1, 4, 8, 16, 32, 64)
TITLES = CANDIDATES | STATE_CANDIDATES | {REAL: "real frames"}


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, each as soon as its row is there."""
    for row in (header, ["---"] * len(header)):
        yield f"| {' | '.join(row)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(table_lines(header, rows))


@dataclass(frozen=True)
class RowGroup:
    """Rows of the evaluation's table: one metric of several candidates.

    Attributes:
        title: heading of the rows.
        metric: key in the figures.
        candidates: one row each.
        statistic: "mean" or "median".
        form: format of the numbers.
        scale: factor of the numbers.
    """

    title: str
    metric: str
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    statistic: str = "mean"
    form: str = ".1f"
    scale: float = 1.0


BASELINES = (REPEAT, OTHERS, ZEROED)
ROW_GROUPS = (
    RowGroup("PSNR, dB", "psnr"),
    RowGroup("PSNR of the dream above that of, dB", "psnr_above", BASELINES, form="+.1f"),
    RowGroup("SSIM", "ssim", form=".3f"),
    RowGroup("LPIPS (lower is better)", "lpips", form=".3f"),
    RowGroup("Latents decoded and encoded again: distance", "reencoding", (DREAM, TOKENIZER), form=".3f"),
    RowGroup("State: mean error, % of the range", "state_error", tuple(STATE_CANDIDATES), form=".2f"),
    RowGroup("Agent: median error, % of the width", "agent_error", statistic="median"),
    RowGroup("Agent found, % of the episodes", "agent_found", (DREAM, TOKENIZER), form=".0f", scale=100),
    RowGroup("Block has moved, % of the episodes", "block_moved", (REAL,), form=".0f", scale=100),
    RowGroup("Block that has moved: median error, % of the width", "block_error_where_moved", statistic="median"),
    RowGroup("Block at rest: median error, % of the width", "block_error_where_at_rest", statistic="median"),
    RowGroup("Block: median error of the angle, degrees", "angle_error", (DREAM, REPEAT, TOKENIZER), "median"),
    RowGroup("Block found, % of the episodes", "block_found", (DREAM, TOKENIZER), form=".0f", scale=100),
)


CAMERA_PSNR = "psnr/"
"""Prefix of the PSNR of single cameras, before their names."""


def _row_groups(figures: dict) -> list[RowGroup]:
    """Return the groups of all rows: those of every world, and one for each camera and each component of the state."""
    components = [metric for metric in figures if metric.startswith(STATE_ERROR)]
    shown = (DREAM, REPEAT, TRUE_LATENTS)
    ours = [
        RowGroup(
            f"State, {metric.removeprefix(STATE_ERROR)}: mean error, units of the data", metric, shown, form=".4g"
        )
        for metric in components
    ]
    cameras = [metric for metric in figures if metric.startswith(CAMERA_PSNR)]
    groups = [RowGroup(f"PSNR of camera {metric.removeprefix(CAMERA_PSNR)}, dB", metric) for metric in cameras]
    return [ROW_GROUPS[0], *groups, *ROW_GROUPS[1:], *ours]


def evaluation_table(report: dict) -> str:
    """Return the main figures of a report at some steps as Markdown, with their 95 % intervals and the notes."""
    figures = report["figures"]
    length = len(figures["psnr"][DREAM]["mean"])
    steps = [step for step in TABLE_STEPS if step <= length]
    rows = []
    for group in _row_groups(figures):
        candidates = figures.get(group.metric, {})
        if candidates:
            rows.append([f"**{group.title}**"] + [""] * len(steps))
        for name in group.candidates:
            if name in candidates:
                rows.append([TITLES[name], *(_cell(candidates[name], group, step) for step in steps)])
    num_episodes, num_context = report["data"]["num_episodes"], report["protocol"]["num_context_frames"]
    head = (
        f"{num_episodes} held-out episodes, {num_context} context frames, then open loop, computed in "
        f"{report['world']['dtype']}. In brackets: 95 % intervals over episodes (bootstrap)."
    )
    parts = [head, markdown_table(["frame of the dream", *map(str, steps)], rows)]
    bands = list(report["frechet"][DREAM])
    if bands:
        title = "Fréchet distance to real frames, on the latents of the world's tokenizer: frames"
        distances = report["frechet"].items()
        rows = [[TITLES[name], *(f"{by_band[band]:.2f}" for band in bands)] for name, by_band in distances]
        parts.append(markdown_table([title, *bands], rows))
    return "\n\n".join([*parts, " ".join(report["notes"])])


def _cell(figures: dict, group: RowGroup, step: int) -> str:
    numbers = [figures[f"{group.statistic}{end}"][step - 1] for end in ("", "_low", "_high")]
    if None in numbers:
        return "-"
    value, low, high = (
        format(float(number) * group.scale, group.form) if math.isfinite(float(number)) else "not found"
        for number in numbers
    )
    return value if value == "not found" else f"{value} [{low}, {high}]"


__all__ = ["evaluation_table", "markdown_table", "table_lines"]

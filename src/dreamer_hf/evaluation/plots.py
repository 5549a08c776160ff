"""Plots of an evaluation: curves with 95 % intervals over episodes. Needs the extra `evaluate` (matplotlib)."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .open_loop import CANDIDATES, DREAM, OTHERS, REPEAT, STATE_CANDIDATES, TOKENIZER, TRUE_LATENTS, ZEROED

logger = logging.getLogger(__name__)

COLORS = {DREAM: "#0072B2", REPEAT: "#666666", OTHERS: "#D55E00", ZEROED: "#CC79A7", TOKENIZER: "#009E73"}
COLORS[TRUE_LATENTS] = "#009E73"
"""Colors by candidate that color-blind people can distinguish (Okabe and Ito)."""
TITLES = CANDIDATES | STATE_CANDIDATES
DOTS_PER_INCH = 110
COLUMNS = 2


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: title of the axes.
        metric: key in the figures.
        statistic: "mean" or "median".
        candidates: one curve each.
        scale: factor of the values.
        from_zero: whether the y axis starts at 0.
    """

    title: str
    metric: str
    statistic: str = "mean"
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    scale: float = 1.0
    from_zero: bool = False


PLOTS = {
    "quality.png": (
        Panel("PSNR, dB", "psnr"),
        Panel("SSIM", "ssim"),
        Panel("LPIPS (lower is better)", "lpips"),
        Panel(
            "Latents decoded and encoded again: distance", "reencoding", candidates=(DREAM, OTHERS, ZEROED, TOKENIZER)
        ),
    ),
    "robot_state.png": (
        Panel("State: error, % of the range", "state_error", candidates=tuple(STATE_CANDIDATES), from_zero=True),
    ),
    "state.png": (
        Panel("Agent: error, % of the width (median)", "agent_error", "median", from_zero=True),
        Panel("Agent found, % of the episodes", "agent_found", scale=100, from_zero=True),
        Panel(
            "Block that has moved: error, % of the width (median)", "block_error_where_moved", "median", from_zero=True
        ),
        Panel("Block at rest: error, % of the width (median)", "block_error_where_at_rest", "median", from_zero=True),
    ),
}
"""File names, and the panels that they show if the metric was measured."""


def save_plots(folder: Path, report: dict) -> list[str]:
    """Plot the contents of `evaluation.json` and return the names of the PNG files.

    Without matplotlib, nothing is plotted and a warning says so.

    Raises:
        OSError: the disk is full or not writable.
    """
    try:
        from matplotlib.figure import Figure  # Few runs need it. Without pyplot, it needs no display.
    except ImportError:
        logger.warning("There are no plots: they need matplotlib (pip install 'dreamer_hf[evaluate]').")
        return []
    figures, names = report["figures"], []
    for name, panels in PLOTS.items():
        panels = [panel for panel in panels if panel.metric in figures]
        if panels:
            rows = math.ceil(len(panels) / COLUMNS)
            figure = Figure(figsize=(5.6 * COLUMNS, 3.6 * rows), layout="constrained")
            grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
            for axes, panel in zip(grid, panels):
                _draw(axes, panel, figures[panel.metric])
            for axes in grid[len(panels) :]:
                axes.remove()
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
            figure.savefig(folder / name, dpi=DOTS_PER_INCH)
            names.append(name)
    return names


def _draw(axes, panel: Panel, by_candidate: dict[str, dict]) -> None:
    """Draw a curve with its interval for each candidate. It has gaps where the value is infinite."""
    curves = {
        name: [_numbers(by_candidate[name][f"{panel.statistic}{end}"]) * panel.scale for end in ("", "_low", "_high")]
        for name in panel.candidates
        if name in by_candidate
    }
    highest = max(
        (array[np.isfinite(array)].max(initial=0) for curve in curves.values() for array in curve), default=0
    )
    for name, curve in curves.items():
        value, low, high = (
            np.where(np.isinf(array), above, array) for array, above in zip(curve, (np.nan, *[2 * highest] * 2))
        )
        steps = np.arange(1, len(value) + 1)
        axes.plot(steps, value, color=COLORS[name], label=TITLES[name], linewidth=1.6)
        axes.fill_between(steps, low, high, color=COLORS[name], alpha=0.15, linewidth=0)
    if panel.from_zero:
        axes.set_ylim(0, 1.05 * highest or 1)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("frame of the dream")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _numbers(values: list) -> np.ndarray:
    """Convert the numbers of a report, "inf" and None to floats."""
    return np.array([np.nan if value is None else float(value) for value in values])

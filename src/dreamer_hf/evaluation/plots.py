"""Plots of an evaluation: every curve with its 95 % interval over episodes. Needs the extra `evaluate` (matplotlib)."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dreams import CANDIDATES, DREAM, OTHERS, REPEAT, TOKENIZER, ZEROED

logger = logging.getLogger(__name__)

COLORS = {DREAM: "#0072B2", REPEAT: "#666666", OTHERS: "#D55E00", ZEROED: "#CC79A7", TOKENIZER: "#009E73"}
"""By candidate, the same in every plot; told apart by eyes of all kinds (Okabe and Ito)."""
DOTS_PER_INCH = 110


@dataclass(frozen=True)
class Panel:
    """One pair of axes: what it shows of whom."""

    title: str
    measure: str
    statistic: str = "mean"
    candidates: tuple[str, ...] = tuple(CANDIDATES)
    scale: float = 1.0


PLOTS = {
    "quality.png": (
        Panel("PSNR, dB", "psnr"),
        Panel("SSIM", "ssim"),
        Panel("LPIPS (lower is better)", "lpips"),
        Panel(
            "Latents decoded and encoded again: distance", "reencoding", candidates=(DREAM, OTHERS, ZEROED, TOKENIZER)
        ),
    ),
    "state.png": (
        Panel("Agent: error, % of the width (median)", "agent_error", "median"),
        Panel("Agent found, % of the episodes", "agent_found", scale=100),
        Panel("Block that has moved: error, % of the width (median)", "block_error_where_moved", "median"),
        Panel("Block at rest: error, % of the width (median)", "block_error_where_at_rest", "median"),
    ),
}
"""File names, and what they show as far as it was measured."""


def save_plots(folder: Path, evaluation: dict) -> list[str]:
    """Draws the contents of `evaluation.json`; returns the names of the PNG files.

    Without matplotlib it draws nothing and says so in one line.

    Raises:
        OSError: the disk is full or not writable.
    """
    try:
        from matplotlib.figure import Figure  # here, because few runs need it; without pyplot, so without a screen
    except ImportError:
        logger.warning("no plots: they need matplotlib (pip install 'dreamer_hf[evaluate]').")
        return []
    figures, names = evaluation["figures"], []
    for name, panels in PLOTS.items():
        panels = [panel for panel in panels if panel.measure in figures]
        if panels:
            figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
            for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
                _draw(axes, panel, figures[panel.measure])
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
            figure.savefig(folder / name, dpi=DOTS_PER_INCH)
            names.append(name)
    return names


def _draw(axes, panel: Panel, by_candidate: dict[str, dict]) -> None:
    """Draws a curve and its band for each candidate; where nothing was found or nothing measured, they break off."""
    for candidate in panel.candidates:
        if candidate in by_candidate:
            value, low, high = (
                _finite(by_candidate[candidate][f"{panel.statistic}{end}"]) * panel.scale
                for end in ("", "_low", "_high")
            )
            steps = np.arange(1, len(value) + 1)
            axes.plot(steps, value, color=COLORS[candidate], label=CANDIDATES[candidate], linewidth=1.6)
            axes.fill_between(steps, low, high, color=COLORS[candidate], alpha=0.15, linewidth=0)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("dreamt frame")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _finite(values: list) -> np.ndarray:
    """Numbers, "inf" and None -> floats, NaN for what cannot be drawn."""
    array = np.array([np.nan if value is None else float(value) for value in values])
    return np.where(np.isfinite(array), array, np.nan)

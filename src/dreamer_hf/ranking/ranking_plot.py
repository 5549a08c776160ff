"""Plots of a ranking: scores by horizon, and dream against real. Needs the extra `evaluate` (matplotlib)."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

DOTS_PER_INCH = 110
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Colors that color-blind people can distinguish (Okabe and Ito)."""
MARKERS = "osD^v<>P*X"
MAX_NAME = 34


def save_ranking_plots(folder: Path, report: dict) -> list[str]:
    """Plot the contents of `ranking.json`, a PNG file for each score, and return their names.

    Without matplotlib, nothing is plotted and a warning says so.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("No plots: matplotlib is not installed (pip install 'dreamer_hf[evaluate]').")
        return []
    names = []
    for index, score in enumerate(report["scores"]):
        panels = 2 if report["real"] is not None else 1
        figure = Figure(figsize=(6.5 * panels, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _draw_horizons(axes[0], report, score)
        if report["real"] is not None:
            _draw_real(axes[1], report, score)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
        names.append(f"ranking-{index + 1}.png")
        figure.savefig(folder / names[-1], dpi=DOTS_PER_INCH)
    return names


def _style(index: int) -> dict:
    return {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[(index // len(PALETTE) + index) % len(MARKERS)]}


def _draw_horizons(axes, report: dict, score: str) -> None:
    for index, (name, policy) in enumerate(report["policies"].items()):
        figures = policy["dream"][score]
        label = name if len(name) <= MAX_NAME else f"...{name[-MAX_NAME:]}"
        axes.plot(report["horizons"], figures["mean"], label=label, linewidth=1.4, markersize=4, **_style(index))
        if policy["real"]:
            axes.plot(
                report["horizons"], policy["real"][score]["mean"], ":", color=_style(index)["color"], linewidth=1
            )
    dotted = "; dotted: for real" if report["real"] is not None else ""
    _finish(axes, f"{score}, {report['summary']}, in dreams{dotted}", "frame", "score")


def _draw_real(axes, report: dict, score: str) -> None:
    for index, policy in enumerate(report["policies"].values()):
        ours, real = policy["dream"][score], policy["real"][score]
        errors = [
            [[abs(side["mean"][-1] - side[end][-1])] for end in ("mean_low", "mean_high")] for side in (real, ours)
        ]
        axes.errorbar(
            real["mean"][-1],
            ours["mean"][-1],
            xerr=errors[0],
            yerr=errors[1],
            linestyle="",
            markersize=5,
            linewidth=0.8,
            **_style(index),
        )
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color="#999999", linewidth=0.8, zorder=0)
    agreement = report["agreement"].get(score)
    text = (
        ""
        if agreement is None or agreement["pearson"]["mean"][-1] is None
        else (f": r {agreement['pearson']['mean'][-1]:.2f}, MMRV {agreement['mmrv']['mean'][-1]:.3f}")
    )
    _finish(axes, f"frame {report['horizons'][-1]}{text}", "score for real", "score in dreams")


def _finish(axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


__all__ = ["save_ranking_plots"]

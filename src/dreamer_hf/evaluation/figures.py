"""The figures of an evaluation: means and medians over episodes at each step, with 95 % intervals.

Shapes: E episodes, F steps.
"""

import math
from collections.abc import Callable

import numpy as np

from ..image_metrics import psnr
from .bootstrap import Bootstrap, Estimate, mean, median
from .measurements import CAMERA_ERROR, Values
from .open_loop import DREAM, REAL, TOKENIZER

MIN_EPISODES = 5
"""Episodes in which the block has moved, or is at rest, below which there is no figure for them."""

Number = float | str | None
"""A figure in JSON, which has neither infinity (it is "inf", which `float` reads) nor NaN (it is None)."""
Figures = dict[str, dict[str, dict[str, list[Number]]]]
"""By metric, candidate, and statistic (`mean`, `median`, each also with `_low` and `_high`): a value for each step."""

_psnr = np.vectorize(psnr, otypes=[float])


def compute_figures(values: Values, bootstrap: Bootstrap) -> Figures:
    """Compute the means and medians of all metrics over the episodes, with their intervals.

    PSNR is that of the mean (or median) squared error. `psnr_above` is by how much the dream is above a baseline, both
    over the same resamples. Means ignore the infinite errors of what was not found; medians count them.
    """
    values = dict(values)
    squared_errors, moved = values.pop("mse"), values.pop("block_moved", None)
    figures: Figures = {"psnr": {}, "psnr_above": {}}
    for metric in [metric for metric in values if metric.startswith(CAMERA_ERROR)]:
        camera = f"psnr/{metric.removeprefix(CAMERA_ERROR)}"
        by_candidate = values.pop(metric).items()
        figures[camera] = {name: _statistics(bootstrap, errors, transform=_psnr) for name, errors in by_candidate}
    for name, errors in squared_errors.items():
        figures["psnr"][name] = _statistics(bootstrap, errors, transform=_psnr)
        if name not in (DREAM, TOKENIZER):
            difference = bootstrap.estimate(
                lambda ours, theirs: _psnr(mean(ours)) - _psnr(mean(theirs)), squared_errors[DREAM], errors
            )
            figures["psnr_above"][name] = _as_lists("mean", difference)
    for metric, candidates in values.items():
        figures[metric] = {name: _statistics(bootstrap, array) for name, array in candidates.items()}
    if moved is not None:
        figures["block_moved"] = {REAL: _statistics(bootstrap, moved[REAL])}
        for metric, wanted in (("block_error_where_moved", 1), ("block_error_where_at_rest", 0)):
            figures[metric] = {
                name: _statistics(bootstrap, _where(moved[REAL] == wanted, errors))
                for name, errors in values["block_error"].items()
            }
    return figures


def _where(wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the wanted values (E, F), NaN elsewhere and at steps that have too few of them."""
    return np.where(wanted & (wanted.sum(axis=0) >= MIN_EPISODES), values, np.nan)


def _statistics(
    bootstrap: Bootstrap, values: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, list[Number]]:
    lists = {}
    for name, statistic in (("mean", mean), ("median", median)):
        estimate = bootstrap.estimate(statistic, values)
        lists |= _as_lists(name, estimate.transformed(transform) if transform else estimate)
    return lists


def _as_lists(name: str, estimate: Estimate) -> dict[str, list[Number]]:
    arrays = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: [round_number(value) for value in array] for key, array in arrays.items()}


def round_number(value: float) -> Number:
    """Round a value to five digits, as JSON can store it."""
    if math.isnan(value):
        return None
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


__all__ = ["Figures", "compute_figures", "round_number"]

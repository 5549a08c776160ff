"""Means and medians over episodes, with bootstrap intervals.

Episodes are resampled, not frames: frames of one episode resemble each other, so they would make the intervals too
narrow. Shapes: E episodes, F steps, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 1000
INTERVAL = (0.025, 0.975)
RESAMPLE_BATCH = 100


@dataclass(frozen=True)
class Estimate:
    """A statistic over episodes at each step, (F,) each; NaN where no episode has a value.

    Attributes:
        value: the statistic of all episodes.
        low, high: ends of its 95 % interval (bootstrap percentiles).
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def transformed(self, transform: Callable[[np.ndarray], np.ndarray]) -> "Estimate":
        """Return the estimate in other units. The ends of the interval stay in order."""
        value, *ends = (transform(array) for array in (self.value, self.low, self.high))
        return Estimate(value, np.minimum(*ends), np.maximum(*ends))


class Bootstrap:
    """Estimates over a fixed set of episodes. All share the same resamples, so that differences are taken pairwise.

    Args:
        num_episodes: E.
        seed: seed of the resampling.
        num_resamples: R.
    """

    def __init__(self, num_episodes: int, seed: int = 0, num_resamples: int = NUM_RESAMPLES):
        rng = np.random.default_rng(seed)
        self.rows = rng.integers(num_episodes, size=(num_resamples, num_episodes))

    def estimate(self, statistic: Callable[..., np.ndarray], *values: np.ndarray) -> Estimate:
        """Estimate a statistic of one or several arrays of values.

        Args:
            statistic: function of as many arrays (..., E, F) that returns (..., F).
            values: the arrays, (E, F) each.
        """
        parts = [
            statistic(*(array[rows] for array in values))
            for rows in np.array_split(self.rows, max(1, len(self.rows) // RESAMPLE_BATCH))
        ]
        # Quantiles are not interpolated, because the median of a resample can be infinite.
        low, high = (_quantile(np.concatenate(parts), share) for share in INTERVAL)
        return Estimate(statistic(*values), low, high)


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean (..., F) of the finite values of (..., E, F); NaN where there are none."""
    is_finite = np.isfinite(values)
    count = is_finite.sum(axis=-2)
    total = np.where(is_finite, values, 0).sum(axis=-2)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def median(values: np.ndarray) -> np.ndarray:
    """Return the median (..., F) of (..., E, F) without NaN but with infinite values; NaN where there are no
    values."""
    ordered = np.sort(values, axis=-2)  # NaN last
    count = (~np.isnan(values)).sum(axis=-2, keepdims=True)
    middle = [np.take_along_axis(ordered, np.maximum(index, 0), axis=-2) for index in ((count - 1) // 2, count // 2)]
    middle[1] = np.where(count % 2 == 1, middle[0], middle[1])
    result = (middle[0] + middle[1]) / 2
    return np.where(count > 0, result, np.nan).squeeze(-2)


def _quantile(resampled: np.ndarray, share: float) -> np.ndarray:
    """Return the quantile (F,) of (R, F), ignoring NaN. It is always one of the values."""
    ordered = np.sort(resampled, axis=0)
    count = (~np.isnan(resampled)).sum(axis=0)
    index = np.clip(np.ceil(share * count).astype(int) - 1, 0, None)
    return np.take_along_axis(ordered, index[None], axis=0)[0]

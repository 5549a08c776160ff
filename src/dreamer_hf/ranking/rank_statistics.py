"""How well a ranking of policies agrees with the real one.

Shapes: P policies; leading dimensions are those of resamples.
"""

import numpy as np


def pearson(ours: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the correlation (...) of scores (..., P); NaN where the scores of one side are all the same."""
    ours, real = (scores - scores.mean(axis=-1, keepdims=True) for scores in (ours, real))
    scale = np.sqrt((ours**2).sum(axis=-1) * (real**2).sum(axis=-1))
    return np.divide((ours * real).sum(axis=-1), scale, out=np.full(scale.shape, np.nan), where=scale > 1e-12)


def rank_of(scores: np.ndarray) -> np.ndarray:
    """Return the ranks (..., P) of scores, from 1 for the smallest; equal scores share the mean of their ranks."""
    smaller = (scores[..., None, :] < scores[..., :, None]).sum(axis=-1)
    equal = (scores[..., None, :] == scores[..., :, None]).sum(axis=-1)
    return smaller + (equal + 1) / 2


def spearman(ours: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the correlation (...) of the ranks of scores (..., P)."""
    return pearson(rank_of(ours), rank_of(real))


def mmrv(ours: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the mean maximum rank violation (...) of scores (..., P).

    A pair of policies that the two sides order differently violates by the difference of their real scores; of each
    policy counts the largest violation (Li et al., "Evaluating Real-World Robot Manipulation Policies in Simulation",
    arXiv 2405.05941, section III). It is in the unit of the real scores; 0 is best.
    """
    ours_below = ours[..., :, None] < ours[..., None, :]
    real_below = real[..., :, None] < real[..., None, :]
    violation = np.abs(real[..., :, None] - real[..., None, :]) * (ours_below != real_below)
    return violation.max(axis=-1).mean(axis=-1)


STATISTICS = {"pearson": pearson, "spearman": spearman, "mmrv": mmrv}
TITLES = {"pearson": "Pearson r", "spearman": "Spearman rho", "mmrv": "MMRV"}

__all__ = ["STATISTICS", "TITLES", "mmrv", "pearson", "rank_of", "spearman"]

"""A logistic model of one or a few features, its cross-validation, and how well a score separates two classes.

Shapes: M samples, K features.
"""

from dataclasses import dataclass

import numpy as np

RIDGE = 1e-2
"""Weight of the squared weights, so that separable data have a finite solution."""
MAX_STEPS = 50


@dataclass(frozen=True)
class Logistic:
    """The probability 1 / (1 + exp(-(bias + features @ weights))).

    Attributes:
        weights: (K,) float64.
        bias: its constant.
    """

    weights: np.ndarray
    bias: float

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the log odds (M,) for features (M, K)."""
        return features @ self.weights + self.bias

    def probability(self, features: np.ndarray) -> np.ndarray:
        """Return the probability (M,) for features (M, K)."""
        return 1 / (1 + np.exp(-np.clip(self.score(features), -50, 50)))


def fit_logistic(features: np.ndarray, labels: np.ndarray) -> Logistic:
    """Fit a logistic model by Newton's method, with a small ridge on the weights of the standardized features.

    Args:
        features: (M, K) float.
        labels: (M,) bool, with both classes.
    """
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    inputs = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    ridge = RIDGE * np.diag([0.0, *np.ones(features.shape[1])])
    solution = np.zeros(inputs.shape[1])
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ solution, -30, 30)))
        gradient = inputs.T @ (probability - labels) + ridge @ solution
        weight = np.maximum(probability * (1 - probability), 1e-9)
        step = np.linalg.solve((inputs * weight[:, None]).T @ inputs + ridge, gradient)
        solution -= step / max(1.0, np.abs(step).max() / 4)
        if np.abs(step).max() < 1e-8:
            break
    weights = solution[1:] / scale
    return Logistic(weights, float(solution[0] - mean @ weights))


def cross_validated(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_folds: int = 5) -> np.ndarray:
    """Return the probability (M,) of each sample by a model that was fitted without the samples of its fold.

    Args:
        features, labels: as in `fit_logistic`.
        groups: (M,) int, such as the index of the episode; a group is never divided. Fold f has the groups that are f
            modulo the number of folds.
        num_folds: number of folds; at most as many as there are groups.
    """
    folds = groups % min(num_folds, len(np.unique(groups)))
    probability = np.full(len(labels), labels.mean())
    for fold in np.unique(folds):
        held_out = folds == fold
        if 0 < labels[~held_out].mean() < 1:
            probability[held_out] = fit_logistic(features[~held_out], labels[~held_out]).probability(
                features[held_out]
            )
    return probability


def log_loss(probability: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative logarithm of the probability (M,) of what was (M,), in nats."""
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return float(-np.where(labels, np.log(probability), np.log(1 - probability)).mean())


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive sample scores higher than a negative one; equal scores
    count half.

    Args:
        scores: (M,) float.
        labels: (M,) bool.

    Returns:
        A number from 0 to 1; NaN if there is only one class.
    """
    num_positive, num_negative = int(labels.sum()), int((~labels).sum())
    if not num_positive or not num_negative:
        return float("nan")
    return float((ranks(scores)[labels].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks (M,) of values, from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


__all__ = ["Logistic", "auroc", "cross_validated", "fit_logistic", "log_loss", "ranks"]

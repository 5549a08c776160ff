"""Fréchet distance: how different two sets of frames are as distributions.

It measures whether the frames of dreams look real, not whether they are the right ones. The features are the latents
of the world's tokenizer, the one network that is always available, so figures of worlds with different tokenizers
cannot be compared.

Shapes: E episodes, F steps, D features of a frame, N frames.
"""

import numpy as np

BAND = 16
"""Steps whose frames are taken together: those of one step are too few to estimate a covariance."""


def frechet_by_band(features: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Return the distance between features (E, F, D) for every `BAND` steps, by "first-last" step (counted from 1).

    Bands with fewer frames than features are left out, because their covariance cannot be estimated.
    """
    distances = {}
    for start in range(0, features.shape[1], BAND):
        ours, theirs = (array[:, start : start + BAND] for array in (features, real))
        last = start + ours.shape[1]
        ours, theirs = (array.reshape(-1, array.shape[-1]) for array in (ours, theirs))
        if len(ours) >= ours.shape[1]:
            distances[f"{start + 1}-{last}"] = frechet_distance(ours, theirs)
    return distances


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the squared Fréchet distance of the normal distributions that fit features (N, D) and (M, D).

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (2017).
    """
    means = first.mean(axis=0) - second.mean(axis=0)
    one, other = (np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (first, second))
    # The trace of sqrt(AB), from a symmetric matrix with the same eigenvalues.
    root = _square_root(one)
    eigenvalues = np.linalg.eigvalsh(root @ other @ root).clip(min=0)
    return float(means @ means + np.trace(one) + np.trace(other) - 2 * np.sqrt(eigenvalues).sum())


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T

"""Fréchet distance: how far apart two crowds of frames are, whichever frame goes with which.

It asks whether dreamt frames look like real ones, not whether they are the right ones. The features are the latents of
the world's own tokenizer, the one network that is always at hand: figures of worlds with different tokenizers do not
compare.

Shapes: E episodes, F steps, D features of a frame, N frames.
"""

import numpy as np

BAND = 16
"""Steps whose frames are taken together: those of one step are too few to know a covariance by."""


def frechet_by_band(features: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """(E,F,D) twice -> the distance for every `BAND` steps, under "first-last" (counted from 1).

    Bands with fewer frames than features are left out: their covariance is not known.
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
    """(N,D) and (M,D) -> squared Fréchet distance of the normal distributions with their means and covariances.

    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (2017).
    """
    means = first.mean(axis=0) - second.mean(axis=0)
    one, other = (np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False)) for features in (first, second))
    # tr sqrt(AB), by a symmetric matrix of the same eigenvalues.
    root = _square_root(one)
    eigenvalues = np.linalg.eigvalsh(root @ other @ root).clip(min=0)
    return float(means @ means + np.trace(one) + np.trace(other) - 2 * np.sqrt(eigenvalues).sum())


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T

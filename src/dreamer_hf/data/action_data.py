"""Mean, deviation and range of actions, gathered while they stream by and merged across processes."""

from dataclasses import dataclass

import numpy as np


@dataclass
class ActionStatistics:
    """Running moments of each action dimension, in float64; all arrays are (action_dim,)."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    """Sum of squared deviations from the mean."""
    min: np.ndarray
    max: np.ndarray

    @classmethod
    def empty(cls, action_dim: int) -> "ActionStatistics":
        zeros = np.zeros(action_dim)
        return cls(0, zeros, zeros, np.full(action_dim, np.inf), np.full(action_dim, -np.inf))

    @classmethod
    def of(cls, actions: np.ndarray) -> "ActionStatistics":
        """Statistics of `actions` (frames, action_dim)."""
        if len(actions) == 0:
            return cls.empty(actions.shape[1])
        actions = actions.astype(np.float64)
        mean = actions.mean(axis=0)
        return cls(len(actions), mean, ((actions - mean) ** 2).sum(axis=0), actions.min(axis=0), actions.max(axis=0))

    def merge(self, other: "ActionStatistics") -> "ActionStatistics":
        """Statistics of both samples together (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        return ActionStatistics(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
            np.minimum(self.min, other.min),
            np.maximum(self.max, other.max),
        )

    def to_dict(self) -> dict[str, list[float]] | None:
        """`{"mean", "std", "min", "max", "count"}` as metadata and model configs hold them; None without actions."""
        if self.count == 0:
            return None
        std = np.sqrt(self.squares / self.count)
        named = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return {name: values.tolist() for name, values in named.items()} | {"count": self.count}

    @classmethod
    def from_dict(cls, stats: dict) -> "ActionStatistics":
        """Inverse of `to_dict`."""
        count = int(stats["count"])
        mean, std, low, high = (np.asarray(stats[name], np.float64) for name in ("mean", "std", "min", "max"))
        return cls(count, mean, std**2 * count, low, high)

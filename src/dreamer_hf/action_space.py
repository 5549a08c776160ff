"""The actions of a world: names, units and ranges, in the units of the data that it was trained on."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ActionSpace:
    """The actions of a world: a name and a range for each of its A dimensions, in raw units.

    Attributes:
        names: A names, for people.
        low, high: float32 (A,), the smallest and the largest value in the training data.
        centered: bool (A,), whether zero means "do nothing", as in displacements and velocities.
        discrete: bool (A,), whether the values are class numbers (0, 1, ...), as of a button.
        units: A units, for people, or None where the world knows none.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    centered: np.ndarray
    discrete: np.ndarray
    units: tuple[str, ...] | None = None

    @classmethod
    def from_config(cls, config) -> "ActionSpace":
        """Reads the action space off a `DreamerDynamicsConfig`.

        The range is that of the training data, or two standard deviations about the mean where the statistics have no
        extremes, or [-1, 1] without statistics. A dimension counts as centered on zero when zero lies strictly inside
        its range and within half a standard deviation of its mean: so do displacements; absolute positions, as a
        rule, do not.
        """
        size, stats = config.action_dim, config.action_stats or {"mean": [0.0], "std": [0.5]}
        names = tuple(config.action_names or (f"action {i}" for i in range(size)))
        units = None if config.action_units is None else tuple(config.action_units)
        mean, std = (np.broadcast_to(np.asarray(stats[key], dtype=np.float64), size) for key in ("mean", "std"))
        low, high = np.asarray(stats.get("min", mean - 2 * std)), np.asarray(stats.get("max", mean + 2 * std))
        classes = np.asarray(config.action_num_classes or [0] * size)
        low, high = np.where(classes > 0, 0, low), np.where(classes > 0, classes - 1, high)
        centered = (low < 0) & (high > 0) & (np.abs(mean) <= std / 2)
        return cls(names, low.astype(np.float32), high.astype(np.float32), centered, classes > 0, units)

    @property
    def size(self) -> int:
        return len(self.low)

    @property
    def labels(self) -> list[str]:
        """Names with their units."""
        units = self.units or ("",) * self.size
        return [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, units, strict=True)]

    @property
    def rest(self) -> np.ndarray:
        """The action of a hand that does nothing, float32 (A,): zero where zero is in range, else the middle."""
        contains_zero = (self.low <= 0) & (self.high >= 0)
        return np.where(contains_zero, 0.0, (self.low + self.high) / 2).astype(np.float32)

    @property
    def is_relative(self) -> bool:
        """Whether the actions are, for the most part, displacements: half of the continuous dimensions are centered."""
        continuous = ~self.discrete
        return not continuous.any() or bool(self.centered[continuous].mean() >= 0.5)

    def valid(self, action: np.ndarray) -> np.ndarray:
        """The nearest action (A,) float32 inside the range, with whole numbers in the discrete dimensions."""
        action = np.clip(action, self.low, self.high)
        return np.where(self.discrete, np.round(action), action).astype(np.float32)

    def fraction(self, action: np.ndarray) -> np.ndarray:
        """Where an action lies in its range, 0 at the low end and 1 at the high one, (A,); for drawing."""
        width = np.maximum(self.high - self.low, 1e-9)
        return np.clip((action - self.low) / width, 0.0, 1.0)

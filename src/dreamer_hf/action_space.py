"""The actions of a world: names, units, ranges and meaning, in the units of the data that it was trained on."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ActionSpace:
    """The A components of a world's actions, in raw units.

    Attributes:
        names: A names, for people.
        low, high: float32 (A,), the smallest and the largest value in the training data.
        relative: bool (A,), whether a component is a displacement (or a velocity, ...) instead of a position to go to.
        discrete: bool (A,), whether the values are class numbers (0, 1, ...), such as those of a button.
        units: A units, for people; None if the world does not know them.
        limits: float32 (2, A), the smallest and the largest value that the world takes, infinite where it has no
            limit; None: `low` and `high`.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    relative: np.ndarray
    discrete: np.ndarray
    units: tuple[str, ...] | None = None
    limits: np.ndarray | None = None

    @classmethod
    def from_config(cls, config) -> "ActionSpace":
        """Return the action space of a `DreamerDynamicsConfig`.

        The range is that of the training data; if the statistics lack it, two standard deviations around the mean;
        without statistics, [-1, 1]. `relative` is `config.relative_actions`. If that is None, it is a guess, the same
        for all components: displacements if, in at least half of the continuous components, zero lies inside the range
        and within half a standard deviation of the mean.
        """
        size, stats = config.action_dim, config.action_stats or {"mean": [0.0], "std": [0.5]}
        names = tuple(config.action_names or (f"action {i}" for i in range(size)))
        units = None if config.action_units is None else tuple(config.action_units)
        mean, std = (np.broadcast_to(np.asarray(stats[key], dtype=np.float64), size) for key in ("mean", "std"))
        low, high = np.asarray(stats.get("min", mean - 2 * std)), np.asarray(stats.get("max", mean + 2 * std))
        classes = np.asarray(config.action_num_classes or [0] * size)
        low, high = np.where(classes > 0, 0, low), np.where(classes > 0, classes - 1, high)
        limits = np.stack([low if "min" in stats else low - np.inf, high if "max" in stats else high + np.inf])
        limits = np.where(classes > 0, [low, high], limits).astype(np.float32)
        relative = config.relative_actions
        if relative is None:
            centered = (low < 0) & (high > 0) & (np.abs(mean) <= std / 2)
            relative = [_mostly(centered[classes == 0])] * size
        low, high = low.astype(np.float32), high.astype(np.float32)
        return cls(names, low, high, np.array(relative), classes > 0, units, limits)

    @property
    def size(self) -> int:
        """Number of components A."""
        return len(self.low)

    @property
    def labels(self) -> list[str]:
        """Names with their units."""
        units = self.units or ("",) * self.size
        return [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, units, strict=True)]

    @property
    def rest(self) -> np.ndarray:
        """The action of doing nothing, float32 (A,): zero where zero is in range, otherwise the middle."""
        contains_zero = (self.low <= 0) & (self.high >= 0)
        return np.where(contains_zero, 0.0, (self.low + self.high) / 2).astype(np.float32)

    @property
    def is_relative(self) -> bool:
        """Whether at least half of the continuous components are displacements."""
        return _mostly(self.relative[~self.discrete])

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Return actions (..., A) as the world takes them: float32, clipped to the limits of its training data."""
        low, high = (self.low, self.high) if self.limits is None else self.limits
        return np.clip(np.asarray(actions, dtype=np.float32), low, high)

    def valid(self, action: np.ndarray) -> np.ndarray:
        """Return the nearest action (A,) float32 inside the range, with whole numbers for the discrete components.

        Raises:
            ValueError: a value is not finite.
        """
        if not np.isfinite(action).all():
            raise ValueError("the action holds a value that is not a finite number: give finite ones.")
        action = np.clip(action, self.low, self.high)
        return np.where(self.discrete, np.round(action), action).astype(np.float32)

    def fraction(self, action: np.ndarray) -> np.ndarray:
        """Return where an action lies in its range, (A,): 0 at the low end, 1 at the high end."""
        width = np.maximum(self.high - self.low, 1e-9)
        return np.clip((action - self.low) / width, 0.0, 1.0)


def _mostly(flags: np.ndarray) -> bool:
    """Return whether at least half of some flags are set, or there are none."""
    return not flags.size or bool(flags.mean() >= 0.5)


__all__ = ["ActionSpace"]

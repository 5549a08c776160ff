"""The state of a world: names, units and ranges, in the units of the data that it was trained on."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StateSpace:
    """The S components of a world's state.

    Attributes:
        names: S names, for people.
        low, high: float32 (S,), the smallest and the largest value in the training data.
        mean: float32 (S,), that of the training data, for a state that is not known.
        units: S units, for people; None if the world does not know them.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    units: tuple[str, ...] | None = None

    @classmethod
    def from_config(cls, config) -> "StateSpace":
        """Return the state space of a `DreamerDynamicsConfig`, with S = 0 for a world without a state.

        The range is that of the training data; if the statistics lack it, two standard deviations around the mean;
        without statistics, [-1, 1].
        """
        size, stats = config.state_dim, config.state_stats or {"mean": [0.0], "std": [0.5]}
        names = tuple(config.state_names or (f"state {i}" for i in range(size)))
        units = None if config.state_units is None else tuple(config.state_units)
        mean, std = (np.broadcast_to(np.asarray(stats[key], dtype=np.float64), size) for key in ("mean", "std"))
        low, high = np.asarray(stats.get("min", mean - 2 * std)), np.asarray(stats.get("max", mean + 2 * std))
        return cls(names, *(part.astype(np.float32) for part in (low, high, mean)), units)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> tuple[str, ...]:
        """Each name and, where there is one, its unit in brackets."""
        if self.units is None:
            return self.names
        return tuple(f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, self.units, strict=True))

    def fraction(self, values: np.ndarray) -> np.ndarray:
        """Return where values (S,) are in their ranges: 0 at `low`, 1 at `high`, clipped to these."""
        return np.clip((values - self.low) / self.extent, 0, 1)

    @property
    def extent(self) -> np.ndarray:
        """float32 (S,), the difference of the largest and the smallest value; 1 for a component that never changed."""
        extent = self.high - self.low
        return np.where(extent > 0, extent, 1).astype(np.float32)


__all__ = ["StateSpace"]

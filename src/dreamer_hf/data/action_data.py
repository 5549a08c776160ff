"""Actions as numbers: their statistics, gathered while they stream by, and tables of them in files.

A is the number of action dimensions.
"""

import csv
import re
import tokenize
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import first_line

ROUNDING_STEPS = 4
"""A standard deviation of fewer steps between neighboring float32 values is rounding noise."""
UNREADABLE = (
    *(ValueError, AttributeError, EOFError, OSError, MemoryError, csv.Error),
    *(TypeError, OverflowError, SyntaxError, RecursionError, tokenize.TokenError, zipfile.BadZipFile),
)
"""What NumPy and `csv` raise for files that are damaged; NumPy parses the header of a `.npy` file as Python code."""


@dataclass
class ActionStatistics:
    """Running moments of each action dimension, in float64; all arrays are (A,)."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    """Sum of squared deviations from the mean."""
    min: np.ndarray
    max: np.ndarray

    @classmethod
    def empty(cls, action_dim: int) -> "ActionStatistics":
        """Return the statistics of no actions."""
        zeros = np.zeros(action_dim)
        return cls(0, zeros, zeros, np.full(action_dim, np.inf), np.full(action_dim, -np.inf))

    @classmethod
    def of(cls, actions: np.ndarray) -> "ActionStatistics":
        """Return the statistics of `actions` (frames, A)."""
        if len(actions) == 0:
            return cls.empty(actions.shape[1])
        actions = actions.astype(np.float64)
        mean = actions.mean(axis=0)
        return cls(len(actions), mean, ((actions - mean) ** 2).sum(axis=0), actions.min(axis=0), actions.max(axis=0))

    def merge(self, other: "ActionStatistics") -> "ActionStatistics":
        """Return the statistics of both samples together (Chan, Golub, LeVeque 1979)."""
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
        """Return `{"mean", "std", "min", "max", "count"}` as metadata and model configs hold them; None without
        actions.

        The std of a dimension that only varies by rounding is 0; see `without_rounding_noise`.
        """
        if self.count == 0:
            return None
        named = {"mean": self.mean, "std": np.sqrt(self.squares / self.count), "min": self.min, "max": self.max}
        stats = {name: values.tolist() for name, values in named.items()} | {"count": self.count}
        return without_rounding_noise(stats)

    @classmethod
    def from_dict(cls, stats: dict) -> "ActionStatistics":
        """Return the statistics that `to_dict` described."""
        count = int(stats["count"])
        mean, std, low, high = (np.asarray(stats[name], np.float64) for name in ("mean", "std", "min", "max"))
        return cls(count, mean, std**2 * count, low, high)


def without_rounding_noise(stats: dict) -> dict:
    """Return statistics in which dimensions that only vary by the rounding of their values to float32 have a std of 0.

    Such dimensions are as good as constant: divided by their std, noise would be as large as any signal.

    Args:
        stats: as `ActionStatistics.to_dict` returns them; shards of older versions have stds as computed, and those of
            other writers may lack `min` and `max`.
    """
    std = np.asarray(stats["std"], np.float64)
    largest = np.abs([stats[name] for name in ("mean", "min", "max") if name in stats]).max(axis=0)
    is_noise = std <= ROUNDING_STEPS * np.finfo(np.float32).eps * largest
    return stats | {"std": np.where(is_noise, 0.0, std).tolist()}


def vary_around_zero(stats: dict | None) -> np.ndarray:
    """Return, for each dimension (A,) bool, whether zero lies inside its range and close to its mean, as in
    displacements.

    Args:
        stats: as `ActionStatistics.to_dict` returns them.
    """
    if stats is None:
        return np.zeros(0, bool)
    mean, std, low, high = (np.asarray(stats[name]) for name in ("mean", "std", "min", "max"))
    return (low < 0) & (high > 0) & (np.abs(mean) <= std / 2)


def read_action_table(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """Read a table of actions from a `.npy` or `.csv` file, one row per frame.

    A CSV file is read as spreadsheets save it: it may start with a row of names and a byte order mark, may have quoted
    cells and empty lines and, where the comma is the decimal point, semicolons.

    Returns:
        (frames, A) in the numeric type of the file (CSV: float64), and the names of the dimensions or None.

    Raises:
        ValueError: the file does not hold a table of numbers, or not one name per column.
    """
    try:
        actions, names = (
            _read_csv(path) if path.suffix.lower() == ".csv" else (np.load(path, allow_pickle=False), None)
        )
        if actions.dtype.kind not in "fiub" or actions.ndim != 2 or not actions.size:
            raise ValueError(f"shape {actions.shape} and type {actions.dtype}")
    except UNREADABLE as error:
        raise ValueError(
            f"{path} does not hold a table of numbers, one row of actions per frame ({first_line(error)}): repair or "
            "remove it."
        ) from error
    return actions, names


def _read_csv(path: Path) -> tuple[np.ndarray, list[str] | None]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    # A separator inside quotes belongs to a name.
    delimiter = ";" if lines and ";" in re.sub('"[^"]*"', "", lines[0]) else ","
    rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    numbers = [[cell.replace(",", ".") for cell in row] for row in rows] if delimiter == ";" else rows
    names = rows[0] if rows and not any(map(_is_number, numbers[0])) else None
    rows = numbers if names is None else numbers[1:]
    if names is not None and rows and len(names) != len(rows[0]):
        raise ValueError(f"{len(names)} names for {len(rows[0])} columns")
    return np.array([[float(cell) for cell in row] for row in rows], np.float64), names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

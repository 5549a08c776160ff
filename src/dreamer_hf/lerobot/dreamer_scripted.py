"""A teleoperator without a person, for tests and demonstrations."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from lerobot.teleoperators.teleoperator import Teleoperator

from .config_dreamer_scripted import DreamerScriptedConfig
from .motor_names import motor_features, motor_key
from .world_facts import read_world_facts


class DreamerScripted(Teleoperator):
    """Plays the actions of a CSV file again and again, or a random walk over the range of a world's actions.

    Raises:
        ValueError: the file holds no actions, or there is no such world.
        FileNotFoundError: there is no such file.
    """

    config_class = DreamerScriptedConfig
    name = "dreamer_scripted"

    def __init__(self, config: DreamerScriptedConfig):
        super().__init__(config)
        if config.file is not None:
            self._names, rows = _read_actions(Path(config.file))
            self._script = itertools.cycle(rows)
        else:
            space = read_world_facts(config.world).actions
            self._names, self._script = space.names, _random_walk(space, config.seed, config.step)
        self._is_connected = False

    @cached_property
    def action_features(self) -> dict:
        """See `Teleoperator`."""
        return motor_features(self._names)

    @property
    def feedback_features(self) -> dict:
        """None."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether `connect` was called."""
        return self._is_connected

    @property
    def is_calibrated(self) -> bool:
        """Always: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Begin."""
        self._is_connected = True

    def calibrate(self) -> None:
        """Do nothing."""

    def configure(self) -> None:
        """Do nothing."""

    def get_action(self) -> dict[str, float]:
        """Return the next action by name."""
        values = next(self._script)
        return {motor_key(name): float(value) for name, value in zip(self._names, values, strict=True)}

    def send_feedback(self, feedback: dict) -> None:
        """Do nothing."""

    def disconnect(self) -> None:
        """End."""
        self._is_connected = False


def _read_actions(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the actions (T, A) of a CSV file."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} of actions: check --teleop.file.")
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    try:
        actions = np.array(lines[1:], np.float64)
    except ValueError:
        actions = np.zeros(0)
    if actions.ndim != 2 or actions.shape[1] != len(lines[0]) or not np.isfinite(actions).all():
        raise ValueError(
            f"{path} holds no actions: write their names in the first line, and one number for each in all others."
        )
    return tuple(name.strip() for name in lines[0]), actions


def _random_walk(space, seed: int, step: float) -> Iterator[np.ndarray]:
    """Yield actions (A,) that wander through the range, and turn around at its ends."""
    rng, width = np.random.default_rng(seed), space.high - space.low
    action = rng.uniform(space.low, space.high)
    while True:
        yield np.where(space.discrete, np.round(action), action)
        moved = action + rng.normal(0, step, space.size) * width
        moved = np.where(moved > space.high, 2 * space.high - moved, moved)
        moved = np.where(moved < space.low, 2 * space.low - moved, moved)
        action = np.clip(moved, space.low, space.high)


__all__ = ["DreamerScripted"]

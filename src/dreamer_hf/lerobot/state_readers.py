"""What a policy gets as `observation.state`: the world's own state, or what the images show.

Shapes: N rows, R of them, S numbers of a state, A components of an action, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..action_space import ActionSpace
from .world_facts import WorldFacts

STATE_KINDS = ("auto", "world", "pusht", "none")


class StateReader(Protocol):
    """Reads the states of N rows.

    Attributes:
        names: S names.
    """

    names: tuple[str, ...]

    def read(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Return the states float32 (R, S) of some rows.

        Args:
            rows: indices of the R rows.
            frames: uint8 (R, H, W, 3), what they show.
            states: float32 (R, ...), the world's own state.
        """

    def restart(self, rows: Sequence[int]) -> None:
        """Forget what was read of some rows: other dreams begin there."""

    def places(self, states: np.ndarray, past_actions: np.ndarray) -> np.ndarray:
        """Return where the actions of R rows are heading, in units of positions: (R, A), NaN where that is not known.

        Args:
            states: (R, S), as read.
            past_actions: float32 (R, C, A), the world's actions that led to the frames; 0 where there was none.
        """


class WorldState:
    """The state that the world predicts; see `StateReader`."""

    def __init__(self, facts: WorldFacts):
        self.names = facts.state.names
        self._actions = facts.actions

    def read(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See `StateReader`."""
        return states.astype(np.float32)

    def restart(self, rows: Sequence[int]) -> None:
        """See `StateReader`."""

    def places(self, states: np.ndarray, past_actions: np.ndarray) -> np.ndarray:
        """See `StateReader`. A robot is assumed to be where it is heading."""
        return _by_name(self._actions, self.names, states)


class PushTImageState:
    """The agent's position in images of PushT, in pixels of the simulator; see `StateReader`.

    Where the agent is not found, the last position is held, at the start that of the middle.
    """

    names = ("agent_x", "agent_y")

    def __init__(self, facts: WorldFacts, num_rows: int):
        from ..pusht.task import FPS, WORLD_SIZE

        self._middle = WORLD_SIZE / 2
        self._ticks_per_frame = max(1, round(FPS / facts.fps))
        self._relative = facts.actions.relative
        self._last = np.full((num_rows, 2), self._middle, np.float32)

    def read(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See `StateReader`."""
        import torch

        from ..pusht.state import find_pusht_agent

        found = find_pusht_agent(torch.from_numpy(frames).movedim(-1, 1) / 255).numpy()
        self._last[rows] = np.where(np.isnan(found), self._last[rows], found)
        return self._last[rows]

    def restart(self, rows: Sequence[int]) -> None:
        """See `StateReader`."""
        self._last[rows] = self._middle

    def places(self, states: np.ndarray, past_actions: np.ndarray) -> np.ndarray:
        """See `StateReader`. While the agent moves, its target is ahead of it."""
        from ..pusht.target_lag import target_ahead

        changes = np.where(self._relative, past_actions, 0)
        return states + np.stack([target_ahead(each, self._ticks_per_frame) for each in changes])


class NoState:
    """No state at all; see `StateReader`."""

    names: tuple[str, ...] = ()

    def __init__(self, facts: WorldFacts):
        self._size = facts.actions.size

    def read(self, rows: Sequence[int], frames: np.ndarray, states: np.ndarray) -> np.ndarray:
        """See `StateReader`."""
        return np.zeros((len(frames), 0), np.float32)

    def restart(self, rows: Sequence[int]) -> None:
        """See `StateReader`."""

    def places(self, states: np.ndarray, past_actions: np.ndarray) -> np.ndarray:
        """See `StateReader`."""
        return np.full((len(states), self._size), np.nan)


def state_kind(kind: str, facts: WorldFacts) -> str:
    """Return "world", "pusht" or "none": what `kind` stands for, where "auto" is the best that the world has.

    Raises:
        ValueError: an unknown kind, or one that the world does not have.
    """
    if kind not in STATE_KINDS:
        raise ValueError(f"unknown state {kind!r}: choose one of {', '.join(STATE_KINDS)}.")
    if kind == "world" and not len(facts.state):
        raise ValueError(
            f"the world {facts.model} has no state: train one on data with a state, or leave out --env.state."
        )
    if kind == "pusht" and (facts.actions.size != 2 or facts.cameras):
        raise ValueError(f"the world {facts.model} is not one of PushT: leave out --env.state.")
    if kind != "auto":
        return kind
    if len(facts.state):
        return "world"
    return "pusht" if facts.is_pusht else "none"


def state_names(kind: str, facts: WorldFacts) -> tuple[str, ...]:
    """Return the names of the numbers that a kind of state, as `state_kind` returns it, consists of."""
    return {"world": facts.state.names, "pusht": PushTImageState.names, "none": ()}[kind]


def make_state_reader(kind: str, facts: WorldFacts, num_rows: int) -> StateReader:
    """Return what reads a kind of state, as `state_kind` returns it, in N rows."""
    if kind == "pusht":
        return PushTImageState(facts, num_rows)
    return WorldState(facts) if kind == "world" else NoState(facts)


def _by_name(actions: ActionSpace, names: tuple[str, ...], states: np.ndarray) -> np.ndarray:
    """Return the state of each action component (R, A), which has its name, or its place where there are as many."""
    places = np.full((len(states), actions.size), np.nan)
    for index, name in enumerate(actions.names):
        if name in names:
            places[:, index] = states[:, names.index(name)]
    return states.astype(np.float64) if np.isnan(places).all() and len(names) == actions.size else places


__all__ = ["STATE_KINDS", "StateReader", "make_state_reader", "state_kind", "state_names"]

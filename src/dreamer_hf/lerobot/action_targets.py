"""Actions of a policy or a teleoperator -> actions of a world.

LeRobot's devices and most of its policies give positions to go to. A world that was trained on the changes between
such positions (`--relative_actions` of the converters) takes those. So the position that each dream is heading for is
kept, and the next action is the change that leads from it to where the policy wants to be.

Shapes: N rows, R of them, A components of an action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..action_space import ActionSpace

ACTION_FORMS = ("auto", "absolute", "world")
FARTHER = 1.5
"""The policy's actions are absolute if they spread this many times as far as the world's changes."""
TOLERANCE = 1e-3
"""Part of a component's range by which an action may be outside of it without being counted as clipped."""


def are_absolute(form: str, space: ActionSpace, policy_spread: np.ndarray | None = None) -> bool:
    """Return whether actions are positions that have to be turned into the changes that a world takes.

    Args:
        form: "absolute", "world" (as the world takes them), or "auto": absolute if the world takes changes, unless the
            policy's own actions spread no farther than these.
        space: the world's actions.
        policy_spread: (A,) standard deviations of the actions that the policy learned from, if they are known.

    Raises:
        ValueError: an unknown form.
    """
    if form not in ACTION_FORMS:
        raise ValueError(f"unknown form of actions {form!r}: choose one of {', '.join(ACTION_FORMS)}.")
    changes = space.relative & ~space.discrete
    if form == "world" or not changes.any():
        return False
    if form == "absolute" or policy_spread is None or policy_spread.shape != changes.shape:
        return True
    # The widest part of a distribution of changes that is uniform over their range has this standard deviation.
    widest = (space.high - space.low) / np.sqrt(12)
    return bool(np.median(policy_spread[changes] / np.maximum(widest[changes], 1e-9)) > FARTHER)


class ActionTargets:
    """Turns the actions of N rows into those of a world, and counts what had to be clipped to its range.

    Args:
        space: the world's actions.
        num_rows: N.
        absolute: whether actions are positions, and components that the world takes as changes have to be turned into
            these. Otherwise they are passed on.

    Attributes:
        clipped: int64 (N,), the number of actions of each dream so far that were outside of the world's range. An
            absolute action that is too far away is approached by the largest change.
    """

    def __init__(self, space: ActionSpace, num_rows: int, absolute: bool):
        self._space = space
        self._changes = space.relative & ~space.discrete & absolute
        self._targets = np.full((num_rows, space.size), np.nan)
        self._tolerance = TOLERANCE * np.maximum(space.high - space.low, 1e-9)
        self.clipped = np.zeros(num_rows, np.int64)

    @property
    def converts(self) -> bool:
        """Whether any component is turned into changes."""
        return bool(self._changes.any())

    @property
    def positions(self) -> np.ndarray:
        """Where the rows are heading, (N, A); components that are passed on are as they were given last."""
        return self._targets.copy()

    def restart(self, rows: Sequence[int], places: np.ndarray) -> None:
        """Begin again in R rows that head for `places` (R, A), NaN where that is not known.

        A row whose place is not known is where its first action wants it to be, as in converted data.
        """
        self._targets[rows], self.clipped[rows] = places, 0

    def to_world(self, actions) -> tuple[np.ndarray, np.ndarray]:
        """Return the world's actions, float32 (N, A), and whether each was clipped, bool (N,).

        Raises:
            ValueError: another shape, or an action that is not finite.
        """
        actions = np.asarray(actions, np.float64)
        if actions.shape != self._targets.shape:
            raise ValueError(f"expected actions of shape {self._targets.shape}, got {actions.shape}.")
        if not np.isfinite(actions).all():
            raise ValueError("the policy gave an action that is not finite: check its normalization statistics.")
        held = np.where(np.isnan(self._targets), actions, self._targets)
        wanted = np.where(self._changes, actions - held, actions)
        wanted = np.where(self._space.discrete, np.round(wanted), wanted)
        raw = self._space.clip(wanted)
        self._targets = np.where(self._changes, held + raw, raw)
        clipped = (np.abs(raw - wanted) > self._tolerance).any(axis=1)
        self.clipped += clipped
        return raw, clipped


__all__ = ["ACTION_FORMS", "ActionTargets", "are_absolute"]

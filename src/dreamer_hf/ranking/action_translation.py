"""From what a policy gives to what a world takes. Shapes: N episodes, A action components."""

import numpy as np

from ..action_space import ActionSpace


class ActionTranslator:
    """Turns actions of policies into those of a world, and counts where they had to be clipped.

    Of a position the world's relative components get the way from the present position. Where a step is longer than
    any in the training data, the world takes the longest one, and the rest of the way remains for the next step.

    Args:
        space: the world's actions.
        positions: float64 (N, A), where the actions before have led; None if policies give the world's own actions.

    Attributes:
        positions: where the actions so far have led.
        num_clipped: number of actions, of episodes and steps, that were clipped.
    """

    def __init__(self, space: ActionSpace, positions: np.ndarray | None):
        self.space, self.num_clipped = space, 0
        self.positions = None if positions is None else np.array(positions, np.float64)

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """Return the world's actions, float32 (N, A), for actions (N, A) of a policy."""
        wanted = actions
        if self.positions is not None:
            wanted = np.where(self.space.relative, actions - self.positions, actions)
        clipped = self.space.clip(wanted)
        self.num_clipped += int((np.abs(clipped - wanted) > 1e-3).any(axis=1).sum())
        if self.positions is not None:
            self.positions = np.where(self.space.relative, self.positions + clipped, clipped)
        return clipped


__all__ = ["ActionTranslator"]

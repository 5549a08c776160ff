"""The scripted players of PushT as policies: they see agent and block in the frames.

Shapes: N episodes.
"""

from collections.abc import Sequence

import numpy as np

from ..pusht.goal_player import make_player
from .observations import Observation, WorldView


class PlayerPolicy:
    """A scripted player, one for each episode. Its actions are positions.

    Args:
        name: of the player, as in `make_player`.

    Raises:
        ValueError: there is no such player.
    """

    image_side, gives_positions = None, True

    def __init__(self, name: str):
        self.name = name
        make_player(name, np.random.default_rng(0))

    def check_fits(self, view: WorldView) -> None:
        """See `Policy`."""
        if not view.has_scene or view.action_size != 2:
            raise ValueError(
                f"player:{self.name} plays PushT, which this world does not show: choose a world of PushT."
            )

    def reset(self, seeds: Sequence[int], observation: Observation) -> None:
        """See `Policy`."""
        self._players = [make_player(self.name, np.random.default_rng([seed, 1])) for seed in seeds]
        for player, position in zip(self._players, observation.positions, strict=True):
            player.reset(position)

    def act(self, observation: Observation) -> np.ndarray:
        """See `Policy`."""
        return np.array([player.act(row[:2], row[2:]) for player, row in zip(self._players, observation.scene)])


__all__ = ["PlayerPolicy"]

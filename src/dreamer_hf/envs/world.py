"""A world as one Gymnasium environment."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from .action_format import add_row_axis
from .dream_rows import DreamOptions, DreamRows

if TYPE_CHECKING:
    from ..modeling_dreamer_world import DreamerWorldModel
    from ..onnx import OnnxRollout, OnnxWorld
    from ..rollout import DreamerRollout


class DreamerWorldEnv(gymnasium.Env):
    """A dream to act in: `gymnasium.make("dreamer_hf/DreamerWorld-v0", model="folder or repository")`.

    Observations are frames, uint8 (H, W, 3) RGB, several cameras side by side. Those of a world with a state are
    dictionaries of `pixels`, the frame, and `state`, float32 (S,) in the units of the data.

    Actions are raw, in the units of the data and over its range (see `ActionFormat` for the spaces). `reset(seed=...)`
    decides the start and all noise: the same seed and actions give the same dream. `reset(options=...)` chooses the
    start or gives frames (see `select_starts`). A dream does not end by itself: give `terminated_fn`, or
    `max_episode_steps` to `make`.

    Args:
        model: folder or Hub repository of a `DreamerWorldModel`, or a loaded one (which needs `start`).
        render_mode: None, "rgb_array", or "human": a window with the frame and the action (extra `play`).
        options: fields of `DreamOptions`.

    Attributes:
        action_names, action_units: of the action's components; units are None if the world does not know them.

    Raises:
        ValueError: the world, adapter, start frames or display do not exist, or do not fit.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}

    def __init__(
        self, model: str | os.PathLike | DreamerWorldModel | OnnxWorld, render_mode: str | None = None, **options
    ):
        self._rows = DreamRows(model, DreamOptions(**options), num_rows=1)
        dreams = self._rows.dreams
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": dreams.fps}
        self.observation_space = self._rows.observation_space
        self.action_space = self._rows.format.space
        self.action_names, self.action_units = dreams.space.names, dreams.space.units
        self._viewer = self._open_viewer() if render_mode == "human" else None

    @property
    def world(self) -> DreamerWorldModel | OnnxWorld:
        """The model; clones share it."""
        return self._rows.dreams.world

    @property
    def rollout(self) -> DreamerRollout | OnnxRollout | None:
        """The rollout of the dream (one row); `rollout.clone(rows=[0] * 64)` is where a planner tries futures."""
        return self._rows.rollout

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray | dict, dict]:
        """Start a new dream; see the class and `select_starts` for the arguments."""
        super().reset(seed=seed)
        self._rows.restart([0], [self.np_random], options)
        self._show()
        return self._rows.observation(0), self._rows.info(0)

    def step(self, action) -> tuple[np.ndarray | dict, float, bool, bool, dict]:
        """Dream the frame that an action leads to.

        Raises:
            ValueError: no element of the action space, or values that are not finite.
        """
        transition = self._rows.step(self._rows.format.to_raw(add_row_axis(action)))
        rewards, ends = self._rows.evaluate(transition)
        self._show()
        return self._rows.observation(0), float(rewards[0]), bool(ends[0]), False, self._rows.info(0)

    def render(self) -> np.ndarray | None:
        """Return the frame, uint8 (H, W, 3), in the mode "rgb_array"; in "human", every step draws the window."""
        return self._rows.frames[0] if self.render_mode == "rgb_array" else None

    def clone(self) -> DreamerWorldEnv:
        """Return an independent copy in the same state, which shares the model and has no window. `copy.deepcopy` of
        this environment, wrapped or not, does the same."""
        twin = copy.copy(self)
        twin._rows = self._rows.clone()
        twin._np_random = copy.deepcopy(self._np_random)
        twin.action_space = copy.deepcopy(self.action_space)
        twin._viewer = None
        return twin

    def __deepcopy__(self, memo: dict) -> DreamerWorldEnv:
        return self.clone()

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def _open_viewer(self):
        from .viewer import DreamViewer

        dreams = self._rows.dreams
        return DreamViewer(dreams.frame_size, dreams.space, dreams.fps, dreams.state_space)

    def _show(self) -> None:
        if self._viewer is not None:
            (dream,) = self._rows.rows
            self._viewer.show(dream.frame, dream.action, dream.step, dream.state)

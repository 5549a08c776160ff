"""A world as one Gymnasium environment."""

from __future__ import annotations

import copy
import os

import gymnasium
import numpy as np

from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from .action_format import add_row_axis
from .dreams import DreamOptions, Dreams


class DreamerWorldEnv(gymnasium.Env):
    """A dream to act in: `gymnasium.make("dreamer_hf/DreamerWorld-v0", model="folder or repository")`.

    Observations are frames, uint8 (H,W,3) RGB. Actions are raw, in the units of the data and over its range (see
    `ActionFormat` for the spaces; values beyond the range are passed on as they are). `reset(seed=...)` decides the start
    and all noise: the same seed and actions give the same dream. `reset(options=...)` chooses the start or gives frames
    (see `chosen_beginnings`). A dream has no end of its own: give `terminated_fn`, or `max_episode_steps` to `make`.

    Args:
        model: folder or Hub repository of a `DreamerWorldModel`, or a loaded one (which needs `start`).
        render_mode: None, "rgb_array", or "human": a window with the frame and the action (extra `play`).
        options: fields of `DreamOptions`.

    Attributes:
        action_names, action_units: of the action's components, for people; units are None where the world knows none.

    Raises:
        ValueError: the world, adapter, start or display is not there, or does not fit.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}

    def __init__(self, model: str | os.PathLike | DreamerWorldModel, render_mode: str | None = None, **options):
        self._dreams = Dreams(model, DreamOptions(**options), num_rows=1)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self._dreams.fps}
        self.observation_space = gymnasium.spaces.Box(0, 255, self._dreams.frame_shape, np.uint8)
        self.action_space = self._dreams.format.space
        self.action_names, self.action_units = self._dreams.action_space.names, self._dreams.action_space.units
        self._last_action = self._dreams.action_space.rest
        self._viewer = self._open_viewer() if render_mode == "human" else None

    @property
    def world(self) -> DreamerWorldModel:
        """The model; clones share it."""
        return self._dreams.world

    @property
    def rollout(self) -> DreamerRollout:
        """The dream itself (one row): `rollout.clone(rows=[0] * 64)` is where a planner tries futures."""
        return self._dreams.rollout

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begins a new dream; see the class and `chosen_beginnings` for what the arguments decide."""
        super().reset(seed=seed)
        info = self._dreams.restart([0], [self.np_random], options)
        self._last_action = self._dreams.action_space.rest
        self._show()
        return self._dreams.frames[0].copy(), _first_row(info)

    def step(self, action) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Dreams the frame that an action leads to.

        Raises:
            ValueError: no element of the action space, or values that are not finite.
        """
        raw = self._dreams.format.to_raw(add_row_axis(action))
        transition = self._dreams.step(raw)
        rewards, ends = self._dreams.judge(transition)
        self._last_action = raw[0]
        self._show()
        info = self._dreams.info(transition.latents)
        return transition.frames[0], float(rewards[0]), bool(ends[0]), False, _first_row(info)

    def render(self) -> np.ndarray | None:
        """The frame, uint8 (H,W,3), in the mode "rgb_array"; in "human" the window is drawn by every step."""
        return self._dreams.frames[0].copy() if self.render_mode == "rgb_array" else None

    def clone(self) -> DreamerWorldEnv:
        """An independent copy in the same state, which shares the model and has no window. `copy.deepcopy` of this
        environment, wrapped or not, does the same."""
        twin = copy.copy(self)
        twin._dreams = self._dreams.clone()
        twin._np_random = copy.deepcopy(self._np_random)
        twin.action_space = copy.deepcopy(self.action_space)
        twin._viewer = None
        return twin

    def __deepcopy__(self, memo: dict) -> DreamerWorldEnv:
        return self.clone()

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def _open_viewer(self):
        from .viewer import DreamViewer

        return DreamViewer(self._dreams.frame_shape[:2], self._dreams.action_space, self._dreams.fps)

    def _show(self) -> None:
        if self._viewer is not None:
            self._viewer.show(self._dreams.frames[0], self._last_action, int(self._dreams.steps[0]))


def _first_row(info: dict[str, np.ndarray]) -> dict:
    return {name: values[0] for name, values in info.items()}

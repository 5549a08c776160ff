"""A world as a Gymnasium vector environment: N dreams in one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .dream_rows import DreamOptions, DreamRows

if TYPE_CHECKING:
    from ..modeling_dreamer_world import DreamerWorldModel
    from ..onnx import OnnxRollout, OnnxWorld
    from ..rollout import DreamerRollout


class DreamerWorldVectorEnv(VectorEnv):
    """N independent dreams, stepped as one batch.

    Make one with `gymnasium.make_vec("dreamer_hf/DreamerWorld-v0", num_envs=N, model=...)`. Row i, reset with `seed`,
    dreams what the single environment reset with `seed + i` dreams, to rounding. Rows start and end independently.
    Observations, actions and options are those of `DreamerWorldEnv`, with an axis of N in front.

    Args:
        model: as in `DreamerWorldEnv`.
        num_envs: N.
        max_episode_steps: steps after which a row is truncated; None: never.
        autoreset_mode: what happens to a row that has ended. "NextStep" (the default): it starts again in the next
            step, which ignores its action and gives a reward of 0. "SameStep": it starts again in the same step, whose
            last frame and info are then in `info["final_obs"]` and `info["final_info"]`. "Disabled": it starts again
            when asked to, by `reset(options={"reset_mask": ...})` with a bool (N,) array.
        render_mode: None or "rgb_array".
        options: fields of `DreamOptions`.

    Raises:
        ValueError: as in `DreamerWorldEnv`, or an unknown mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        model: str | os.PathLike | DreamerWorldModel | OnnxWorld,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options,
    ):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"{num_envs} dreams cannot be shown as {render_mode!r}: use 'rgb_array'.")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self._mode = AutoresetMode(autoreset_mode)
        self._rows = DreamRows(model, DreamOptions(**options), num_envs)
        dreams = self._rows.dreams
        self.metadata = {**self.metadata, "autoreset_mode": self._mode, "render_fps": dreams.fps}
        self.single_observation_space = self._rows.observation_space
        self.single_action_space = self._rows.format.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.action_names, self.action_units = dreams.space.names, dreams.space.units
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._ended = np.zeros(num_envs, dtype=bool)

    @property
    def world(self) -> DreamerWorldModel | OnnxWorld:
        """The model."""
        return self._rows.dreams.world

    @property
    def rollout(self) -> DreamerRollout | OnnxRollout | None:
        """The rollout of the N dreams; None before the first reset."""
        return self._rows.rollout

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None
    ) -> tuple[np.ndarray | dict, dict]:
        """Start new dreams in all rows, or in those of a bool (N,) array `options["reset_mask"]`.

        Args:
            seed: row i gets `seed + i`, or its own of N.
            options: of all rows that start, see `select_starts`; also `reset_mask`.

        Raises:
            ValueError: a mask or seeds that do not fit, or as in `DreamerWorldEnv`.
        """
        super().reset(seed=seed if isinstance(seed, int | np.integer) else None)
        options = dict(options or {})
        rows = self._rows_of(options.pop("reset_mask", None))
        self._seed(rows, seed)
        self._restart(rows, options)
        return self._rows.observations, self._infos(rows)

    def step(self, actions) -> tuple[np.ndarray | dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Dream one frame in every row; rows that have ended start again as `autoreset_mode` says.

        Raises:
            ValueError: as in `DreamerWorldEnv`; or a row has ended and has to be reset first.
        """
        due = self._ended
        if self._mode is AutoresetMode.DISABLED and due.any():
            raise ValueError(f"rows {np.flatnonzero(due).tolist()} have ended: reset them with a reset_mask.")
        transition = self._rows.step(self._rows.format.to_raw(actions))
        rewards, terminated = self._rows.evaluate(transition)
        truncated = np.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = transition.steps >= self.max_episode_steps
        if self._mode is AutoresetMode.NEXT_STEP:
            rewards[due], terminated[due], truncated[due] = 0.0, False, False
        self._ended = terminated | truncated
        infos: dict = {}
        if self._mode is AutoresetMode.SAME_STEP:
            due = self._ended
            for row in np.flatnonzero(due):
                final = {"final_obs": self._rows.observation(row), "final_info": self._rows.info(row)}
                infos = self._add_info(infos, final, row)
        if due.any():
            self._restart(np.flatnonzero(due), None)
        return self._rows.observations, rewards, terminated, truncated, self._infos(range(self.num_envs), infos)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return the N frames, uint8 (H, W, 3) each, in the mode "rgb_array"."""
        return tuple(self._rows.frames) if self.render_mode == "rgb_array" else None

    def _rows_of(self, mask) -> np.ndarray:
        """Return the indices of the rows in a reset mask; of all rows without one."""
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask is {mask.dtype} {mask.shape}: give a bool array of shape ({self.num_envs},) with a True."
            )
        if self._rows.rollout is None and not mask.all():
            raise ValueError("no row has started yet: reset all of them once, without a reset_mask.")
        return np.flatnonzero(mask)

    def _seed(self, rows: np.ndarray, seed) -> None:
        if seed is None:
            return
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"there are {len(seeds)} seeds for {self.num_envs} rows: give one a row, or a single one."
            )
        for row in rows:
            if seeds[row] is not None:
                self._rngs[row] = seeding.np_random(seeds[row])[0]

    def _restart(self, rows: np.ndarray, options: dict | None) -> None:
        self._rows.restart(rows, [self._rngs[row] for row in rows], options)
        self._ended[rows] = False

    def _infos(self, rows: Sequence[int], infos: dict | None = None) -> dict:
        """Return the info of some rows, added to `infos`, as Gymnasium batches it."""
        infos = infos or {}
        for row in rows:
            infos = self._add_info(infos, self._rows.info(row), row)
        return infos

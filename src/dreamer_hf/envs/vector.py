"""A world as a Gymnasium vector environment: N dreams in one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..modeling_dreamer_world import DreamerWorldModel
from ..rollout import DreamerRollout
from .dreams import DreamOptions, Dreams


class DreamerWorldVectorEnv(VectorEnv):
    """N independent dreams, stepped as one batch: `gymnasium.make_vec("dreamer_hf/DreamerWorld-v0", num_envs=N, model=...)`.

    Row i, reset with `seed`, dreams what the single environment reset with `seed + i` dreams, to rounding. Rows end and
    begin independently. Observations, actions and options are those of `DreamerWorldEnv`, with an axis of N in front.

    Args:
        model: as in `DreamerWorldEnv`.
        num_envs: N.
        max_episode_steps: steps after which a row is truncated; None: never.
        autoreset_mode: what happens to a row that has ended: it begins again in the next step, whose action it ignores
            and whose reward is 0 ("NextStep", the default); in the same step, whose last frame and info are then in `info["final_obs"]` and
            `info["final_info"]` ("SameStep"); or when it is asked to, by `reset(options={"reset_mask": ...})` with a bool
            (N,) array ("Disabled").
        render_mode: None or "rgb_array".
        options: fields of `DreamOptions`.

    Raises:
        ValueError: as in `DreamerWorldEnv`, or an unknown mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        model: str | os.PathLike | DreamerWorldModel,
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
        self._dreams = Dreams(model, DreamOptions(**options), num_rows=num_envs)
        self.metadata = {**self.metadata, "autoreset_mode": self._mode, "render_fps": self._dreams.fps}
        self.single_observation_space = gymnasium.spaces.Box(0, 255, self._dreams.frame_shape, np.uint8)
        self.single_action_space = self._dreams.format.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.action_names, self.action_units = self._dreams.action_space.names, self._dreams.action_space.units
        self._row_rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._ended = np.zeros(num_envs, dtype=bool)

    @property
    def world(self) -> DreamerWorldModel:
        """The model."""
        return self._dreams.world

    @property
    def rollout(self) -> DreamerRollout:
        """The dreams themselves, N rows."""
        return self._dreams.rollout

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        """Begins new dreams in all rows, or in those of a bool (N,) array `options["reset_mask"]`.

        Args:
            seed: row i gets `seed + i`, or its own of N.
            options: of all rows that begin, see `chosen_beginnings`; also `reset_mask`.

        Raises:
            ValueError: a mask or seeds that do not fit, or as in `DreamerWorldEnv`.
        """
        super().reset(seed=seed if isinstance(seed, int | np.integer) else None)
        options = dict(options or {})
        mask = self._checked_mask(options.pop("reset_mask", None))
        self._seed_rows(seed, mask)
        info = self._restart(mask, options)
        return self._dreams.frames.copy(), _with_masks(info, mask)

    def step(self, actions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Dreams one frame in every row; rows that have ended begin again as `autoreset_mode` says.

        Raises:
            ValueError: as in `DreamerWorldEnv`; or a row has ended and is to be reset by hand first.
        """
        due = self._ended
        if self._mode is AutoresetMode.DISABLED and due.any():
            raise ValueError(f"rows {np.flatnonzero(due).tolist()} have ended: reset them with a reset_mask.")
        transition = self._dreams.step(self._dreams.format.to_raw(actions))
        rewards, terminated = self._dreams.judge(transition)
        truncated = np.zeros_like(terminated)
        if self.max_episode_steps is not None:
            truncated = transition.steps >= self.max_episode_steps
        info = _with_masks(self._dreams.info(transition.latents), np.ones(self.num_envs, dtype=bool))
        if self._mode is AutoresetMode.NEXT_STEP:
            rewards[due], terminated[due], truncated[due] = 0.0, False, False
        self._ended = terminated | truncated
        begin = {AutoresetMode.NEXT_STEP: due, AutoresetMode.SAME_STEP: self._ended}.get(self._mode)
        if begin is not None and begin.any():
            self._begin_again(begin, info)
        return self._dreams.frames.copy(), rewards, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The N frames, uint8 (H,W,3) each, in the mode "rgb_array"."""
        return tuple(self._dreams.frames.copy()) if self.render_mode == "rgb_array" else None

    def _checked_mask(self, mask) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask is {mask.dtype} {mask.shape}: give a bool array of shape ({self.num_envs},) with a True."
            )
        if self._dreams.rollout is None and not mask.all():
            raise ValueError("no row has begun yet: reset all of them once, without a reset_mask.")
        return mask

    def _seed_rows(self, seed, mask: np.ndarray) -> None:
        if seed is None:
            return
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"there are {len(seeds)} seeds for {self.num_envs} rows: give one a row, or a single one."
            )
        for row in np.flatnonzero(mask):
            if seeds[row] is not None:
                self._row_rngs[row] = seeding.np_random(seeds[row])[0]

    def _restart(self, mask: np.ndarray, options: dict | None) -> dict[str, np.ndarray]:
        """Restarts the rows of a mask; returns their info with N rows, zero elsewhere."""
        rows = np.flatnonzero(mask)
        info = self._dreams.restart(rows, [self._row_rngs[row] for row in rows], options)
        self._ended = self._ended & ~mask
        return {name: _spread(values, rows, self.num_envs) for name, values in info.items()}

    def _begin_again(self, rows: np.ndarray, info: dict) -> None:
        """Restarts the rows of a mask within a step, whose info about them is kept or replaced."""
        if self._mode is AutoresetMode.SAME_STEP:
            final = {name: np.where(_like(rows, values), values, 0) for name, values in info.items() if name[0] != "_"}
            info["final_info"] = _with_masks(final, rows)
            info["final_obs"] = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(rows):
                info["final_obs"][row] = self._dreams.frames[row].copy()
            info["_final_info"] = info["_final_obs"] = rows.copy()
        for name, values in self._restart(rows, None).items():
            info[name] = np.where(_like(rows, values), values, info[name])


def _with_masks(info: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Adds to each entry of N rows which of them are meant, as Gymnasium does."""
    return info | {f"_{name}": mask.copy() for name in info}


def _spread(values: np.ndarray, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """(R, ...) at rows -> (N, ...), zero elsewhere."""
    spread = np.zeros((num_rows, *values.shape[1:]), values.dtype)
    spread[rows] = values
    return spread


def _like(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A mask (N,) with as many axes as values (N, ...)."""
    return mask.reshape(-1, *(1,) * (values.ndim - 1))

"""Dreams as the vector environment that `lerobot-eval` steps: one engine for all rows.

Shapes: N rows, R of them, A components of an action, S numbers of a state.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from lerobot.envs.utils import NEW_ROLLOUT_OPTION

from ..engines.world_engine import as_numpy
from ..envs.dream_rows import DreamRows
from .action_targets import ActionTargets
from .camera_images import CameraImages, enlarged
from .episode_scores import EpisodeScores, NoScores
from .state_readers import StateReader

log = logging.getLogger(__name__)


class DreamerLeRobotEnv(VectorEnv):
    """N dreams for a LeRobot policy, stepped as one batch.

    Observations are `{"pixels": uint8 (N, H, W, 3), "agent_pos": float32 (N, S)}`; with several cameras, `pixels` is a
    dictionary by their names; without a state, there is no `agent_pos`. Actions are float32 (N, A), in the units of
    the data. A row that is solved or has had its steps starts again in the same step (SAME_STEP); its last frame and
    info are then in `info["final_obs"]` and `info["final_info"]`.

    `info` holds, for each row, `is_success` (whether the dream has been solved so far) and `clipped` (how many of its
    actions were outside of the world's range), and what `DreamRows.info` holds.

    Args:
        rows: the N dreams.
        images: cuts and resizes the frames.
        state: reads the state.
        targets: turns actions into those of the world.
        rewards: gives the rewards; None for none.
        successes: says which dreams are solved; None if none is. May be the same object as `rewards`.
        episode_length: steps after which a row is truncated. Defaults to never.
        terminate_on_success: whether a row ends when it is solved.
        task: the instruction for policies that understand language.
        start_index: the start frames that all dreams begin from. Defaults to any, as the seed decides.

    Attributes:
        targets: as given.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        rows: DreamRows,
        images: CameraImages,
        state: StateReader,
        targets: ActionTargets,
        rewards: EpisodeScores | None = None,
        successes: EpisodeScores | None = None,
        episode_length: int = sys.maxsize,
        terminate_on_success: bool = True,
        task: str = "",
        start_index: int | None = None,
    ):
        self.num_envs, self.render_mode = rows.num_rows, "rgb_array"
        self.metadata = {**self.metadata, "render_fps": _frame_rate(rows.dreams.fps)}
        self.targets = targets
        self._rows, self._images, self._state = rows, images, state
        self._rewards = NoScores() if rewards is None else rewards
        self._successes = NoScores() if successes is None else successes
        self._episode_length, self._terminate_on_success, self._task = episode_length, terminate_on_success, task
        self._start_options = {} if start_index is None else {"start_index": start_index}
        self.single_observation_space = self._observation_space()
        self.single_action_space = spaces.Box(-np.inf, np.inf, (rows.dreams.space.size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._rngs = [seeding.np_random()[0] for _ in range(self.num_envs)]
        self._solved = np.zeros(self.num_envs, bool)
        self._states = np.zeros((self.num_envs, len(state.names)), np.float32)
        self._num_actions = self._num_clipped = 0

    @property
    def dreams(self) -> DreamRows:
        """The N dreams."""
        return self._rows

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None):
        """Start new dreams in all rows.

        Args:
            seed: row i gets `seed + i`, or its own of N; it decides the start and the noise.
            options: see `select_starts`. What LeRobot sends to mark a new rollout is accepted.

        Raises:
            ValueError: seeds or options that do not fit.
        """
        super().reset(seed=seed if isinstance(seed, int | np.integer) else None)
        given = {name: value for name, value in (options or {}).items() if name != NEW_ROLLOUT_OPTION}
        if seed is not None:
            self._seed([seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed)
        self._begin(range(self.num_envs), self._start_options | given)
        return self._observations(), self._infos()

    def step(self, actions) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Dream one frame in every row.

        Raises:
            ValueError: actions of another shape, or not finite.
        """
        raw, clipped = self.targets.to_world(actions)
        self._num_actions, self._num_clipped = self._num_actions + len(raw), self._num_clipped + int(clipped.sum())
        transition = self._rows.step(raw)
        self._states = self._state.read(range(self.num_envs), transition.frames, transition.states)
        rewards, solved = self._score(transition.frames, transition.states)
        self._solved |= solved
        terminated = self._solved & self._terminate_on_success
        truncated = transition.steps >= self._episode_length
        ended = np.flatnonzero(terminated | truncated)
        infos = self._infos()
        if len(ended):
            observations = self._observations()
            for row in ended:
                final = {"final_obs": _row_of(observations, row), "final_info": self._info(row)}
                infos = self._add_info(infos, final, row)
            self._begin(ended, self._start_options)
        return self._observations(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """Return what each dream shows, uint8 (height, width, 3), enlarged for people; cameras are side by side."""
        return tuple(enlarged(frame) for frame in self._rows.frames)

    def call(self, name: str, *args, **kwargs) -> tuple:
        """Return what a method or an attribute of each of N single environments would give.

        Raises:
            AttributeError: they have none of that name.
        """
        return self.render() if name == "render" else self.get_attr(name)

    def get_attr(self, name: str) -> tuple:
        """Return an attribute of each of N single environments: `_max_episode_steps`, `task` or `task_description`.

        Raises:
            AttributeError: they have none of that name.
        """
        known = {"_max_episode_steps": self._episode_length, "task": self._task, "task_description": self._task}
        if name not in known:
            raise AttributeError(f"dreams have no attribute {name!r}: they have {', '.join(known)}.")
        return (known[name],) * self.num_envs

    def close_extras(self, **kwargs) -> None:
        """Say how many actions did not fit the world."""
        if self._num_clipped:
            share = self._num_clipped / self._num_actions
            log.warning(
                f"{self._num_clipped} of {self._num_actions} actions ({share:.1%}) were outside of the world's range "
                "and were clipped: the policy moved less than it wanted to."
            )

    def _observation_space(self) -> spaces.Dict:
        image = spaces.Box(0, 255, (*self._images.size, 3), np.uint8)
        cameras = self._images.cameras
        parts = {"pixels": spaces.Dict(dict.fromkeys(cameras, image)) if cameras else image}
        if self._state.names:
            parts["agent_pos"] = spaces.Box(-np.inf, np.inf, (len(self._state.names),), np.float32)
        return spaces.Dict(parts)

    def _seed(self, seeds: Sequence[int | None]) -> None:
        if len(seeds) != self.num_envs:
            raise ValueError(f"there are {len(seeds)} seeds for {self.num_envs} rows: give one each, or a single one.")
        for row, seed in enumerate(seeds):
            if seed is not None:
                self._rngs[row] = seeding.np_random(int(seed))[0]

    def _begin(self, rows: Sequence[int], options: dict) -> None:
        """Start new dreams in R rows."""
        rows = list(rows)
        self._rows.restart(rows, [self._rngs[row] for row in rows], options)
        frames, states = self._rows.frames[rows], self._rows.states[rows]
        self._state.restart(rows)
        self._states[rows] = self._state.read(rows, frames, states)
        self.targets.restart(rows, self._state.places(self._states[rows], self._past_actions(rows)))
        self._solved[rows] = False
        for scores in {id(each): each for each in (self._rewards, self._successes)}.values():
            scores.restart(rows, frames, states)

    def _past_actions(self, rows: Sequence[int]) -> np.ndarray:
        """Return the actions (R, C, A) of the start frames that dreams begin from; 0 where there was none."""
        starts, indices = self._rows.dreams.starts, [self._rows.rows[row].start for row in rows]
        if starts is None or None in indices:
            return np.zeros((len(rows), 1, self._rows.dreams.space.size), np.float32)
        actions, known = as_numpy(starts.actions)[indices], as_numpy(starts.action_mask)[indices]
        return np.where(known[..., None], actions, 0)

    def _score(self, frames: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rewards, solved = self._rewards.step(frames, states)
        if self._successes is not self._rewards:
            solved = self._successes.step(frames, states)[1]
        return rewards, solved

    def _observations(self) -> dict:
        observations = {"pixels": self._images.cut(self._rows.frames)}
        return observations | {"agent_pos": self._states.copy()} if self._state.names else observations

    def _info(self, row: int) -> dict:
        judged = {"is_success": bool(self._solved[row]), "clipped": int(self.targets.clipped[row])}
        return self._rows.info(row) | judged

    def _infos(self) -> dict:
        """Return the info of all rows, as Gymnasium batches it."""
        infos: dict = {}
        for row in range(self.num_envs):
            infos = self._add_info(infos, self._info(row), row)
        return infos


def _row_of(observations, row: int):
    """Return one row of batched observations."""
    if isinstance(observations, dict):
        return {name: _row_of(part, row) for name, part in observations.items()}
    return observations[row]


def _frame_rate(fps: float) -> int | Fraction:
    """Return a frame rate as LeRobot's videos take it: a whole number or a fraction."""
    return int(fps) if float(fps).is_integer() else Fraction(fps).limit_denominator(1000)


__all__ = ["DreamerLeRobotEnv"]

"""The work of a ranking in independent units: some episodes of one policy, in dreams or for real.

Shapes: N episodes, T frames after the start, A action components, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..dreams import Dream, Dreams
from ..engines.opening import open_world
from ..engines.world_engine import as_numpy
from ..options import WorldOptions
from ..pusht.state_errors import is_pusht
from ..trust import load_trust
from .action_translation import ActionTranslator
from .observations import Observation, WorldView, find_scenes
from .policies import Policy, PolicyName, open_policy
from .ranking_options import RankOptions
from .real_environment import PUSHT, RealForm, open_real
from .scoring import filled, reads_scenes, score_episodes

DREAM, REAL = "dream", "real"


@dataclass(frozen=True)
class RankUnit:
    """Episodes of one policy.

    Attributes:
        policy: its name.
        seeds: one for each episode.
        place: "dream" or "real".
        options: of the ranking.
    """

    policy: str
    seeds: tuple[int, ...]
    place: str
    options: RankOptions


class OpenedForRanking(NamedTuple):
    """A world, and what policies have to fit.

    Attributes:
        dreams: of the world.
        view: what it shows.
        note: one line about the engine.
    """

    dreams: Dreams
    view: WorldView
    note: str


def open_for_ranking(options: RankOptions) -> OpenedForRanking:
    """Open the world of a ranking; a process does this once.

    Raises:
        ValueError, OSError: there is no such world, or no start frames that fit it.
    """
    return _open(
        options.world,
        options.engine,
        options.device,
        options.threads,
        options.num_inference_steps,
        options.start,
        options.real == PUSHT,
    )


def play_unit(unit: RankUnit) -> dict:
    """Play and score the episodes of a unit.

    Returns:
        Plain data: `rewards` and `successes`, arrays (N, T + 1) by score; `trust`, float32 (N, T + 1), or None if the
        world has no trust model or this is real; `num_clipped`, actions that the world could not take as they were.

    Raises:
        ValueError, OSError: the world, the policy, a score or the environment does not exist or does not fit.
    """
    dreams, view, _ = open_for_ranking(unit.options)
    policy = open_policy(unit.policy, unit.options.device or "cpu")
    policy.check_fits(view)
    episodes = _RealEpisodes if unit.place == REAL else _DreamedEpisodes
    return _play(episodes(unit, dreams, view, policy), policy, unit, dreams)


def gives_positions(options: RankOptions, policy: Policy, view: WorldView) -> bool:
    """Return whether a policy's actions are positions."""
    if options.policy_actions != "auto":
        return options.policy_actions == "absolute"
    return view.has_scene if policy.gives_positions is None else policy.gives_positions


def _play(episodes: _RealEpisodes | _DreamedEpisodes, policy: Policy, unit: RankUnit, dreams: Dreams) -> dict:
    noise = PolicyName.parse(unit.policy).noise * (dreams.space.high - dreams.space.low) / 2
    sources = [np.random.default_rng([seed, 2]) for seed in unit.seeds]
    seen = [episodes.observe()]
    policy.reset(unit.seeds, seen[0])
    keep_frames = not all(map(reads_scenes, unit.options.score))
    record = [_remembered(seen[0], keep_frames or unit.place == DREAM)]
    for _ in range(unit.options.steps):
        actions = np.asarray(policy.act(seen[-1]), np.float64)
        if actions.shape != (len(unit.seeds), dreams.space.size) or not np.isfinite(actions).all():
            raise ValueError(
                f"{unit.policy} gave actions of shape {actions.shape}, or not finite: give finite ones of shape "
                f"{(len(unit.seeds), dreams.space.size)}."
            )
        actions = actions + noise * np.stack([source.standard_normal(dreams.space.size) for source in sources])
        episodes.step(actions)
        seen[-1] = episodes.observe()
        record.append(_remembered(seen[-1], keep_frames or unit.place == DREAM))
    return _scored(record, unit, episodes)


def _remembered(observation: Observation, keep_frames: bool) -> tuple:
    frames = observation.frames if keep_frames else None
    return frames, observation.states, observation.found_scene


def _scored(record: list[tuple], unit: RankUnit, episodes) -> dict:
    frames, states, scenes = zip(*record)
    scenes = filled(np.stack(_found_everywhere(frames, scenes), axis=1)) if episodes.has_scene else None
    states = None if states[0] is None else np.stack(states, axis=1)
    scores = {
        name: score_episodes(name, len(record), lambda: np.stack(frames, axis=1), states, scenes)
        for name in unit.options.score
    }
    return {
        "rewards": {name: score.rewards for name, score in scores.items()},
        "successes": {name: score.successes for name, score in scores.items()},
        "trust": episodes.trust,
        "num_clipped": episodes.num_clipped,
    }


def _found_everywhere(frames: tuple, scenes: tuple) -> list[np.ndarray]:
    """Return the scenes (N, 5) of all moments; those that the policy has not looked for are found now, together."""
    missing = [time for time, scene in enumerate(scenes) if scene is None]
    if not missing:
        return list(scenes)
    found = find_scenes(np.concatenate([frames[time] for time in missing]))
    by_time = dict(zip(missing, np.split(found, len(missing))))
    return [by_time.get(time, scene) for time, scene in enumerate(scenes)]


class _DreamedEpisodes:
    """Dreams of a unit, which start where the real episodes do, or from the world's start frames."""

    def __init__(self, unit: RankUnit, dreams: Dreams, view: WorldView, policy: Policy):
        self.dreams, self.options, self.has_scene = dreams, unit.options, view.has_scene
        self._num_cameras = max(len(view.camera_names), 1)
        positions = gives_positions(unit.options, policy, view)
        known = None
        if unit.options.real is not None:
            form = real_form(unit.options, dreams, positions, dreams.frame_size)
            real = open_real(unit.options.real, form)
            starts = real.reset(unit.seeds)
            known = real.observe().positions
        else:
            starts = [seed % len(dreams.starts) for seed in unit.seeds]
        self._rows: list[Dream] = dreams.begin(starts, unit.seeds)
        self._trust = [[dream.trust for dream in self._rows]]
        self._last_scene = None
        self._translate = ActionTranslator(dreams.space, None)
        if positions:
            known = self._first_positions() if known is None else known
            self._translate = ActionTranslator(dreams.space, known)

    @property
    def trust(self) -> np.ndarray | None:
        return None if self.dreams.trust is None else np.array(self._trust, np.float32).T

    @property
    def num_clipped(self) -> int:
        return self._translate.num_clipped

    def observe(self) -> Observation:
        frames = np.stack([dream.frame for dream in self._rows])
        states = np.stack([dream.state for dream in self._rows]) if len(self.dreams.state_space) else None
        self._seen = Observation(
            lambda: frames, states, self._translate.positions, None, self._last_scene, self._num_cameras
        )
        return self._seen

    def step(self, actions: np.ndarray) -> None:
        if self.options.other_actions:
            actions = np.roll(actions, -1, axis=0)
        found = self._seen.found_scene
        self._last_scene = self._last_scene if found is None else found
        self.dreams.step(self._rows, self._translate(actions))
        self._trust.append([dream.trust for dream in self._rows])

    def _first_positions(self) -> np.ndarray:
        """Return where the actions have led at the start: to where the agent or the joints are."""
        if self.has_scene:
            return find_scenes(np.stack([dream.frame for dream in self._rows]))[:, :2]
        if len(self.dreams.state_space) == self.dreams.space.size:
            return np.stack([dream.state for dream in self._rows])
        raise ValueError(
            "where an absolute action leads from is not known, as the world has no state of the width of its actions: "
            "choose --policy_actions world."
        )


class _RealEpisodes:
    """Episodes of a unit in the real environment."""

    trust, num_clipped = None, 0

    def __init__(self, unit: RankUnit, dreams: Dreams, view: WorldView, policy: Policy):
        side = policy.image_side
        size = dreams.frame_size if side is None else (side, side)
        form = real_form(unit.options, dreams, gives_positions(unit.options, policy, view), size)
        self._environment, self.has_scene = open_real(unit.options.real, form), view.has_scene
        self._environment.reset(unit.seeds)

    def observe(self) -> Observation:
        return self._environment.observe()

    def step(self, actions: np.ndarray) -> None:
        self._environment.step(actions)


def real_form(options: RankOptions, dreams: Dreams, positions: bool, frame_size: tuple[int, int]) -> RealForm:
    """Return what the real environment of a ranking has to look like."""
    engine, state_size = dreams.engine, len(dreams.state_space)
    return RealForm(frame_size, dreams.fps, dreams.space.is_relative, positions, state_size, engine.action_offset)


@lru_cache(maxsize=1)
def _open(model, engine, device, threads, num_inference_steps, start, is_pusht_world) -> OpenedForRanking:
    world_options = WorldOptions(model=model, engine=engine, device=device, threads=threads, start=start)
    world, starts, note = open_world(model, world_options)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        trust = load_trust(model)
    except ValueError as error:
        trust, note = None, f"{note} No dream is distrusted: {error}"
    dreams = Dreams(world, starts, num_inference_steps, trust)
    if dreams.engine.action_offset != 1:
        raise ValueError("this world pairs an action with the frame before it: choose one with action_offset 1.")
    shows_pusht = is_pusht_world or _shows_pusht(starts)
    view = WorldView(tuple(dreams.engine.camera_names or ()), len(dreams.state_space), dreams.space.size, shows_pusht)
    return OpenedForRanking(dreams, view, note)


def _shows_pusht(starts) -> bool:
    frames = as_numpy(starts.pixel_values_videos)
    return frames.ndim == 5 and is_pusht(torch.from_numpy(frames[:, -1]))


__all__ = ["DREAM", "REAL", "RankUnit", "gives_positions", "open_for_ranking", "play_unit"]

"""Ranking policies by the same episodes in dreams, and next to a real environment."""

import json
import logging
import time
from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from ..data.files import new_output_folder, replacing
from .observations import AGENT_SIZE
from .policies import open_policy
from .rank_units import DREAM, REAL, RankUnit, open_for_ranking, play_unit
from .ranking_options import RankOptions
from .ranking_plot import save_ranking_plots
from .ranking_report import PolicyResult, make_ranking, ranking_table
from .real_environment import PUSHT
from .scoring import EpisodeScores, reads_scenes, score_function
from .unit_cache import cached

RANKING_NAME = "ranking"
EPISODES_NAME = "episodes.npz"

logger = logging.getLogger(__name__)


def rank(options: RankOptions, play: Callable[[Iterable[RankUnit]], Iterable[dict]] | None = None) -> str:
    """Rank policies and write the results.

    `options.output_dir` gets ranking.json, ranking.md (the table that is returned), a plot for each score, and
    episodes.npz with the score of every episode at every frame.

    Args:
        options: what to rank, and how.
        play: plays units and gives their results in this order, such as several processes do. Default: `play_unit`,
            one after the other.

    Returns:
        The table.

    Raises:
        FileExistsError: the output folder is not empty.
        ValueError, OSError: the world, a policy, a score or the environment does not exist or does not fit.
    """
    note = _check(options)
    print(note)
    with new_output_folder(options.output_dir) as output:
        units = rank_units(options)
        results, seconds = {}, 0.0
        started = time.perf_counter()
        with tqdm(total=sum(len(unit.seeds) for unit in units), desc="ranking", unit="episode") as progress:
            for unit, result in cached(units, options.cache_dir, play or (lambda each: map(play_unit, each))):
                results[unit] = result
                progress.update(len(unit.seeds))
        seconds = time.perf_counter() - started
        logger.info("played %d units in %.0f s", len(units), seconds)
        policies = {
            name: _collect(name, [(unit, results[unit]) for unit in units], options) for name in options.policies
        }
        report = make_ranking(options, policies, _notes(options, policies))
        table = ranking_table(report)
        with replacing(output / f"{RANKING_NAME}.json") as temporary:
            temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (output / f"{RANKING_NAME}.md").write_text(f"{table}\n", encoding="utf-8")
        np.savez_compressed(output / EPISODES_NAME, **_arrays(policies))
        save_ranking_plots(output, report)
    return table


def rank_units(options: RankOptions) -> list[RankUnit]:
    """Return the independent parts of a ranking, those in dreams before those for real."""
    seeds = [options.seed + episode for episode in range(options.episodes)]
    chunks = [tuple(seeds[first : first + options.batch_size]) for first in range(0, len(seeds), options.batch_size)]
    places = [DREAM] if options.real is None else [DREAM, REAL]
    return [RankUnit(name, chunk, place, options) for place in places for name in options.policies for chunk in chunks]


def _check(options: RankOptions) -> str:
    """Refuse before the work what would fail during it, and return a line about the engine."""
    opened = open_for_ranking(options)
    for name in options.score:
        score_function(name)
        if reads_scenes(name) and not opened.view.has_scene:
            raise ValueError(f"{name} is for PushT, which {options.world} does not show: choose another --score.")
    if options.real == PUSHT and opened.view.action_size != AGENT_SIZE:
        raise ValueError(
            f"{PUSHT} takes {AGENT_SIZE} actions but {options.world} has {opened.view.action_size}: choose a world of "
            "PushT."
        )
    for name in options.policies:
        policy = open_policy(name, options.device or "cpu")
        policy.check_fits(opened.view)
        if options.policy_actions == "world" and policy.gives_positions:
            raise ValueError(f"{name} gives positions: leave out --policy_actions world.")
    return opened.note


def _collect(policy: str, played: list[tuple[RankUnit, dict]], options: RankOptions) -> PolicyResult:
    sides = {}
    for place in (DREAM, REAL):
        parts = [result for unit, result in played if (unit.policy, unit.place) == (policy, place)]
        if place == DREAM:
            trusts = [part["trust"] for part in parts]
            clipped = sum(part["num_clipped"] for part in parts) / (options.episodes * options.steps)
        sides[place] = {
            name: EpisodeScores(
                *(np.concatenate([part[kind][name] for part in parts]) for kind in ("rewards", "successes"))
            )
            for name in options.score
            if parts
        }
    trust = None if any(each is None for each in trusts) else np.concatenate(trusts)
    if options.until_distrusted and trust is not None:
        believed = np.logical_and.accumulate(trust[:, 1:] >= options.distrust_below, axis=1).sum(axis=1)
        sides[DREAM] = {name: scores.held(believed) for name, scores in sides[DREAM].items()}
    return PolicyResult(sides[DREAM], sides[REAL], trust, clipped)


def _notes(options: RankOptions, policies: dict[str, PolicyResult]) -> list[str]:
    notes = []
    if options.other_actions:
        notes.append("Negative control: every dream got the actions for the next episode's dream.")
    if options.until_distrusted:
        notes.append("Scores of dreams stay what they were on the last frame before the dream was distrusted.")
    if any(result.trust is None for result in policies.values()):
        notes.append("The world has no trust.json, so no dream is distrusted: dreamer trust makes one.")
    return notes


def _arrays(policies: dict[str, PolicyResult]) -> dict[str, np.ndarray]:
    arrays = {}
    for policy, result in policies.items():
        for place, sides in ((DREAM, result.dream), (REAL, result.real)):
            arrays |= {f"{policy}|{place}|{name}": scores.rewards for name, scores in sides.items()}
        if result.trust is not None:
            arrays[f"{policy}|trust"] = result.trust
    return arrays


__all__ = ["rank", "rank_units"]

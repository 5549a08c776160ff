"""The files of a ranking: `ranking.json` with every figure, and its main figures as a Markdown table.

Shapes: P policies, N episodes, T frames after the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..evaluation.bootstrap import Bootstrap, mean
from ..evaluation.tables import markdown_table
from .rank_statistics import STATISTICS, TITLES, spearman
from .ranking_options import RankOptions
from .scoring import EpisodeScores

FORMAT_VERSION = 1
HORIZONS = (8, 16, 32, 64, 128, 256, 512)
CHECKPOINTS = "/checkpoints/"
"""Folder of the checkpoints of one run of `lerobot-train`."""


@dataclass(frozen=True)
class PolicyResult:
    """What a policy's episodes were worth.

    Attributes:
        dream: scores of its dreams by name.
        real: of its real episodes by name; empty without a real environment.
        trust: float32 (N, T + 1) of its dreams; None if the world has no trust model.
        clipped: fraction of the dreams' actions that were clipped.
    """

    dream: dict[str, EpisodeScores]
    real: dict[str, EpisodeScores]
    trust: np.ndarray | None
    clipped: float


def make_ranking(options: RankOptions, results: dict[str, PolicyResult], notes: list[str]) -> dict:
    """Return the content of `ranking.json`; docs/ranking.md lists the keys."""
    bootstrap = Bootstrap(options.episodes, options.seed)
    horizons = [*(horizon for horizon in HORIZONS if horizon < options.steps), options.steps]
    policies = {name: _policy(result, options, bootstrap, horizons) for name, result in results.items()}
    main = options.score[0]
    order = sorted(policies, key=lambda name: -policies[name]["dream"][main]["mean"][-1])
    report = {
        "format_version": FORMAT_VERSION,
        "world": options.world,
        "real": options.real,
        "scores": list(options.score),
        "summary": options.summary,
        "episodes": options.episodes,
        "seed": options.seed,
        "horizons": horizons,
        "distrust_below": options.distrust_below,
        "other_actions": options.other_actions,
        "policies": {name: policies[name] for name in order},
        "agreement": {},
        "runs": {},
        "notes": notes,
    }
    if options.real is not None and len(results) > 1:
        report["agreement"] = {
            score: _agreement(results, score, options, bootstrap, horizons) for score in options.score
        }
        report["runs"] = {score: _runs(policies, score) for score in options.score}
    return report


def ranking_table(report: dict) -> str:
    """Return the main figures of a ranking as Markdown."""
    score, last = report["scores"][0], report["horizons"][-1]
    has_real, has_trust = report["real"] is not None, any("distrusted" in each for each in report["policies"].values())
    header = ["policy", *(f"dream, {horizon}" for horizon in report["horizons"])]
    header += [f"real, {last}", "rank for real"] * has_real + [f"distrusted by {last}, %"] * has_trust
    header += ["actions clipped, %"]
    real_order = sorted(
        report["policies"], key=lambda name: -_last(report["policies"][name], score) if has_real else 0
    )
    rows = []
    for name, policy in report["policies"].items():
        cells = [_interval(policy["dream"][score], index) for index in range(len(report["horizons"]))]
        if has_real:
            cells += [_interval(policy["real"][score], -1), str(real_order.index(name) + 1)]
        if has_trust:
            cells.append(f"{100 * policy['distrusted'][-1]:.0f}" if "distrusted" in policy else "-")
        rows.append([name, *cells, f"{100 * policy['clipped']:.1f}"])
    head = (
        f"{score}, {report['summary']} by frame, of {report['episodes']} episodes of each policy in dreams of "
        f"{report['world']}, best first. In brackets: 95 % intervals over episodes (bootstrap)."
    )
    parts = [head, markdown_table(header, rows)]
    for score, statistics in report["agreement"].items():
        rows = [
            [TITLES[name], *(_interval(statistics[name], index) for index in range(len(report["horizons"])))]
            for name in STATISTICS
        ]
        header = [f"{score}: dream against {report['real']}", *map(str, report["horizons"])]
        parts.append(markdown_table(header, rows))
    rows = [[run, score, f"{value:.2f}"] for score, runs in report["runs"].items() for run, value in runs.items()]
    if rows:
        parts.append(markdown_table(["checkpoints of", "score", "Spearman rho, dream against real"], rows))
    return "\n\n".join([*parts, *report["notes"]])


def _policy(result: PolicyResult, options: RankOptions, bootstrap: Bootstrap, horizons: list[int]) -> dict:
    content = {
        place: {
            name: _estimate(scores.by_horizon(options.summary), bootstrap, horizons) for name, scores in sides.items()
        }
        for place, sides in (("dream", result.dream), ("real", result.real))
    }
    content["clipped"] = result.clipped
    if result.trust is not None:
        distrusted = np.logical_or.accumulate(result.trust[:, 1:] < options.distrust_below, axis=1).mean(axis=0)
        content["distrusted"] = [float(distrusted[horizon - 1]) for horizon in horizons]
    return content


def _estimate(values: np.ndarray, bootstrap: Bootstrap, horizons: list[int]) -> dict[str, list]:
    estimate = bootstrap.estimate(mean, values[:, [horizon - 1 for horizon in horizons]])
    return _lists({"mean": estimate.value, "mean_low": estimate.low, "mean_high": estimate.high})


def _agreement(
    results: dict[str, PolicyResult], score: str, options: RankOptions, bootstrap: Bootstrap, horizons: list[int]
) -> dict[str, dict[str, list]]:
    """Return each statistic with its interval at every horizon. Dream and real episodes are resampled together."""
    ours, real = (
        np.stack([getattr(result, place)[score].by_horizon(options.summary) for result in results.values()], axis=2)
        for place in ("dream", "real")
    )
    content = {}
    for name, statistic in STATISTICS.items():
        estimates = [
            bootstrap.estimate(
                lambda a, b: statistic(a.mean(axis=-2), b.mean(axis=-2))[..., None],  # noqa: B023
                ours[:, horizon - 1],
                real[:, horizon - 1],
            )
            for horizon in horizons
        ]
        parts = {"mean": "value", "mean_low": "low", "mean_high": "high"}
        content[name] = _lists(
            {key: np.concatenate([getattr(each, part) for each in estimates]) for key, part in parts.items()}
        )
    return content


def _runs(policies: dict[str, dict], score: str) -> dict[str, float]:
    """Return Spearman's rho of the checkpoints of each training run, at the last horizon."""
    runs: dict[str, list[dict]] = {}
    for name, policy in policies.items():
        if CHECKPOINTS in name:
            runs.setdefault(name.split(CHECKPOINTS)[0], []).append(policy)
    return {
        run: float(
            spearman(*(np.array([each[place][score]["mean"][-1] for each in members]) for place in ("dream", "real")))
        )
        for run, members in runs.items()
        if len(members) > 1
    }


def _lists(parts: dict[str, np.ndarray]) -> dict[str, list]:
    return {
        key: [float(number) if math.isfinite(number) else None for number in values] for key, values in parts.items()
    }


def _last(policy: dict, score: str) -> float:
    return policy["real"][score]["mean"][-1]


def _interval(figures: dict[str, list], index: int) -> str:
    value, low, high = (figures[key][index] for key in ("mean", "mean_low", "mean_high"))
    if None in (value, low, high):
        return "-"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


__all__ = ["PolicyResult", "make_ranking", "ranking_table"]

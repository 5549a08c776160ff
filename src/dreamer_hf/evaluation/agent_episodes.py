"""Agents in the PushT simulator, next to scripted policies: a table with intervals, and a video.

Shapes: E episodes, T steps, R runs, S side of a frame.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..action_space import ActionSpace
from ..loading import choose_device
from ..media import save_gif, save_image, save_video
from ..modeling_dreamer_agent import DreamerAgentModel
from ..pusht.real_episodes import AgentPolicy, PlannerPolicy, RealEpisodes, RealPolicy, run_episodes
from ..pusht.scripted_policies import Resting, ScriptedPlay, StraightLine, UniformlyRandom
from ..reward_functions import reward_function
from .agent_options import AgentEvaluationOptions
from .bootstrap import Bootstrap, mean
from .tables import markdown_table

TOGETHER = 25
"""Episodes that run at the same time."""
SHOWN, SIDE = 4, 160
"""Episodes in the video, and the side of their frames in pixels."""
HEADER = ("policy", "runs", "episodes", "mean reward", "solved at the end", "solved at some time")


@dataclass
class Row:
    """A row of the table: one policy, in one or several runs.

    Attributes:
        name: of the policy.
        runs: what happened in each run.
    """

    name: str
    runs: list[RealEpisodes]

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the row; intervals are over runs if there are several, otherwise over episodes."""
        measures = (
            [run.mean_reward for run in self.runs],
            [run.ends_solved.astype(float) for run in self.runs],
            [run.successes.any(axis=1).astype(float) for run in self.runs],
        )
        texts = [
            self._estimate(values, *form) for values, form in zip(measures, ((1, ".3f"), (100, ".0f"), (100, ".0f")))
        ]
        return (self.name, str(len(self.runs)), str(sum(len(run.rewards) for run in self.runs)), *texts)

    def _estimate(self, values: list[np.ndarray], scale: float, form: str) -> str:
        units = np.array([np.nanmean(each) for each in values]) if len(values) > 1 else values[0]
        found = Bootstrap(len(units)).estimate(mean, scale * units[:, None])
        unit = " %" if scale == 100 else ""
        return f"{found.value[0]:{form}}{unit} [{found.low[0]:{form}}, {found.high[0]:{form}}]"


def evaluate_agents(options: AgentEvaluationOptions) -> str:
    """Let agents and scripts act in the simulator from the same starts; return a table, and write it with a video.

    Raises:
        ValueError, OSError: an agent that cannot be loaded or is not one of PushT, or an unknown task.
    """
    agents = [_loaded(entry) for entry in options.agents]
    names = list(options.tasks) or agents[0][1].config.task_names or []
    functions = [reward_function(name) for name in names]
    if not functions:
        raise ValueError("the agent does not name its tasks: give the names of their reward functions as --tasks.")
    rows: dict[str, Row] = {}
    for name, count, make_policy in _policies(agents, names, options):
        episodes = _all_episodes(
            make_policy, agents[0][1], functions, options.steps, range(options.seed, options.seed + count), name
        )
        rows.setdefault(name, Row(name, [])).runs.append(episodes)
    table = markdown_table(HEADER, [row.cells() for row in rows.values()])
    notes = (
        f"{options.episodes} episodes of {options.steps} steps per run, from the same starts; tasks: "
        f"{', '.join(names)}. In brackets: 95 % intervals (bootstrap), over runs where there are several, otherwise "
        "over episodes."
    )
    if options.output_dir:
        _write(Path(options.output_dir), rows, table, notes, agents[0][1].config.dynamics_config.fps)
    return f"{table}\n\n{notes}"


def _loaded(entry: str) -> tuple[str, DreamerAgentModel]:
    name, _, path = entry.rpartition("=")
    try:
        agent = DreamerAgentModel.from_pretrained(path, dtype=torch.float32).eval().to(choose_device())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be loaded as an agent ({str(error).splitlines()[0]}).") from error
    return name or Path(path).name, agent


def _policies(agents, names: Sequence[str], options: AgentEvaluationOptions) -> Iterator[tuple[str, int, object]]:
    """Yield names, numbers of episodes, and functions that make a policy for the tasks of some episodes and a seed."""
    space, count = ActionSpace.from_config(agents[0][1].config.dynamics_config), options.episodes
    if options.baselines:
        yield "resting", count, lambda tasks, seed: Resting()
        yield "uniformly random", count, lambda tasks, seed: UniformlyRandom(space, seed)
        yield "scripted play", count, lambda tasks, seed: ScriptedPlay(seed)
        spots = [getattr(reward_function(name), "spot", None) for name in names]
        if None not in spots:
            yield "straight line", count, lambda tasks, seed: StraightLine([spots[task] for task in tasks])
    for index, (name, agent) in enumerate(agents):
        known = agent.config.task_names or list(names)
        numbers = [known.index(task) for task in names]

        def policy(tasks, seed, agent=agent, numbers=numbers) -> RealPolicy:
            return AgentPolicy(agent, [numbers[task] for task in tasks], options.deterministic, seed)

        def planner(tasks, seed, agent=agent, numbers=numbers) -> RealPolicy:
            return PlannerPolicy(agent, [numbers[task] for task in tasks], seed)

        if index == 0 and options.planner_episodes:
            yield "planner", options.planner_episodes, planner
        yield name, count, policy


def _all_episodes(make_policy, agent, functions, num_steps: int, seeds: Sequence[int], name: str) -> RealEpisodes:
    """Run an episode for every seed, `TOGETHER` at a time."""
    parts = []
    for start in tqdm(range(0, len(seeds), TOGETHER), desc=name, unit="batch"):
        chosen = seeds[start : start + TOGETHER]
        tasks = [(start + number) % len(functions) for number in range(len(chosen))]
        policy = make_policy(tasks, chosen[0])
        parts.append(run_episodes(policy, agent.config.world_config, [functions[t] for t in tasks], chosen, num_steps))
    return RealEpisodes(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _write(folder: Path, rows: dict[str, Row], table: str, notes: str, fps: float) -> None:
    """Write the table, the figures of every episode, and a video of the first episodes of every policy."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agents.md").write_text(f"{table}\n\n{notes}\n", encoding="utf-8")
    figures = {
        name: [
            {"mean_reward": run.mean_reward.tolist(), "solved_at_the_end": run.ends_solved.tolist()}
            for run in row.runs
        ]
        for name, row in rows.items()
    }
    (folder / "agents.json").write_text(json.dumps(figures), encoding="utf-8")
    images = [_mosaic(rows, step) for step in range(next(iter(rows.values())).runs[0].frames.shape[1])]
    save_video(folder / "agents.mp4", images, fps)
    save_gif(folder / "agents.gif", images, fps)
    strip = images[:: max(1, len(images) // 6)]
    save_image(folder / "agents.png", np.concatenate(strip, axis=0))


def _mosaic(rows: dict[str, Row], step: int) -> np.ndarray:
    """Return one image: a column for each policy, a row for each of the first episodes."""
    columns, shown = [], min(SHOWN, *(len(row.runs[0].frames) for row in rows.values()))
    for name, row in rows.items():
        title = np.full((20, SIDE, 3), 255, np.uint8)
        cv2.putText(title, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        frames = row.runs[0].frames[:shown, step]
        columns.append(np.concatenate([title, *(cv2.resize(each, (SIDE, SIDE)) for each in frames)]))
    return np.concatenate(columns, axis=1)


__all__ = ["evaluate_agents"]

"""The options of comparing agents in the simulator. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import option


@dataclass(frozen=True, kw_only=True)
class AgentEvaluationOptions:
    """The options of `evaluate_agents`."""

    agents: tuple[str, ...] = option(
        metavar="NAME=FOLDER", help="Agents, with the names of their rows; several runs may share a name."
    )
    tasks: tuple[str, ...] = option((), metavar="NAME", help="Reward functions. Defaults to the tasks of the agents.")
    episodes: int = option(100, help="Episodes of each run, which go through the tasks by turns.")
    steps: int = option(60, help="Steps of an episode.")
    seed: int = option(10_000, help="Seed of the first start; the others follow.")
    baselines: bool = option(False, help="Also let scripts act: resting, random, play, a straight line.")
    planner_episodes: int = option(
        0,
        help="Also plan in dreams with the reward head of the first agent, in this many of the episodes; it is slow.",
    )
    deterministic: bool = option(False, help="Take the most likely actions instead of drawing them.")
    output_dir: str | None = option(None, help="Write table, figures and a video to this folder.")

    def __post_init__(self):
        for name in ("episodes", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected a positive int for --{name}, got {getattr(self, name)}.")
        if not 0 <= self.planner_episodes <= self.episodes:
            raise ValueError(
                f"expected --planner_episodes from 0 to --episodes {self.episodes}, got {self.planner_episodes}."
            )


__all__ = ["AgentEvaluationOptions"]

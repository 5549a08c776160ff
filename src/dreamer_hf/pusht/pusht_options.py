"""The options of recording PushT and of planning in it. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import option
from .task import WORLD_SIZE


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """The options of `record_pusht`."""

    repo_id: str = option(help="Name of the dataset, such as me/pusht-play.")
    root: str = option(help="Folder to write. It must not exist.")
    episodes: int = option(160, help="Number of episodes.")
    frames_per_episode: int = option(80, help="Frames of each episode, at 10 per second.")
    seed: int = option(0, help="Seed of the play. The same seed records the same play.")
    image_size: int = option(128, help="Side of the frames in pixels.")
    player: str = option(
        "play",
        help="Who plays: play (varied play without a goal), push (brings the block to its goal), push:0.5 (with half "
        "of its actions at random), random, or rest.",
    )


@dataclass(frozen=True, kw_only=True)
class ReachOptions:
    """The options of `reach`."""

    model: str = option(
        help="World of PushT: a folder, a Hub repository, or the name of a world that ships with the package."
    )
    move: str = option("agent", choices=("agent", "block"), help="What to move.")
    to: tuple[float, ...] = option((400.0, 120.0), help="Where to: x and y in 0 to 512.")
    real: bool = option(False, help="Act in the simulator instead of the dream.")
    actions: str = option(
        "auto",
        choices=("auto", "absolute", "relative"),
        help="With --real: whether the world's actions are targets or their differences; auto: what the world says.",
    )
    steps: int = option(20, help="Number of steps to act.")
    horizon: int = option(6, help="Number of steps to look ahead.")
    candidates: int = option(32, help="Futures that each round of a plan tries.")
    elites: int = option(5, help="Futures of a round that the next one resembles.")
    rounds: int = option(2, help="Rounds of a plan.")
    seed: int = option(0, help="Seed of the start, the noise and the planner.")
    record: str | None = option(None, metavar="FILE.mp4", help="Record a video of what happened.")

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"expected a positive int for --steps, got {self.steps}.")
        if len(self.to) != 2 or not all(0 <= value <= WORLD_SIZE for value in self.to):
            raise ValueError(
                f"expected a position in 0 to {WORLD_SIZE:g} for --to, got {' '.join(map(str, self.to))}."
            )


__all__ = ["ReachOptions", "RecordOptions"]

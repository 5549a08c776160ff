"""The options of recording PushT and of planning in it. Imports nothing that takes time."""

from dataclasses import dataclass

from ..options import option
from .task import WORLD_SIZE


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """The options of `record`."""

    repo_id: str | None = option(None, help="Name of the LeRobotDataset to record, such as me/pusht-play.")
    root: str | None = option(None, help="Folder of the LeRobotDataset. It must not exist.")
    output_dir: str | None = option(
        None, help="Record shards with relative actions into this new or empty folder, instead of a LeRobotDataset."
    )
    episodes: int = option(160, help="Number of episodes.")
    frames_per_episode: int = option(80, help="Frames of each episode, at 10 per second.")
    seed: int = option(0, help="Seed of the play. The same seed records the same play.")
    image_size: int | None = option(
        None, help="Side of the frames in pixels. Defaults to 128 for a LeRobotDataset and to 96 for shards."
    )
    players: tuple[str, ...] = option(
        (),
        metavar="PLAYER",
        help="Players, of which each episode draws one (docs/data.md). Defaults to `varied` for a LeRobotDataset and "
        "to all but `strokes` for shards.",
    )
    renderings: tuple[str, ...] = option(
        (),
        metavar="RENDERING",
        help="Kinds of renderings, of which each episode draws one (docs/data.md); for shards only. Defaults to all.",
    )
    num_workers: int | None = option(None, help="Processes that record shards. Defaults to one per core.")
    resume: bool = option(False, help="Continue an interrupted recording of shards.")

    def __post_init__(self):
        if (self.output_dir is None) == (self.root is None):
            raise ValueError("expected either --output_dir for shards, or --repo_id and --root for a LeRobotDataset.")
        if self.root is not None and self.repo_id is None:
            raise ValueError("a LeRobotDataset needs a name: give --repo_id.")
        if self.root is not None and (self.renderings or self.resume or self.num_workers):
            raise ValueError(
                "--renderings, --num_workers and --resume are for shards: give --output_dir, or omit them."
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

"""What a converter makes of episodes, and how it does the work."""

from dataclasses import dataclass, field

import numpy as np

from .frame_transform import FrameTransform
from .shard_writer import CHUNK_LENGTH


@dataclass(frozen=True)
class ConversionOptions:
    """What is made of the episodes; the same for every source (units and meaning: docs/data.md)."""

    episodes_per_shard: int = 100
    target_fps: float | None = None
    transform: FrameTransform = field(default_factory=FrameTransform)
    min_episode_length: int = 1
    relative_actions: bool = False
    absolute_action_dims: tuple[int, ...] = ()
    compression: str = "zstd"
    chunk_length: int = CHUNK_LENGTH

    def __post_init__(self) -> None:
        for name in ("episodes_per_shard", "min_episode_length", "chunk_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} is too small: give at least 1.")

    def frame_step(self, fps: float | None) -> int:
        """Every how many source frames one is kept.

        Raises:
            ValueError: the rates do not divide; the message names some that work.
        """
        if self.target_fps is None:
            return 1
        if fps is None:
            raise ValueError("--target_fps needs the source's rate, which it does not say: give it with --fps.")
        step = round(fps / self.target_fps) if self.target_fps > 0 else 0
        if step < 1 or abs(fps / step - self.target_fps) > 0.005 * self.target_fps:
            works = ", ".join(f"{fps / k:.4g}" for k in (1, 2, 3, 4, 5, 6, 8, 10))
            raise ValueError(f"--target_fps {self.target_fps:g} does not divide the source's {fps:g}: use {works}, …")
        return step

    def check_actions(self, action_dim: int) -> None:
        """Raises ValueError where `absolute_action_dims` do not exist or mean nothing."""
        if self.absolute_action_dims and not self.relative_actions:
            raise ValueError("--absolute_action_dims only means something with --relative_actions: add it.")
        wrong = [dim for dim in self.absolute_action_dims if not 0 <= dim < action_dim]
        if wrong:
            raise ValueError(
                f"--absolute_action_dims {wrong} do not exist: actions have dimensions 0 to {action_dim - 1}."
            )

    def prepare_actions(self, actions: np.ndarray | None) -> np.ndarray | None:
        """Actions of the kept frames (frames, action_dim) as they are stored."""
        if actions is None:
            return None
        actions = actions.astype(np.float32)
        if not self.relative_actions:
            return actions
        relative = np.diff(actions, axis=0, prepend=actions[:1])
        kept = list(self.absolute_action_dims)
        relative[:, kept] = actions[:, kept]
        return relative


@dataclass(frozen=True)
class JobOptions:
    """How the work is done; none of it changes what comes out.

    Args:
        num_workers: processes; 1 works in this one.
        resume: go on where an interrupted conversion stopped.
        num_jobs, job_index: do only every `num_jobs`-th shard, beginning with `job_index`, and leave the metadata to a
            last call with `merge`.
        merge: write the metadata of shards that jobs have finished.
    """

    num_workers: int = 1
    resume: bool = False
    num_jobs: int = 1
    job_index: int = 0
    merge: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.num_jobs < 1:
            raise ValueError("--num_workers and --num_jobs must each be at least 1.")
        if not 0 <= self.job_index < self.num_jobs:
            raise ValueError(
                f"--job_index {self.job_index} does not exist: --num_jobs {self.num_jobs} makes 0 to {self.num_jobs - 1}."
            )

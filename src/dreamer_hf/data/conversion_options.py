"""What a converter makes of episodes, and how it does the work."""

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from .episodes import RecordedRewards
from .frame_transform import FrameTransform

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class ConversionOptions:
    """What is made of the episodes; the same for every source.

    Args:
        episodes_per_shard: number of episodes in a shard.
        target_fps: rate of the stored frames in frames per second, which divides that of the source; None: the
            source's.
        transform: size of the stored frames.
        min_episode_length: number of stored frames below which an episode is dropped.
        relative_actions: whether to store each action minus the one of the kept frame before.
        absolute_action_dims: dimensions to leave absolute with `relative_actions`.
        displacement_action_dims: dimensions that the source records as displacements (from each frame to the next), or
            "all": those of frames that are left out are added to the kept frame before them.
        compression: "zstd", or "gzip" for readers without hdf5plugin.

    Raises:
        ValueError: a value is out of range.
    """

    episodes_per_shard: int = 100
    target_fps: float | None = None
    transform: FrameTransform = field(default_factory=FrameTransform)
    min_episode_length: int = 1
    relative_actions: bool = False
    absolute_action_dims: tuple[int, ...] = ()
    displacement_action_dims: tuple[int, ...] | Literal["all"] = ()
    compression: str = "zstd"

    def __post_init__(self) -> None:
        for name in ("episodes_per_shard", "min_episode_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected a positive int for --{name}, got {getattr(self, name)}.")

    def frame_step(self, fps: float | None) -> int:
        """Return n if the first of every n source frames is kept.

        Args:
            fps: the source's frames per second, None if it does not say.

        Raises:
            ValueError: the rates do not divide; the message names some that do.
        """
        if self.target_fps is None:
            return 1
        if fps is None:
            raise ValueError("--target_fps needs the rate of the source, which does not say it: give it with --fps.")
        step = round(fps / self.target_fps) if self.target_fps > 0 else 0
        if step < 1 or abs(fps / step - self.target_fps) > 0.005 * self.target_fps:
            works = ", ".join(f"{fps / k:.4g}" for k in (1, 2, 3, 4, 5, 6, 8, 10))
            raise ValueError(f"--target_fps {self.target_fps:g} does not divide the source's {fps:g}: use {works}, …")
        return step

    def displacement_dims(self, action_dim: int) -> list[int]:
        """Return `displacement_action_dims` as numbers."""
        return list(range(action_dim) if self.displacement_action_dims == "all" else self.displacement_action_dims)

    def check_actions(self, action_dim: int) -> None:
        """Raise ValueError unless the chosen dimensions exist and go together."""
        displaced = self.displacement_dims(action_dim)
        if self.absolute_action_dims and not self.relative_actions:
            raise ValueError("--absolute_action_dims has no effect without --relative_actions: add it.")
        for flag, dims in (("absolute", self.absolute_action_dims), ("displacement", displaced)):
            wrong = [dim for dim in dims if not 0 <= dim < action_dim]
            if wrong:
                raise ValueError(
                    f"--{flag}_action_dims {wrong} do not exist: actions have dimensions 0 to {action_dim - 1}."
                )
        differenced = sorted(set(displaced) - set(self.absolute_action_dims)) if self.relative_actions else []
        if differenced:
            raise ValueError(
                f"--relative_actions would take differences of the displacements {differenced}: leave it out, or add "
                "them to --absolute_action_dims."
            )

    def prepare_actions(self, actions: np.ndarray | None, step: int) -> np.ndarray | None:
        """Return the actions of the kept frames as they are stored.

        Args:
            actions: those of all frames of an episode, (frames, action_dim), in the numeric type of the source.
            step: `frame_step`.

        Returns:
            (kept frames, action_dim) float32. Differences and sums are computed before they are rounded to that.
        """
        if actions is None:
            return None
        wide = _widened(actions)
        kept = wide[::step]
        prepared = np.diff(kept, axis=0, prepend=kept[:1]) if self.relative_actions else kept.copy()
        unchanged = list(self.absolute_action_dims)
        prepared[:, unchanged] = kept[:, unchanged]
        displaced = self.displacement_dims(actions.shape[1])
        if displaced and len(wide):
            starts = np.arange(0, len(wide), step)
            prepared[:, displaced] = np.add.reduceat(wide[:, displaced], starts, axis=0)
        with np.errstate(over="ignore"):  # What does not fit becomes infinite, which the writer refuses.
            return prepared.astype(np.float32)

    def prepare_states(self, states: np.ndarray | None, step: int) -> np.ndarray | None:
        """Return the states (kept frames, state_dim) float32 of the kept frames, given those of all frames."""
        if states is None:
            return None
        with np.errstate(over="ignore"):  # What does not fit becomes infinite, which the writer refuses.
            return states[::step].astype(np.float32)

    def prepare_rewards(self, recorded: RecordedRewards | None, step: int) -> RecordedRewards | None:
        """Return the rewards of the kept frames: what the actions up to the next kept frame earned together."""
        if recorded is None or not len(recorded.rewards):
            return recorded
        starts = np.arange(0, len(recorded.rewards), step)
        rewards = np.add.reduceat(recorded.rewards.astype(np.float64), starts, axis=0)
        terminals = recorded.terminals
        if terminals is not None:
            terminals = np.logical_or.reduceat(terminals.astype(bool), starts)
        return RecordedRewards(rewards.astype(np.float32), terminals)

    def arguments(self, action_dim: int) -> dict:
        """Return all options as they are stored in the metadata."""
        arguments = asdict(self)
        arguments.update(arguments.pop("transform"), absolute_action_dims=list(self.absolute_action_dims))
        return arguments | {"displacement_action_dims": self.displacement_dims(action_dim)}


def _widened(actions: np.ndarray) -> np.ndarray:
    """Return actions in a type in which their differences and sums are exact, or nearly so."""
    limit = 1 << 48
    is_integer = actions.dtype.kind in "iub" and actions.size > 0
    exact = is_integer and -limit < int(actions.min()) and int(actions.max()) < limit
    return actions.astype(np.int64 if exact else np.float64, copy=False)


@dataclass(frozen=True)
class JobOptions:
    """How the work is done; none of it changes the result.

    Args:
        num_workers: number of processes; 1 works in this one.
        resume: whether to continue an interrupted conversion.

    Raises:
        ValueError: a value is out of range.
    """

    num_workers: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"expected a positive int for --num_workers, got {self.num_workers}.")


def available_cores() -> int:
    """Return the number of processor cores that this process may use: by its affinity and by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # No container, or none with a quota.
        pass
    return max(1, cores)

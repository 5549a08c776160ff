"""What every source of episodes offers to the converter."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NO_STATE = "none"
"""What takes the place of a key to leave the state out."""


class DamagedEpisode(ValueError):
    """Raised by the `frames` of an episode if its source leaves out damaged episodes: what came of it is dropped."""


@dataclass(frozen=True)
class StateInfo:
    """The state of a source: what it measures of the world in each frame, such as the joint positions of a robot.

    Attributes:
        key: where the source has it; several, separated by commas, are joined.
        dim: number of its dimensions.
        names, units: of the dimensions, if the source says.
    """

    key: str
    dim: int
    names: list[str] | None = None
    units: list[str] | None = None


@dataclass(frozen=True)
class RewardInfo:
    """The rewards of a source.

    Attributes:
        key: where the source has them.
        task_names: the Q tasks of its episodes.
        terminal_key: where it says that an episode ended for good; None if it does not.
    """

    key: str
    task_names: list[str]
    terminal_key: str | None = None


@dataclass(frozen=True)
class RecordedRewards:
    """The rewards of one episode of F frames, each stored next to the action that earned it.

    Attributes:
        rewards: float (F, Q) for Q tasks; NaN for the tasks that the episode is not about.
        terminals: bool (F,), whether the action ended the episode for good; None if the source does not say.
    """

    rewards: np.ndarray
    terminals: np.ndarray | None = None


def no_states() -> None:
    """The states of an episode that has none."""


def no_rewards() -> None:
    """The rewards of an episode that has none."""


@dataclass
class Episode:
    """One episode of a source.

    `frames` yields the first of every `frame_step` frames, each (H, W, 3) uint8 RGB, and may be read once. With
    several cameras it yields a list of these, one for each of `camera_names`.
    `actions()`, called after that, returns the actions of *all* frames of the source, (source frames, action_dim) in
    the numeric type of the source, or None if the episode has no actions. `states()` likewise returns the states,
    (source frames,
    state_dim): that of a frame is what was measured when it was taken. `rewards()` returns the rewards of all frames.

    If the source leaves out damaged episodes, `frames` may end in `DamagedEpisode`.
    """

    number: int
    frames: Iterator[np.ndarray | list[np.ndarray]]
    actions: Callable[[], np.ndarray | None]
    states: Callable[[], np.ndarray | None] = no_states
    rewards: Callable[[], RecordedRewards | None] = no_rewards


class EpisodeSource(Protocol):
    """A dataset to convert. Sources travel to worker processes by pickling, so they hold names, not open files."""

    fps: float | None
    """Frames per second; None if the source does not say."""
    action_dim: int
    action_names: list[str] | None
    action_units: list[str] | None
    image_key: str | None
    action_key: str | None
    camera_names: list[str] | None
    """Names of several cameras; None for one."""
    state: StateInfo | None
    """None if no episode has a state."""
    rewards: RewardInfo | None
    """None if no rewards are read."""
    description: dict
    """Where the data came from (repository, revision, folder): stored as `source` in the metadata."""
    numbers: Sequence[int] | None
    """The episodes that can be read; None for a stream, which can only be read from its start."""
    lengths: Sequence[int] | None
    """Number of frames of each, before thinning out; None if only reading tells."""

    def check(self) -> None:
        """Raise an error, before the work begins, if files that the episodes need are missing or only placeholders."""
        ...

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """Yield these episodes in order, thinned out to the first of every `frame_step` frames.

        A stream takes `range(first, sys.maxsize)` and yields what follows. An episode must be used up before the next.
        """
        ...


def camera_names(keys: Sequence[str]) -> list[str] | None:
    """Return short names of several cameras, None for one: the last parts of their keys if these differ.

    "observation.images.front" becomes "front".
    """
    if len(keys) < 2:
        return None
    short = [re.split(r"[./]", key)[-1] for key in keys]
    return short if len(set(short)) == len(keys) else list(keys)


def choose_state_key(given: str | None, usual: str, available: Sequence[str]) -> str | None:
    """Return where to take the state from: the given key, or the usual one if the source has it; None for no state.

    Args:
        given: a key, or several separated by commas; "none" for no state; None for the usual one.
        usual: the key of a state by the convention of the format.
        available: the keys that can be a state.

    Raises:
        ValueError: a given key does not exist.
    """
    if given is None:
        return usual if usual in available else None
    if given == NO_STATE:
        return None
    for key in given.split(","):
        if key not in available:
            listed = ", ".join(available) or "(there is none)"
            raise ValueError(f"there is no {key!r} to take the state from; choose {NO_STATE}, or some of: {listed}.")
    return given


def parse_ranges(text: str | None, available: Sequence[int]) -> list[int]:
    """Return the episode numbers that a text like "0:100", "7" or "3,8,10:20" selects; all `available` ones for None.

    Args:
        text: numbers and ranges, separated by commas; the end of a range is excluded.
        available: the numbers that exist, increasing.

    Raises:
        ValueError: the text is not such a list, or names episodes that do not exist.
    """
    if text is None:
        return list(available)
    known, end = set(available), max(available, default=-1) + 1
    chosen: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.partition(":")
        try:
            start = int(first or 0)
            stop = (int(last) if last else end) if colon else start + 1
        except ValueError as error:
            raise ValueError(
                f"expected episode ranges like 0:100 or 3,8,10:20 for --episodes, got {text!r}."
            ) from error
        found = known.intersection(range(start, stop)) if 0 <= start < stop <= end else ()
        if not found:
            raise ValueError(f"--episodes {part} lies outside the dataset, which holds episodes 0 to {end - 1}.")
        chosen |= found
    return sorted(chosen)


def format_ranges(numbers: Sequence[int]) -> str:
    """Return episode numbers (increasing) in the form that `parse_ranges` reads: "0:100,105:110"."""
    numbers = np.asarray(numbers, np.int64)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{run[0]}:{run[-1] + 1}" for run in runs if len(run))

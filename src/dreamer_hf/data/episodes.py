"""What every source of episodes offers to the converter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class DamagedEpisode(ValueError):
    """Raised by an episode's `frames` where a source leaves out damaged episodes: what came of it is to be dropped."""


@dataclass
class Episode:
    """One episode, already thinned out to the frames that are kept.

    `frames` yields (H, W, 3) uint8 RGB and may be read once. `actions()`, called after that, gives (frames, action_dim)
    float32, or None for an episode without actions.

    Where the source leaves out damaged episodes, `frames` may end in `DamagedEpisode`.
    """

    number: int
    frames: Iterator[np.ndarray]
    actions: Callable[[], np.ndarray | None]


class EpisodeSource(Protocol):
    """A dataset to convert. Sources travel to worker processes by pickling, so they hold names, not open files."""

    fps: float | None
    """Frames a second; None where the source does not say."""
    action_dim: int
    action_names: list[str] | None
    action_units: list[str] | None
    image_key: str | None
    action_key: str | None
    description: dict
    """Where the data came from (repository, revision, folder): stored as `source` in the metadata."""
    numbers: Sequence[int] | None
    """The episodes that can be read; None for a stream, which can only be read from its start."""
    lengths: Sequence[int] | None
    """Frames of each, before thinning out; None where only reading tells."""

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """Yields these episodes in order, keeping the first of every `frame_step` frames and its action.

        A stream takes `range(first, sys.maxsize)` and yields what follows. An episode must be used up before the next.
        """
        ...


def parse_range(text: str | None, count: int) -> list[int]:
    """Episode numbers from "0:100", "7", "3,8,10:20"; all `count` of them from None.

    Raises:
        ValueError: the text is no such list, or names episodes that do not exist.
    """
    if text is None:
        return list(range(count))
    chosen: list[int] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        try:
            start = int(first or 0)
            stop = (int(last) if last else count) if colon else start + 1
        except ValueError as error:
            raise ValueError(f"--episodes {text!r} is no list of ranges: write it like 0:100 or 3,8,10:20.") from error
        if not 0 <= start < stop <= count:
            raise ValueError(f"--episodes {part} lies outside the dataset, which holds episodes 0 to {count - 1}.")
        chosen.extend(range(start, stop))
    return sorted(set(chosen))

"""A folder of video files as episodes, with actions beside them or without any."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..episodes import Episode, parse_range
from ..files import first_line
from ..video_decoding import decode_clip, frame_rate

VIDEO_SUFFIXES = (".mp4", ".gif", ".mov", ".mkv", ".webm", ".avi")


@dataclass
class VideoSource:
    """Every video in a folder (and its subfolders, by name) is an episode; an `EpisodeSource`.

    Actions of `clip.mp4` are taken from `clip.npy`, an array (frames, action_dim), or `clip.csv`, a row a frame, with
    the names of the axes in the first row or not. A video without either is unlabelled.

    Args:
        video_dir: the folder.
        fps: frames a second; None: as the files say, which must agree.
        episodes: which ones, like "0:100"; None: all.

    Raises:
        FileNotFoundError, ValueError: no videos, different rates, or actions of different widths.
    """

    video_dir: Path
    fps: float | None = None
    episodes: str | None = None
    image_key: str | None = None
    action_key: str | None = None
    action_units: list[str] | None = None

    def __post_init__(self) -> None:
        self.video_dir = Path(self.video_dir)
        found = sorted(path for path in self.video_dir.glob("**/*") if path.suffix.lower() in VIDEO_SUFFIXES)
        if not found:
            raise FileNotFoundError(
                f"{self.video_dir} holds no videos ({', '.join(VIDEO_SUFFIXES)}): give their folder."
            )
        self.paths = found
        self.numbers = parse_range(self.episodes, len(found))
        self.lengths = None
        self.fps = self.fps or self._common_rate()
        self.action_dim, self.action_names = self._describe_actions()
        self.description = {"format": "videos", "folder": self.video_dir.name, "files": len(found)}

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        for number in numbers:
            path = self.paths[number]
            frames = decode_clip(path, frame_step, str(path), self.fps)
            yield Episode(number, frames, partial(_kept_actions, path, frame_step))

    def _common_rate(self) -> float | None:
        rates = {self.paths[number]: frame_rate(self.paths[number]) for number in self.numbers}
        rates = {path: rate for path, rate in rates.items() if rate is not None}
        first = next(iter(rates), None)
        for path, rate in rates.items():
            if abs(rate - rates[first]) > 0.01 * rate:
                raise ValueError(
                    f"{path} has {rate:g} frames/s, {first} has {rates[first]:g}: give the common rate with --fps."
                )
        return rates.get(first)

    def _describe_actions(self) -> tuple[int, list[str] | None]:
        width, names, first = 0, None, None
        for number in self.numbers:
            actions = read_actions(self.paths[number])
            if actions is None:
                continue
            if first is not None and actions[0].shape[1] != width:
                raise ValueError(
                    f"the actions of {self.paths[number]} are {actions[0].shape[1]} wide, those of {first} {width}: "
                    "bring them to one width."
                )
            width, names, first = actions[0].shape[1], names or actions[1], first or self.paths[number]
        return width, names


def read_actions(video: Path) -> tuple[np.ndarray, list[str] | None] | None:
    """Actions (frames, action_dim) float32 and axis names from the file beside a video; None if there is none.

    Raises:
        ValueError: the file does not hold a table of numbers.
    """
    table, names = video.with_suffix(".npy"), None
    try:
        if table.is_file():
            actions = np.load(table, allow_pickle=False)
        elif (table := video.with_suffix(".csv")).is_file():
            first = table.read_text(encoding="utf-8").partition("\n")[0].split(",")
            names = None if all(map(_is_number, first)) else [name.strip() for name in first]
            actions = np.loadtxt(table, delimiter=",", skiprows=0 if names is None else 1, ndmin=2)
        else:
            return None
        if actions.ndim != 2 or not actions.size:
            raise ValueError(f"shape {actions.shape} instead of (frames, action_dim)")
        return actions.astype(np.float32), names
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{table} holds no table of actions, a row a frame ({first_line(error)}): repair or remove it."
        ) from error


def _kept_actions(video: Path, frame_step: int) -> np.ndarray | None:
    found = read_actions(video)
    return None if found is None else found[0][::frame_step]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

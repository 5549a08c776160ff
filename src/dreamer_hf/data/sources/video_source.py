"""A folder of video files as episodes, with or without actions next to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..action_data import read_action_table
from ..episodes import Episode, parse_ranges
from ..files import check_not_lfs_pointer
from ..video_decoding import decode_clip, frame_rate

VIDEO_SUFFIXES = (".mp4", ".gif", ".mov", ".mkv", ".webm", ".avi", ".h264")


@dataclass
class VideoSource:
    """Every video in a folder and its subfolders, in the order of their names, as an episode; an `EpisodeSource`.

    The actions of `clip.mp4` are read from `clip.npy`, an array (frames, action_dim), or `clip.csv`, one row per
    frame, which may start with a row of names. A video without either is unlabeled. Hidden files are left out.

    Frames at uneven times are sampled by time at `fps`: then there is one row of actions per sample.

    Args:
        video_dir: the folder.
        fps: frames per second; default: that of the files, which must agree.
        episodes: which ones, like "0:100"; default: all.

    Raises:
        FileNotFoundError, ValueError: no videos, different rates, or actions of different widths.
    """

    video_dir: Path
    fps: float | None = None
    episodes: str | None = None
    image_key: str | None = None
    action_key: str | None = None
    action_units: list[str] | None = None
    state: None = None
    rewards: None = None
    camera_names: None = None

    def __post_init__(self) -> None:
        self.video_dir = Path(self.video_dir)
        self.paths = sorted(filter(self._is_video, self.video_dir.glob("**/*")))
        if not self.paths:
            raise FileNotFoundError(
                f"{self.video_dir} holds no videos ({', '.join(VIDEO_SUFFIXES)}): give their folder."
            )
        self.numbers = parse_ranges(self.episodes, range(len(self.paths)))
        self.lengths = None
        self.check()
        if self.fps is None:
            self.fps = self._common_rate()
        elif not self.fps > 0:
            raise ValueError(f"expected a positive number for --fps, got {self.fps:g}.")
        self.action_dim, self.action_names = self._describe_actions()
        self.description = {"format": "videos", "folder": self.video_dir.name, "files": len(self.paths)}

    def check(self) -> None:
        """See `EpisodeSource.check`."""
        for number in self.numbers:
            check_not_lfs_pointer(self.paths[number])

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        for number in numbers:
            path = self.paths[number]
            frames = decode_clip(path, frame_step, str(path), self.fps)
            yield Episode(number, frames, partial(_actions, path))

    def _is_video(self, path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(self.video_dir).parts)
        return path.suffix.lower() in VIDEO_SUFFIXES and not hidden

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
            found = read_actions(self.paths[number])
            if found is None:
                continue
            if first is not None and found[0].shape[1] != width:
                raise ValueError(
                    f"the actions of {self.paths[number]} are {found[0].shape[1]} wide, those of {first} {width}: "
                    "bring them to one width."
                )
            width, names, first = found[0].shape[1], names or found[1], first or self.paths[number]
        return width, names


def read_actions(video: Path) -> tuple[np.ndarray, list[str] | None] | None:
    """Return the actions (frames, action_dim) of a video and the names of their dimensions; None if it has none.

    Raises:
        ValueError: the file of its name does not hold a table of numbers.
    """
    tables = (video.with_suffix(suffix) for suffix in (".npy", ".csv"))
    table = next((path for path in tables if path.is_file()), None)
    return None if table is None else read_action_table(table)


def _actions(video: Path) -> np.ndarray | None:
    found = read_actions(video)
    return None if found is None else found[0]

"""Any dataset of the `datasets` library as episodes."""

from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import groupby
from pathlib import Path

import datasets
import numpy as np

from ..episodes import Episode, parse_range
from ..files import first_line
from ..frame_transform import as_rgb
from ..video_decoding import decode_clip


class TableSource:
    """Rows of a `datasets` dataset as episodes; an `EpisodeSource`.

    With an image column a row is a frame, and successive rows with the same value in the episode column are an episode.
    With a video column a row is a whole episode, and its action column holds a list of actions.

    Args:
        dataset: a `Dataset`, or an `IterableDataset` (read once, from its start).
        image_column: images (encoded or arrays) or videos.
        action_column: numbers or lists of numbers; None: unlabelled.
        episode_column: what tells episodes apart; not needed for videos.
        fps: frames a second, if known.
        description: where the data came from.
        episodes: which ones, like "0:100"; None: all. Not for streams.

    Raises:
        ValueError: unknown columns (those that exist are named), or an empty dataset.
    """

    def __init__(
        self,
        dataset: datasets.Dataset | datasets.IterableDataset,
        image_column: str,
        action_column: str | None = None,
        episode_column: str | None = None,
        fps: float | None = None,
        description: dict | None = None,
        episodes: str | None = None,
    ):
        self.image_key, self.action_key, self.fps = image_column, action_column, fps
        self.description = {"format": "datasets", **(description or {})}
        self._episode_column = episode_column
        features = dataset.features or dataset._resolve_features().features
        self._check_columns(features)
        self._is_video = isinstance(features[image_column], datasets.Video)
        if not self._is_video and episode_column is None:
            raise ValueError(f"images need --episode_column to tell episodes apart: one of {', '.join(features)}.")
        wanted = [name for name in (image_column, action_column, episode_column) if name is not None]
        self._dataset = _without_decoding(dataset.select_columns(wanted), image_column, features[image_column])
        self._first_rows = None
        self.numbers, self.lengths = self._find_episodes(episodes)
        self.action_dim, self.action_names, self.action_units = self._action_width(), None, None

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        for number, rows in self._episodes(numbers):
            if self._is_video:
                row = next(iter(rows))
                frames = _decode_video(row[self.image_key], frame_step, f"video {number}")
                yield Episode(number, frames, partial(self._video_actions, row, frame_step))
            else:
                kept = _EveryNth(rows, frame_step, self.action_key)
                frames = map(partial(_picture, column=self.image_key, where=f"episode {number}"), kept)
                yield Episode(number, frames, kept.actions)

    def _check_columns(self, features) -> None:
        """Refuses columns that do not exist or cannot be what they are given as."""
        pictures = [name for name, feature in features.items() if _may_be_pictures(feature)]
        vectors = [name for name, feature in features.items() if _may_be_actions(feature)]
        chosen = {
            "image": (self.image_key, pictures),
            "action": (self.action_key, vectors),
            "episode": (self._episode_column, [name for name in features if name != self.image_key]),
        }
        for flag, (name, fitting) in chosen.items():
            if name is not None and name not in fitting:
                listed = ", ".join(fitting) or "(there is none)"
                raise ValueError(f"there is no such column as {name!r}; --{flag}_column can be: {listed}.")

    def _video_actions(self, row: dict, frame_step: int) -> np.ndarray | None:
        return None if self.action_key is None else _matrix(row[self.action_key])[::frame_step]

    def _episodes(self, numbers: Sequence[int]) -> Iterator[tuple[int, Iterator[dict]]]:
        if self.numbers is not None:
            for number in numbers:
                if self._is_video:
                    yield number, [self._dataset[number]]
                else:
                    first, last = self._first_rows[number : number + 2]
                    yield number, (self._dataset[row] for row in range(first, last))
            return
        rows = iter(self._dataset)
        groups = ([row] for row in rows) if self._is_video else (g for _, g in groupby(rows, self._owner))
        for number, group in enumerate(groups):
            if number >= numbers[0]:
                yield number, group

    def _owner(self, row: dict):
        return row[self._episode_column]

    def _find_episodes(self, episodes: str | None) -> tuple[list[int] | None, list[int] | None]:
        if isinstance(self._dataset, datasets.IterableDataset):
            if episodes is not None:
                raise ValueError("--episodes cannot choose from a stream: leave it out, or read without --streaming.")
            return None, None
        if len(self._dataset) == 0:
            raise ValueError("the dataset has no rows: choose another split.")
        if self._is_video:
            return parse_range(episodes, len(self._dataset)), None
        owners = np.asarray(self._dataset[self._episode_column])
        changes = np.flatnonzero(owners[1:] != owners[:-1]) + 1
        self._first_rows = [0, *changes.tolist(), len(owners)]
        if len(np.unique(owners)) != len(changes) + 1:
            raise ValueError(
                f"rows of one {self._episode_column!r} do not stand together: sort the dataset by it and by time first."
            )
        numbers = parse_range(episodes, len(changes) + 1)
        return numbers, np.diff(self._first_rows)[numbers].tolist()

    def _action_width(self) -> int:
        if self.action_key is None:
            return 0
        row = next(iter(self._dataset), None)
        if row is None:
            raise ValueError("the dataset has no rows: choose another split.")
        return (_matrix(row[self.action_key]) if self._is_video else _vector(row[self.action_key])).shape[-1]


class _EveryNth:
    """Rows that are kept, once; `actions` are complete when they have been used up."""

    def __init__(self, rows: Iterator[dict], step: int, action_key: str | None):
        self._rows, self._step, self._action_key = rows, step, action_key
        self._collected: list[np.ndarray] = []

    def __iter__(self) -> Iterator[dict]:
        for position, row in enumerate(self._rows):
            if position % self._step == 0:
                if self._action_key is not None:
                    self._collected.append(_vector(row[self._action_key]))
                yield row

    def actions(self) -> np.ndarray | None:
        return None if self._action_key is None else np.stack(self._collected)


def _may_be_pictures(feature) -> bool:
    """Images, videos, encoded bytes, and uint8 arrays of three sizes."""
    if isinstance(feature, datasets.Image | datasets.Video):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    sizes, dtype = _nested(feature)
    return sizes == 3 and dtype == "uint8"


def _may_be_actions(feature) -> bool:
    """Numbers, and lists or arrays of them."""
    sizes, dtype = _nested(feature)
    return sizes <= 2 and dtype.startswith(("float", "double", "int", "uint", "bool"))


def _nested(feature) -> tuple[int, str]:
    """How many sizes an array, or a list of lists, has, and the type of its elements ("" if it is none)."""
    if isinstance(feature, datasets.List | datasets.LargeList):
        sizes, dtype = _nested(feature.feature)
        return sizes + 1, dtype
    arrays = {datasets.Array2D: 2, datasets.Array3D: 3, datasets.Array4D: 4}
    return arrays.get(type(feature), 0), getattr(feature, "dtype", None) or ""


def load_table(path: str, split: str, config: str | None = None, streaming: bool = False):
    """Loads a dataset saved on disk, in files, or on the Hub.

    Raises:
        FileNotFoundError, ValueError: it is nowhere, or has no such split.
    """
    try:
        if Path(path).is_dir() and list(Path(path).glob("**/state.json")):
            loaded = datasets.load_from_disk(path)
            table = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
            return table.to_iterable_dataset() if streaming else table
        return datasets.load_dataset(path, config, split=split, streaming=streaming)
    except KeyError as error:
        raise ValueError(f"{path} has no split {error}: choose another with --split.") from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise FileNotFoundError(f"{path} cannot be loaded ({first_line(error)}): check its name.") from error


def _without_decoding(dataset, column: str, feature):
    """Leaves pictures encoded: we decode those that are kept, without Pillow or torchcodec."""
    if isinstance(feature, datasets.Image):
        return dataset.cast_column(column, datasets.Image(decode=False))
    if isinstance(feature, datasets.Video):
        return dataset.cast_column(column, datasets.Video(decode=False))
    return dataset


def _picture(row: dict, column: str, where: str) -> np.ndarray:
    return as_rgb(_content(row[column]), where)


def _content(cell) -> bytes | np.ndarray:
    if isinstance(cell, dict):
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
    return cell if isinstance(cell, bytes) else np.asarray(cell, np.uint8)


def _decode_video(cell: dict, step: int, name: str) -> Iterator[np.ndarray]:
    source = BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]
    return decode_clip(source, step, name)


def _vector(cell) -> np.ndarray:
    return np.atleast_1d(np.asarray(cell, np.float32)).ravel()


def _matrix(cell) -> np.ndarray:
    actions = np.asarray(cell, np.float32)
    return actions[:, None] if actions.ndim == 1 else actions

"""Any dataset of the `datasets` library as episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..episodes import Episode, parse_ranges
from ..files import first_line
from ..frame_transform import as_rgb
from ..video_decoding import decode_clip


@dataclass(frozen=True)
class TableColumns:
    """Which columns hold what; a field of a struct column is written with a slash: "observation/image".

    Args:
        image: images (encoded or arrays) or videos.
        action: numbers, or lists or arrays of them; several, separated by commas, are joined; None: unlabeled.
        episode: what tells episodes apart; not needed for videos.
    """

    image: str
    action: str | None = None
    episode: str | None = None

    @property
    def actions(self) -> list[str]:
        """The action columns, one by one."""
        return [] if self.action is None else self.action.split(",")

    @property
    def all(self) -> list[str]:
        """Every column."""
        return [self.image, *self.actions, *([] if self.episode is None else [self.episode])]


class TableSource:
    """Rows of a `datasets` dataset as episodes; an `EpisodeSource`.

    With an image column, a row is a frame, and successive rows with the same value in the episode column are an
    episode. With a video column, a row is a whole episode, and its action column holds a list of actions.

    Args:
        dataset: a `Dataset`, or an `IterableDataset` (read once, from its start).
        columns: which columns hold what.
        fps: frames per second, if known; uneven videos are sampled at it.
        description: where the data came from.
        episodes: which ones, like "0:100"; None: all. Not for streams.

    Raises:
        ValueError: unknown columns (the message names those that exist), or an empty dataset.
    """

    def __init__(
        self,
        dataset: datasets.Dataset | datasets.IterableDataset,
        columns: TableColumns,
        fps: float | None = None,
        description: dict | None = None,
        episodes: str | None = None,
    ):
        self.columns, self.image_key, self.action_key, self.fps = columns, columns.image, columns.action, fps
        self.description = {"format": "datasets", **(description or {})}
        features = dataset.features or dataset._resolve_features().features
        known = _flatten_features(features)
        self._check_columns(known)
        self._is_video = isinstance(known[columns.image], datasets.Video)
        if not self._is_video and columns.episode is None:
            raise ValueError(f"images need --episode_column to tell episodes apart: one of {', '.join(known)}.")
        top_level = list(dict.fromkeys(name.partition("/")[0] for name in columns.all))
        self._dataset = _without_decoding(dataset.select_columns(top_level), features, columns.image)
        self._first_rows, self.action_dim = None, 0
        self.numbers, self.lengths = self._find_episodes(episodes)
        self.action_dim, self.action_names, self.action_units = self._action_width(), self._action_names(), None

    def check(self) -> None:
        """See `EpisodeSource.check`; the `datasets` library has done it."""

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        for number, rows in self._episodes(numbers):
            if self._is_video:
                row = next(iter(rows))
                frames = self._decode_video(_cell(row, self.columns.image), frame_step, f"video {number}")
                yield Episode(number, frames, partial(self._video_actions, row, number))
            else:
                actions: list[np.ndarray] = []
                frames = self._kept_images(rows, number, frame_step, actions)
                yield Episode(number, frames, partial(self._matrix, actions))

    def _check_columns(self, features: dict) -> None:
        """Refuse columns that do not exist or cannot be what they are given as."""
        images = [name for name, feature in features.items() if _may_be_images(feature)]
        vectors = [name for name, feature in features.items() if _may_be_actions(feature)]
        owners = [name for name, feature in features.items() if _nested(feature)[0] == 0 and name not in images]
        chosen = [("image", self.columns.image, images), *(("action", name, vectors) for name in self.columns.actions)]
        if self.columns.episode is not None:
            chosen.append(("episode", self.columns.episode, owners))
        for flag, name, fitting in chosen:
            if name not in fitting:
                listed = ", ".join(fitting) or "(there is none)"
                raise ValueError(f"there is no such column as {name!r}; --{flag}_column can be: {listed}.")

    def _kept_images(
        self, rows: Iterator[dict], number: int, frame_step: int, actions: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yield the images of the kept rows and append the actions of all of them."""
        for position, row in enumerate(rows):
            where = f"episode {number}, frame {position}"
            if self.columns.actions:
                actions.append(self._action(row, where))
            if position % frame_step == 0:
                yield as_rgb(_content(_cell(row, self.columns.image)), where)

    def _action(self, row: dict, where: str) -> np.ndarray:
        columns = self.columns.actions
        parts = [_numbers(_cell(row, name), f"{where}: the action in column {name!r}") for name in columns]
        action = np.concatenate([part.ravel() for part in parts])
        if len(action) != (self.action_dim or len(action)):
            raise ValueError(
                f"{where}: the action has {len(action)} values, earlier ones have {self.action_dim}: repair it, or "
                "leave the episode out with --episodes."
            )
        return action

    def _matrix(self, actions: list[np.ndarray]) -> np.ndarray | None:
        return np.stack(actions) if self.columns.actions else None

    def _video_actions(self, row: dict, number: int) -> np.ndarray | None:
        if not self.columns.actions:
            return None
        parts = [
            _numbers(_cell(row, name), f"video {number}: an action in column {name!r}")
            for name in self.columns.actions
        ]
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            raise ValueError(f"video {number} has action columns of different lengths {sorted(lengths)}: repair it.")
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def _episodes(self, numbers: Sequence[int]) -> Iterator[tuple[int, Iterator[dict]]]:
        if self.numbers is not None:
            for number in numbers:
                if self._is_video:
                    yield number, iter([self._dataset[number]])
                else:
                    first, last = self._first_rows[number : number + 2]
                    yield number, (self._dataset[row] for row in range(first, last))
            return
        rows, seen = iter(self._dataset), set()
        groups = ((None, iter([row])) for row in rows) if self._is_video else groupby(rows, self._owner)
        for number, (owner, group) in enumerate(groups):
            if owner in seen:
                raise ValueError(self._scattered())
            seen.update(() if self._is_video else (owner,))
            if number >= numbers[0]:
                yield number, group

    def _owner(self, row: dict):
        owner = _cell(row, self.columns.episode)
        if _is_missing(owner):
            raise ValueError(self._without_owner())
        return owner

    def _scattered(self) -> str:
        return (
            f"rows of one {self.columns.episode!r} do not follow each other: sort the dataset by it and by time first."
        )

    def _without_owner(self) -> str:
        return f"a row has no {self.columns.episode!r} (null): fill it in, or filter such rows out first."

    def _find_episodes(self, episodes: str | None) -> tuple[list[int] | None, list[int] | None]:
        if isinstance(self._dataset, datasets.IterableDataset):
            if episodes is not None:
                raise ValueError("--episodes cannot choose from a stream: leave it out, or read without --streaming.")
            return None, None
        if len(self._dataset) == 0:
            raise ValueError("the dataset has no rows: choose another split.")
        if self._is_video:
            return parse_ranges(episodes, range(len(self._dataset))), None
        top_level, slash, _ = self.columns.episode.partition("/")
        rows = self._dataset.select_columns([top_level])
        owners = list(map(self._owner, rows)) if slash else list(rows[top_level])
        if any(map(_is_missing, owners)):
            raise ValueError(self._without_owner())
        changes = [i for i in range(1, len(owners)) if owners[i] != owners[i - 1]]
        self._first_rows = [0, *changes, len(owners)]
        if len(set(owners)) != len(changes) + 1:
            raise ValueError(self._scattered())
        numbers = parse_ranges(episodes, range(len(changes) + 1))
        return numbers, np.diff(self._first_rows)[numbers].tolist()

    def _action_width(self) -> int:
        row = next(iter(self._dataset), None)
        if row is None:
            raise ValueError("the dataset has no rows: choose another split.")
        if not self.columns.actions:
            return 0
        if self._is_video:
            return self._video_actions(row, 0).shape[1]
        return len(self._action(row, "episode 0, frame 0"))

    def _action_names(self) -> list[str] | None:
        """Return the names of joined columns of single numbers; others have none."""
        return self.columns.actions if 1 < len(self.columns.actions) == self.action_dim else None

    def _decode_video(self, cell: dict | None, step: int, name: str) -> Iterator[np.ndarray]:
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise ValueError(f"{name} is missing (null): fill it in, or leave it out with --episodes.")
        source = BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]
        return decode_clip(source, step, name, self.fps)


def _cell(row: dict, column: str) -> Any:
    """Return the value of a column, or of a field in a struct column; None if any part of it is missing."""
    for name in column.split("/"):
        row = None if row is None else row[name]
    return row


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _flatten_features(features: dict, prefix: str = "") -> dict:
    """Return all columns, and all fields of struct columns with their names joined by slashes."""
    flat = {}
    for name, feature in features.items():
        if isinstance(feature, dict):
            flat.update(_flatten_features(feature, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = feature
    return flat


def _may_be_images(feature) -> bool:
    """Return whether it is images, videos, encoded bytes, or uint8 arrays of three sizes."""
    if isinstance(feature, datasets.Image | datasets.Video):
        return True
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    sizes, dtype = _nested(feature)
    return sizes == 3 and dtype == "uint8"


def _may_be_actions(feature) -> bool:
    """Return whether it is numbers, or lists or arrays of them."""
    sizes, dtype = _nested(feature)
    return sizes <= 3 and dtype.startswith(("float", "double", "int", "uint", "bool"))


def _nested(feature) -> tuple[int, str]:
    """Return how many sizes an array, or a list of lists, has, and the type of its elements ("" if it is neither)."""
    if isinstance(feature, datasets.List | datasets.LargeList):
        sizes, dtype = _nested(feature.feature)
        return sizes + 1, dtype
    arrays = {datasets.Array2D: 2, datasets.Array3D: 3, datasets.Array4D: 4}
    return arrays.get(type(feature), 0), getattr(feature, "dtype", None) or ""


def load_table(path: str, split: str, config: str | None = None, streaming: bool = False):
    """Load a dataset saved on disk, in files, or on the Hub.

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


def _without_decoding(dataset, features: dict, column: str):
    """Leave images encoded: those that are kept are decoded here, without Pillow or torchcodec."""
    top_level, _, rest = column.partition("/")
    return dataset.cast_column(top_level, _encoded_feature(features[top_level], rest))


def _encoded_feature(feature, path: str):
    if path:
        name, _, rest = path.partition("/")
        return {**feature, name: _encoded_feature(feature[name], rest)}
    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    return datasets.Video(decode=False) if isinstance(feature, datasets.Video) else feature


def _content(cell) -> bytes | np.ndarray | None:
    if isinstance(cell, dict):
        if cell["bytes"] is None and cell["path"] is not None:
            return Path(cell["path"]).read_bytes()
        return cell["bytes"]
    return cell if cell is None or isinstance(cell, bytes) else np.asarray(cell, np.uint8)


def _numbers(cell, what: str) -> np.ndarray:
    """Return a number, or a (nested) list of them, as an array in its own numeric type.

    Raises:
        ValueError: a value is missing, or the lists have different lengths.
    """
    advice = "fill it in, or leave the episode out with --episodes"
    if cell is None or (
        isinstance(cell, list) and None in chain(cell, *(row for row in cell if isinstance(row, list)))
    ):
        raise ValueError(f"{what} is missing (null): {advice}.")
    try:
        array = np.atleast_1d(np.asarray(cell))
    except ValueError:
        array = np.zeros(1, object)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} is not a list of numbers, or its lists have different lengths: {advice}.")
    return array

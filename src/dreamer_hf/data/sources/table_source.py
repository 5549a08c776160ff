"""Any dataset of the `datasets` library as episodes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..episodes import Episode, StateInfo, camera_names, parse_ranges
from ..files import first_line
from ..frame_transform import as_rgb
from ..video_decoding import decode_clip


@dataclass(frozen=True)
class TableColumns:
    """Which columns hold what; a field of a struct column is written with a slash: "observation/image".

    Args:
        image: images (encoded or arrays) or videos; several columns of images, separated by commas, are several
            cameras.
        action: numbers, or lists or arrays of them; several, separated by commas, are joined; None: unlabeled.
        episode: what tells episodes apart; not needed for videos.
        state: the state, in the same forms as actions; None: there is none.
    """

    image: str
    action: str | None = None
    episode: str | None = None
    state: str | None = None

    @property
    def images(self) -> list[str]:
        """The image columns, one for each camera."""
        return self.image.split(",")

    @property
    def actions(self) -> list[str]:
        """The action columns, one by one."""
        return [] if self.action is None else self.action.split(",")

    @property
    def all(self) -> list[str]:
        """Every column."""
        return [*self.images, *self.actions, *self.states, *([] if self.episode is None else [self.episode])]

    @property
    def states(self) -> list[str]:
        """The state columns, one by one."""
        return [] if self.state is None else self.state.split(",")


@dataclass(frozen=True)
class VectorColumns:
    """Columns of numbers that are joined to one vector a frame: its action, or its state.

    Args:
        kind: "action" or "state", for messages.
        columns: the columns.
        width: number of values of a vector; 0 if it is not known yet.
    """

    kind: str
    columns: list[str]
    width: int = 0

    @property
    def names(self) -> list[str] | None:
        """The names of joined columns of single numbers; others have none."""
        return self.columns if 1 < len(self.columns) == self.width else None

    def of_row(self, row: dict, where: str) -> np.ndarray:
        """Return the vector (width,) of a row that is a frame.

        Raises:
            ValueError: a value is missing, or there are more or fewer than in the first row.
        """
        parts = [_numbers(_cell(row, name), f"{where}: the {self.kind} in column {name!r}") for name in self.columns]
        vector = np.concatenate([part.ravel() for part in parts])
        if len(vector) != (self.width or len(vector)):
            raise ValueError(
                f"{where}: the {self.kind} has {len(vector)} values, earlier ones have {self.width}: repair it, or "
                "leave the episode out with --episodes."
            )
        return vector

    def of_video(self, row: dict, number: int) -> np.ndarray | None:
        """Return the vectors (frames, width) of a row that is an episode; None without columns.

        Raises:
            ValueError: a value is missing, or the columns have different lengths.
        """
        if not self.columns:
            return None
        article = "an" if self.kind == "action" else "a"
        what = f"video {number}: {article} {self.kind} in column"
        parts = [_numbers(_cell(row, name), f"{what} {name!r}") for name in self.columns]
        lengths = {len(part) for part in parts}
        if len(lengths) > 1:
            raise ValueError(
                f"video {number} has {self.kind} columns of different lengths {sorted(lengths)}: repair it."
            )
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


class TableSource:
    """Rows of a `datasets` dataset as episodes; an `EpisodeSource`.

    With an image column, a row is a frame, and successive rows with the same value in the episode column are an
    episode. With a video column, a row is a whole episode, and its action column holds a list of actions. Several
    image columns are the cameras of a world.

    Args:
        dataset: a `Dataset`, or an `IterableDataset` (read once, from its start).
        columns: which columns hold what.
        fps: frames per second, if known; uneven videos are sampled at it.
        description: where the data came from.
        episodes: which ones, like "0:100"; None: all. Not for streams.

    Raises:
        ValueError: unknown columns (the message names those that exist), several columns of videos, or an empty
            dataset.
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
        self._is_video = isinstance(known[columns.images[0]], datasets.Video)
        if len(columns.images) > 1 and any(isinstance(known[name], datasets.Video) for name in columns.images):
            raise ValueError("several cameras can come from columns of images, not of videos: give one video column.")
        if not self._is_video and columns.episode is None:
            raise ValueError(f"images need --episode_column to tell episodes apart: one of {', '.join(known)}.")
        top_level = list(dict.fromkeys(name.partition("/")[0] for name in columns.all))
        self._dataset = _without_decoding(dataset.select_columns(top_level), features, columns.images)
        self.camera_names = camera_names(columns.images)
        self._first_rows, self.action_dim, self.state, self.rewards = None, 0, None, None
        self.numbers, self.lengths = self._find_episodes(episodes)
        self._actions = self._measured("action", columns.actions)
        self.action_dim, self.action_names, self.action_units = self._actions.width, self._actions.names, None
        self._states = self._measured("state", columns.states)
        if columns.states:
            self.state = StateInfo(columns.state, self._states.width, self._states.names)

    def check(self) -> None:
        """See `EpisodeSource.check`; the `datasets` library has done it."""

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        for number, rows in self._episodes(numbers):
            if self._is_video:
                row = next(iter(rows))
                frames = self._decode_video(_cell(row, self.columns.image), frame_step, f"video {number}")
                vectors = [partial(part.of_video, row, number) for part in (self._actions, self._states)]
            else:
                found: tuple[list, list] = [], []  # actions and states
                frames = self._kept_images(rows, number, frame_step, found)
                vectors = [partial(_stacked, part) for part in found]
            yield Episode(number, frames, *vectors)

    def _check_columns(self, features: dict) -> None:
        """Refuse columns that do not exist or cannot be what they are given as."""
        images = [name for name, feature in features.items() if _may_be_images(feature)]
        vectors = [name for name, feature in features.items() if _may_be_actions(feature)]
        owners = [name for name, feature in features.items() if _nested(feature)[0] == 0 and name not in images]
        chosen = [("image", name, images) for name in self.columns.images]
        chosen += [("action", name, vectors) for name in self.columns.actions]
        chosen += [("state", name, vectors) for name in self.columns.states]
        if self.columns.episode is not None:
            chosen.append(("episode", self.columns.episode, owners))
        for flag, name, fitting in chosen:
            if name not in fitting:
                listed = ", ".join(fitting) or "(there is none)"
                raise ValueError(f"there is no such column as {name!r}; --{flag}_column can be: {listed}.")

    def _kept_images(
        self, rows: Iterator[dict], number: int, frame_step: int, found: tuple[list, list]
    ) -> Iterator[np.ndarray | list[np.ndarray]]:
        """Yield the images of the kept rows, a list for several cameras, and append the actions and states of all rows
        to `found`."""
        for position, row in enumerate(rows):
            where = f"episode {number}, frame {position}"
            for vectors, part in zip((self._actions, self._states), found, strict=True):
                if vectors.columns:
                    part.append(vectors.of_row(row, where))
            if position % frame_step == 0:
                images = [as_rgb(_content(_cell(row, name)), where) for name in self.columns.images]
                yield images if len(images) > 1 else images[0]

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

    def _measured(self, kind: str, columns: list[str]) -> "VectorColumns":
        """Return columns with their width in the first row."""
        row = next(iter(self._dataset), None)
        if row is None:
            raise ValueError("the dataset has no rows: choose another split.")
        vectors = VectorColumns(kind, columns)
        if not columns:
            return vectors
        first = vectors.of_video(row, 0)[0] if self._is_video else vectors.of_row(row, "episode 0, frame 0")
        return replace(vectors, width=len(first))

    def _decode_video(self, cell: dict | None, step: int, name: str) -> Iterator[np.ndarray]:
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise ValueError(f"{name} is missing (null): fill it in, or leave it out with --episodes.")
        source = BytesIO(cell["bytes"]) if cell["bytes"] is not None else cell["path"]
        return decode_clip(source, step, name, self.fps)


def _stacked(vectors: list[np.ndarray]) -> np.ndarray | None:
    return np.stack(vectors) if vectors else None


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


def _without_decoding(dataset, features: dict, columns: list[str]):
    """Leave images encoded: those that are kept are decoded here, without Pillow or torchcodec."""
    features = dict(features)
    for column in columns:
        top_level, _, rest = column.partition("/")
        features[top_level] = _encoded_feature(features[top_level], rest)
        dataset = dataset.cast_column(top_level, features[top_level])
    return dataset


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

"""Reads LeRobot datasets (format v3.0) directly from their parquet and video files, without importing lerobot."""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..episodes import Episode, format_ranges, parse_ranges
from ..files import check_not_lfs_pointer, first_line
from ..frame_transform import as_rgb, side_by_side
from ..hub import download_dataset, looks_like_a_path
from ..video_decoding import decode_frames

logger = logging.getLogger(__name__)
INFO_PATH = "meta/info.json"
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ROWS_PER_BATCH, IMAGES_PER_BATCH = 4096, 32
STREAMING_READ = {"buffer_size": 1 << 20, "pre_buffer": False}
"""Otherwise Arrow reads all images of a row group, a whole episode, before it returns the first."""
MAX_ACTION_DIM = 1 << 16
AGAIN = "download the dataset again"


@dataclass(frozen=True)
class LeRobotSelection:
    """Which data of which LeRobotDataset to read.

    Args:
        repo_id: the dataset's name, or its folder.
        local_dir: its folder; default: lerobot's own folder of recordings, then the Hub.
        image_key: camera, or several separated by commas, shown side by side; default: the only one.
        action_key: the feature that holds the actions, or several separated by commas, which are joined.
        episodes: which ones, like "0:100"; default: all.
        revision: branch, tag or commit on the Hub; default: lerobot's tag of the format, or else main.
    """

    repo_id: str
    local_dir: str | Path | None = None
    image_key: str | None = None
    action_key: str = "action"
    episodes: str | None = None
    revision: str | None = None

    def open(self) -> "LeRobotSource":
        """Find the dataset on this machine, or download the files that the selection needs from the Hub.

        Raises:
            FileNotFoundError, ValueError: see `LeRobotSource`; or the dataset is neither here nor on the Hub.
        """
        root = local_root(self.repo_id, self.local_dir)
        if root is not None:
            return self._source(root, self.revision)
        if looks_like_a_path(self.repo_id):
            raise FileNotFoundError(f"{self.repo_id} is not the folder of a LeRobotDataset: it has no {INFO_PATH}.")
        cache = _lerobot_home() / "hub"
        cache = cache if (cache / f"datasets--{self.repo_id.replace('/', '--')}").is_dir() else None
        revisions = ["v3.0", "main"] if self.revision is None else [self.revision]
        root = download_dataset(self.repo_id, ["meta/*"], revisions, cache)
        source = self._source(root, revision=root.name)
        missing = [path for path in source.files() if not (root / path).exists()]
        if missing:
            download_dataset(self.repo_id, missing, [root.name], cache)
        return source

    def _source(self, root: Path, revision: str | None) -> "LeRobotSource":
        return LeRobotSource(root, self.repo_id, self.image_key, self.action_key, self.episodes, revision)


@dataclass
class LeRobotSource:
    """Episodes of a LeRobotDataset v3.0 on disk; an `EpisodeSource`.

    Args:
        root: the dataset's folder.
        repo_id: its name, for the record.
        image_key, action_key, episodes, revision: see `LeRobotSelection`.

    Raises:
        FileNotFoundError, ValueError: no dataset there, an older format, or an unknown feature (the message names those
            that exist).
    """

    root: Path
    repo_id: str
    image_key: str | None = None
    action_key: str = "action"
    episodes: str | None = None
    revision: str | None = None
    info: dict = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.info = read_info(self.root, self.repo_id)
        self._choose_features()
        self._table = self._read_episode_table()
        self._positions = {int(number): i for i, number in enumerate(self._table["episode_index"])}
        self.numbers = parse_ranges(self.episodes, list(self._positions))
        self.lengths = [self._length(number) for number in self.numbers]
        self.fps = float(self.info["fps"])
        features = [self.info["features"][key] for key in self.action_keys]
        self._widths = [math.prod(feature["shape"]) for feature in features]
        self.action_dim = sum(self._widths)
        self.action_names, self.action_units = self._describe_actions(features)
        self.description = {"format": "lerobot", "repo_id": self.repo_id, "revision": self.revision}

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        if not numbers:
            return
        kept = {number: range(0, self._length(number), frame_step) for number in numbers}
        images = self._images(kept)
        for path, group in _runs(numbers, self.data_path):
            actions = self._actions(path, group)
            for number in group:
                yield Episode(number, islice(images, len(kept[number])), partial(actions.get, number))

    def check(self) -> None:
        """See `EpisodeSource.check`."""
        missing = [path for path in self.files() if not (self.root / path).is_file()]
        if missing:
            complete = [number for number in self.numbers if not self._files_of(number).intersection(missing)]
            more = f" and {len(missing) - 1} more files are" if len(missing) > 1 else " is"
            advice = f", or leave out its episodes with --episodes {format_ranges(complete)}" if complete else ""
            raise FileNotFoundError(f"{self.root / missing[0]}{more} missing: {AGAIN}{advice}.")
        for path in self.files():
            check_not_lfs_pointer(self.root / path)

    def frames(self, number: int, kept: range) -> Iterator[np.ndarray]:
        """Yield chosen frames of one episode, (H, W, 3) uint8 RGB."""
        return self._images({number: kept})

    def actions(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Return the actions of these episodes, each (frames, action_dim) in the numeric type of the dataset."""
        return [
            actions
            for path, group in _runs(numbers, self.data_path)
            for actions in self._actions(path, group).values()
        ]

    def files(self) -> list[str]:
        """Return the paths, relative to the root, of the data and video files that the chosen episodes need."""
        return sorted(set(chain.from_iterable(map(self._files_of, self.numbers))))

    def _files_of(self, number: int) -> set[str]:
        paths = [self.data_path(number), *(self._video_path(c, number) for c in self.cameras if self._is_video(c))]
        return {path.relative_to(self.root).as_posix() for path in paths}

    def _length(self, number: int) -> int:
        return int(self._table["length"][self._positions[number]])

    def _choose_features(self) -> None:
        features = self.info["features"]
        cameras = [key for key, item in features.items() if item["dtype"] in ("video", "image")]
        if self.image_key is None:
            if len(cameras) != 1:
                raise ValueError(f"choose a camera with --image_key, one or several of: {_listed(cameras)}.")
            self.image_key = cameras[0]
        self.cameras = self.image_key.split(",")
        for camera in self.cameras:
            if camera not in cameras:
                raise ValueError(f"{self.repo_id} has no camera {camera!r}; --image_key can be: {_listed(cameras)}.")
            self._check_depth(camera)
        self.action_keys = self.action_key.split(",")
        vectors = [key for key, item in features.items() if _is_numeric(item) and key not in BOOKKEEPING]
        for key in self.action_keys:
            if key not in vectors:
                raise ValueError(
                    f"{self.repo_id} has no feature {key!r} to take actions from; --action_key can be: "
                    f"{_listed(vectors)}."
                )

    def _check_depth(self, camera: str) -> None:
        feature = self.info["features"][camera]
        info = feature.get("info") or {}
        if not (info.get("is_depth_map") or info.get("video.is_depth_map")):
            return
        if not self._is_video(camera):
            raise ValueError(
                f"{camera} of {self.repo_id} is a depth map, whose values do not fit into frames of 8 bits per channel: "
                "choose another camera."
            )
        logger.warning(f"{camera} of {self.repo_id} is a depth map: its video is stored as gray frames of 8 bits")

    def _describe_actions(self, features: list[dict]) -> tuple[list[str] | None, list[str] | None]:
        """Return the names and units of all action dimensions; joined features without names are named by their key."""
        names = [flatten_names(item.get("names"), width) for item, width in zip(features, self._widths, strict=True)]
        units = [find_units(item, width) for item, width in zip(features, self._widths, strict=True)]
        if len(features) == 1:
            return names[0], units[0]
        numbered = [
            own or ([key] if width == 1 else [f"{key}.{i}" for i in range(width)])
            for key, own, width in zip(self.action_keys, names, self._widths, strict=True)
        ]
        joined = list(chain.from_iterable(numbered))
        if len(set(joined)) < len(joined):
            joined = [f"{key}.{name}" for key, own in zip(self.action_keys, numbered, strict=True) for name in own]
        some_units = [own or [""] * width for own, width in zip(units, self._widths, strict=True)]
        return joined, list(chain.from_iterable(some_units)) if any(units) else None

    def _read_episode_table(self) -> dict[str, np.ndarray]:
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for camera in filter(self._is_video, self.cameras):
            columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        folder = self.root / "meta" / "episodes"
        files = sorted(path for path in folder.glob("*/*.parquet") if not path.name.startswith("."))
        if not files:
            raise FileNotFoundError(f"{folder} holds no episodes: finalize or download the dataset.")
        table = pa.concat_tables(_read_parquet(path, columns) for path in files).sort_by("episode_index")
        if any(table[name].null_count or not _is_number(table[name].type) for name in columns):
            raise ValueError(f"{folder} has missing values (null), or text instead of numbers: {AGAIN}.")
        arrays = {name: table[name].to_numpy() for name in columns}
        promised, numbers = self.info.get("total_episodes"), arrays["episode_index"]
        if len(table) != (len(table) if promised is None else promised) or len(np.unique(numbers)) < len(table):
            raise ValueError(
                f"{self.root}/{INFO_PATH} promises {promised} episodes, but meta/episodes lists {len(table)}, or lists "
                "some twice: finalize or download the dataset again."
            )
        if np.any(arrays["length"] < 1) or not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"{folder} lists an episode without frames, or an impossible time: {AGAIN}.")
        return arrays

    def _is_video(self, camera: str) -> bool:
        return self.info["features"][camera]["dtype"] == "video"

    def _images(self, kept: dict[int, range]) -> Iterator[np.ndarray]:
        """Yield the kept frames of these episodes one after another, all cameras side by side."""
        per_camera = [self._camera_frames(camera, kept) for camera in self.cameras]
        if len(per_camera) == 1:
            return per_camera[0]
        return (side_by_side(list(group)) for group in zip(*per_camera, strict=True))

    def _camera_frames(self, camera: str, kept: dict[int, range]) -> Iterator[np.ndarray]:
        """Yield the kept frames of one camera, opening each file once."""
        numbers = list(kept)
        if not self._is_video(camera):
            for path, group in _runs(numbers, self.data_path):
                yield from self._stored_images(path, camera, group, kept)
            return
        tolerance = 0.49 / self.fps
        for path, group in _runs(numbers, partial(self._video_path, camera)):
            starts = self._table[f"videos/{camera}/from_timestamp"]
            times = [starts[self._positions[number]] + np.array(kept[number]) / self.fps for number in group]
            yield from decode_frames(path, np.concatenate(times), tolerance)

    def _video_path(self, camera: str, number: int) -> Path:
        return self._path("video_path", f"videos/{camera}", number, video_key=camera)

    def data_path(self, number: int) -> Path:
        """Return the parquet file that holds the rows of episode `number`."""
        return self._path("data_path", "data", number)

    def _path(self, pattern: str, prefix: str, number: int, **fields: str) -> Path:
        position = self._positions[number]
        for name in ("chunk", "file"):
            fields[f"{name}_index"] = self._table[f"{prefix}/{name}_index"][position]
        return self.root / _inside(self.info[pattern].format(**fields), f"{self.root}/{INFO_PATH}")

    def _actions(self, path: Path, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        owners, frames, vectors = [], [], []
        for batch in _rows(path, numbers, self.action_keys, ROWS_PER_BATCH):
            owners.append(batch["episode_index"].to_numpy())
            frames.append(_frame_indices(batch))
            parts = []
            for key, width in zip(self.action_keys, self._widths, strict=True):
                row, values = _matrix(batch[key], width, path)
                if row is not None:
                    raise ValueError(
                        f"{path}: the action of episode {owners[-1][row]} at frame {frames[-1][row]} is missing "
                        "(null): fill it in, or leave the episode out with --episodes."
                    )
                parts.append(values)
            vectors.append(np.concatenate(parts, axis=1))
        if not vectors:
            owners, frames, vectors = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, self.action_dim))]
        owners, frames, vectors = np.concatenate(owners), np.concatenate(frames), np.concatenate(vectors)
        found = {}
        for number in numbers:
            own = owners == number
            order = self._row_order(path, number, frames[own])
            found[number] = vectors[own] if order is None else vectors[own][order]
        return found

    def _row_order(self, path: Path, number: int, frames: np.ndarray) -> np.ndarray | None:
        """Return what sorts the rows of an episode by their frame, None if they are sorted.

        Raises:
            ValueError: the rows are not those of all frames of the episode.
        """
        length = self._length(number)
        if len(frames) != length:
            raise ValueError(
                f"{path} holds {len(frames)} frames of episode {number}, but the dataset's metadata promises {length}: "
                f"{AGAIN}."
            )
        expected = np.arange(length)
        if frames[0] < 0 or np.array_equal(frames, expected):
            return None
        order = np.argsort(frames, kind="stable")
        if not np.array_equal(frames[order], expected):
            raise ValueError(f"{path}: the frame_index of episode {number} has gaps or repetitions: {AGAIN}.")
        return order

    def _stored_images(
        self, path: Path, camera: str, numbers: Sequence[int], kept: dict[int, range]
    ) -> Iterator[np.ndarray]:
        """Yield the kept frames of a camera that keeps images in the table itself."""
        rows = list(_rows(path, numbers, [], ROWS_PER_BATCH))
        owners = np.concatenate([row["episode_index"].to_numpy() for row in rows] or [np.zeros(0, np.int64)])
        frames = np.concatenate([_frame_indices(row) for row in rows] or [np.zeros(0, np.int64)])
        sorts = [self._row_order(path, number, frames[owners == number]) for number in numbers]
        if np.all(owners[1:] >= owners[:-1]) and all(order is None for order in sorts):
            for number, frame, cell in self._cells(path, camera, numbers, kept):
                yield as_rgb(self._encoded(cell, path, number, frame), f"{path}, episode {number}, frame {frame}")
            return
        # The rows are in another order: all images that are kept must be in memory before the first is known.
        cells = {(number, frame): cell for number, frame, cell in self._cells(path, camera, numbers, kept)}
        for number in numbers:
            for frame in kept[number]:
                encoded = self._encoded(cells.pop((number, frame)), path, number, frame)
                yield as_rgb(encoded, f"{path}, episode {number}, frame {frame}")

    def _cells(self, path: Path, camera: str, numbers: Sequence[int], kept: dict[int, range]) -> Iterator[tuple]:
        """Yield episode, frame and cell of the kept rows, in the order of the file."""
        seen = dict.fromkeys(numbers, 0)
        for batch in _rows(path, numbers, [camera], IMAGES_PER_BATCH):
            columns = (batch["episode_index"].to_pylist(), _frame_indices(batch).tolist(), batch[camera])
            for number, frame, cell in zip(*columns, strict=True):
                frame = seen[number] if frame < 0 else frame
                seen[number] += 1
                if frame in kept[number]:
                    yield number, frame, cell.as_py()

    def _encoded(self, cell, path: Path, number: int, frame: int) -> bytes:
        """Return the encoded image of a cell: bytes, or bytes and path as the `datasets` library stores them."""
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            return (self.root / _inside(cell["path"], str(path))).read_bytes()
        encoded = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(encoded, bytes):
            raise ValueError(
                f"{path}: the image of episode {number} at frame {frame} is missing (null): {AGAIN}, or leave the "
                "episode out with --episodes."
            )
        return encoded


def read_info(root: Path, repo_id: str) -> dict:
    """Read `meta/info.json` of a v3.0 dataset.

    Raises:
        FileNotFoundError, ValueError: no dataset there, damaged, or of an older format (the message says how to migrate).
    """
    path = Path(root) / INFO_PATH
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder of a LeRobotDataset with --local_dir.")
    check_not_lfs_pointer(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): {AGAIN}.") from error
    if version.startswith(("v1", "v2")):
        raise ValueError(
            f"{repo_id} is a LeRobot dataset of format {version}: {migration_advice(version, root, repo_id)}"
        )
    if not version.startswith("v3"):
        raise ValueError(f"{path} describes no LeRobot dataset of format v3.0 (it says {version}): {AGAIN}.")
    try:
        _check_info(info)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): {AGAIN}.") from error
    return info


def migration_advice(version: str, root: Path, repo_id: str) -> str:
    """Return how to bring a dataset of an older format to v3.0: a command that neither looks elsewhere nor uploads."""
    if not version.startswith("v2.1"):
        return (
            "lerobot of today migrates v2.1 only, so bring it to v2.1 with an older one first (0.3.3 has the step from "
            "v2.0), then to v3.0."
        )
    is_download = "snapshots" in Path(root).parts  # Only its metadata is here.
    folder = Path(root.name if not is_download else f"{repo_id.rpartition('/')[2]}-v3")
    folder = folder if is_download else Path(root)
    return (
        f"migrate it to v3.0 with `python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id={repo_id} "
        f"--root={folder} --push-to-hub=false`, then give --local_dir {folder}."
    )


def _check_info(info: dict) -> None:
    """Raise an error about whatever is missing or impossible in `info.json`."""
    if not 0 < float(info["fps"]) < math.inf:
        raise ValueError(f"fps is {info['fps']}")
    for key, item in info["features"].items():
        sizes = [int(size) for size in item["shape"]]
        if not isinstance(item["dtype"], str) or min(sizes, default=1) < 1 or math.prod(sizes) > 1 << 31:
            raise ValueError(f"feature {key} is {item}")
        if _is_numeric(item) and math.prod(sizes) > MAX_ACTION_DIM:
            raise ValueError(f"feature {key} has shape {sizes}")
    total = info.get("total_episodes")
    if total is not None and not isinstance(total, int):
        raise ValueError(f"total_episodes is {total!r}")
    # Fill in the patterns of file names once, so that wrong ones fail here.
    _inside(info["data_path"].format(chunk_index=0, file_index=0), "data_path")
    if any(item["dtype"] == "video" for item in info["features"].values()):
        _inside(info["video_path"].format(video_key="x", chunk_index=0, file_index=0), "video_path")


def _inside(path: str, where: str) -> str:
    """Return a path of a dataset unless it leads out of the dataset's folder, to other files of this machine."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise ValueError(f"{where} names a file outside the dataset ({path}): {AGAIN}.")
    return path


def local_root(repo_id: str, local_dir: str | Path | None) -> Path | None:
    """Return where a dataset lies on this machine: `local_dir`, the folder `repo_id`, or lerobot's own folder of
    recordings; None if nowhere."""
    if local_dir is not None:
        return Path(local_dir)
    folders = [Path(repo_id).expanduser(), _lerobot_home() / repo_id]
    return next((folder for folder in folders if (folder / INFO_PATH).is_file()), None)


def _lerobot_home() -> Path:
    default = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "lerobot"
    return Path(os.environ.get("HF_LEROBOT_HOME", default)).expanduser()


def flatten_names(names, action_dim: int) -> list[str] | None:
    """Return LeRobot's `names` in any of its spellings as one list of `action_dim` names, or None."""
    if isinstance(names, dict):
        by_position = all(isinstance(value, int) for value in names.values())
        names = list(names if by_position else names.values())
    flat = [str(name) for name in _leaves(names)] if isinstance(names, list) else []
    return flat if len(flat) == action_dim else None


def _leaves(names) -> Iterator:
    for name in names:
        if isinstance(name, list | tuple):
            yield from _leaves(name)
        else:
            yield name


def find_units(feature: dict, action_dim: int) -> list[str] | None:
    """Return the unit of each dimension if the recording names them in the feature, or None.

    LeRobot has no field of its own for units, but keeps further keys of a feature: "units" (or "unit"), next to "names"
    or within "info", as one text for all dimensions or a list of one each.
    """
    info = feature.get("info") or {}
    found = next((place[key] for place in (feature, info) for key in ("units", "unit") if place.get(key)), None)
    return [found] * action_dim if isinstance(found, str) else flatten_names(found, action_dim)


def _is_numeric(feature: dict) -> bool:
    return str(feature["dtype"]).startswith(("float", "double", "int", "uint", "bool"))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _rows(path: Path, numbers: Sequence[int], columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of these episodes in the order of the file, a few at a time: `columns`, `episode_index` and, if
    there is one, `frame_index`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {AGAIN}.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, **STREAMING_READ) as file:
            names = file.schema_arrow.names
            for column in (*columns, "episode_index"):
                if column not in names:
                    raise KeyError(f"there is no column {column}")
            wanted = [*columns, "episode_index", *(name for name in names if name == "frame_index")]
            groups = _row_groups_of(file, numbers)
            for batch in file.iter_batches(batch_size, groups, wanted, use_threads=False):
                yield batch.filter(pc.is_in(batch["episode_index"], pa.array(numbers, pa.int64())))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): {AGAIN}.") from error


def _frame_indices(batch: pa.RecordBatch) -> np.ndarray:
    """Return the `frame_index` of every row; -1 if the dataset has none, and its rows are in order."""
    if "frame_index" not in batch.schema.names:
        return np.full(len(batch), -1, np.int64)
    return batch["frame_index"].to_numpy(zero_copy_only=False).astype(np.int64)


def _row_groups_of(file: pq.ParquetFile, numbers: Sequence[int]) -> list[int]:
    """Return the row groups that can hold rows of these (increasing) episodes, as far as their statistics tell."""
    metadata, chosen = file.metadata, []
    position = [metadata.schema.column(i).path for i in range(metadata.num_columns)].index("episode_index")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(position).statistics
        known = statistics is not None and statistics.has_min_max
        if not known or (statistics.min <= numbers[-1] and statistics.max >= numbers[0]):
            chosen.append(group)
    return chosen


def _matrix(column: pa.Array, width: int, path: Path) -> tuple[int | None, np.ndarray]:
    """Return a column of numbers, or of (nested) lists of them, as (rows, width) in their own type.

    The first value is the first row with a missing value, None if there is none; the matrix is not to be used then.
    """
    rows = len(column)
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if column.null_count:
            missing = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            return missing * rows // len(column), np.zeros((rows, width))
        if not pa.types.is_nested(column.type) or not hasattr(column, "flatten") or pa.types.is_struct(column.type):
            break
        lengths = pc.list_value_length(column)
        if len(lengths) and pc.min(lengths).as_py() != pc.max(lengths).as_py():
            break
        column = column.flatten()
    if not _is_number(column.type) or len(column) != rows * width:
        raise ValueError(f"{path} holds actions that are not {width} numbers wide: {AGAIN}.")
    return None, column.to_numpy(zero_copy_only=False).reshape(rows, width)


def _runs(numbers: Sequence[int], key: Callable[[int], Path]) -> Iterator[tuple[Path, list[int]]]:
    """Yield the runs of successive episodes that lie in the same file."""
    group: list[int] = []
    for number in numbers:
        if group and key(number) != key(group[0]):
            yield key(group[0]), group
            group = []
        group.append(number)
    if group:
        yield key(group[0]), group


def _read_parquet(path: Path, columns: list[str]) -> pa.Table:
    check_not_lfs_pointer(path)
    try:
        return pq.read_table(
            path, columns=columns, partitioning=None, use_threads=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): {AGAIN}.") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(there is none)"

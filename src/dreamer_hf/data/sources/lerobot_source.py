"""Reads LeRobot datasets (format v3.0) directly from their parquet and video files, without importing lerobot."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..episodes import (
    Episode,
    RecordedRewards,
    RewardInfo,
    StateInfo,
    camera_names,
    choose_state_key,
    format_ranges,
    no_states,
    parse_ranges,
)
from ..files import check_not_lfs_pointer
from ..frame_transform import as_rgb, side_by_side
from ..hub import download_dataset, looks_like_a_path
from ..video_decoding import decode_frames
from .lerobot_info import (
    AGAIN,
    INFO_PATH,
    find_units,
    flatten_names,
    inside,
    is_numeric,
    lerobot_home,
    local_root,
    read_info,
    read_tasks,
)
from .parquet_rows import frame_indices, is_number, matrix, read_parquet, rows_of

logger = logging.getLogger(__name__)
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
ROWS_PER_BATCH, IMAGES_PER_BATCH = 4096, 32
STATE_KEY = "observation.state"
TASK_KEY = "task_index"


@dataclass(frozen=True)
class LeRobotSelection:
    """Which data of which LeRobotDataset to read.

    Args:
        repo_id: the dataset's name, or its folder.
        local_dir: its folder; default: lerobot's own folder of recordings, then the Hub.
        image_key: camera, or several separated by commas; default: the only one.
        action_key: the feature that holds the actions, or several separated by commas, which are joined.
        episodes: which ones, like "0:100"; default: all.
        revision: branch, tag or commit on the Hub; default: lerobot's tag of the format, or else main.
        state_key: the feature that holds the state, or several separated by commas, which are joined; "none" for no
            state; default: `observation.state` if there is one.
        tile_cameras: whether several cameras are joined to one frame, side by side. Defaults to False.
        reward_key: the feature that holds the rewards, such as `next.reward`; default: none are read.
        terminal_key: the feature that says that an action ended the episode for good; default: none is read.
    """

    repo_id: str
    local_dir: str | Path | None = None
    image_key: str | None = None
    action_key: str = "action"
    episodes: str | None = None
    revision: str | None = None
    state_key: str | None = None
    tile_cameras: bool = False
    reward_key: str | None = None
    terminal_key: str | None = None

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
        cache = lerobot_home() / "hub"
        cache = cache if (cache / f"datasets--{self.repo_id.replace('/', '--')}").is_dir() else None
        revisions = ["v3.0", "main"] if self.revision is None else [self.revision]
        root = download_dataset(self.repo_id, ["meta/*"], revisions, cache)
        source = self._source(root, revision=root.name)
        missing = [path for path in source.files() if not (root / path).exists()]
        if missing:
            download_dataset(self.repo_id, missing, [root.name], cache)
        return source

    def _source(self, root: Path, revision: str | None) -> "LeRobotSource":
        chosen = self.image_key, self.action_key, self.episodes, revision, self.state_key, self.tile_cameras
        return LeRobotSource(root, self.repo_id, *chosen, self.reward_key, self.terminal_key)


@dataclass(frozen=True)
class VectorFeatures:
    """Numeric features of every frame that are joined to one vector: its action, or its state.

    Args:
        kind: "action" or "state", for messages.
        keys: the features.
        features: what the dataset says about each.
    """

    kind: str
    keys: list[str]
    features: list[dict]

    @property
    def widths(self) -> list[int]:
        """Number of dimensions of each feature."""
        return [math.prod(feature["shape"]) for feature in self.features]

    @property
    def dim(self) -> int:
        """Number of dimensions of the vector."""
        return sum(self.widths)

    def describe(self) -> tuple[list[str] | None, list[str] | None]:
        """Return the names and units of all dimensions; joined features without names are named by their key."""
        widths = self.widths
        names = [flatten_names(item.get("names"), width) for item, width in zip(self.features, widths, strict=True)]
        units = [find_units(item, width) for item, width in zip(self.features, widths, strict=True)]
        if len(self.features) == 1:
            return names[0], units[0]
        numbered = [
            own or ([key] if width == 1 else [f"{key}.{i}" for i in range(width)])
            for key, own, width in zip(self.keys, names, widths, strict=True)
        ]
        joined = list(chain.from_iterable(numbered))
        if len(set(joined)) < len(joined):
            joined = [f"{key}.{name}" for key, own in zip(self.keys, numbered, strict=True) for name in own]
        some_units = [own or [""] * width for own, width in zip(units, widths, strict=True)]
        return joined, list(chain.from_iterable(some_units)) if any(units) else None


@dataclass
class LeRobotSource:
    """Episodes of a LeRobotDataset v3.0 on disk; an `EpisodeSource`.

    Args:
        root: the dataset's folder.
        repo_id: its name, for the record.
        image_key, action_key, episodes, revision, state_key, tile_cameras, reward_key, terminal_key: see
            `LeRobotSelection`.

    Raises:
        FileNotFoundError, ValueError: no dataset there, an older format, or an unknown feature (the message names
            those that exist).
    """

    root: Path
    repo_id: str
    image_key: str | None = None
    action_key: str = "action"
    episodes: str | None = None
    revision: str | None = None
    state_key: str | None = None
    tile_cameras: bool = False
    reward_key: str | None = None
    terminal_key: str | None = None
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
        self.action_dim = self._actions.dim
        self.action_names, self.action_units = self._actions.describe()
        self.description = {"format": "lerobot", "repo_id": self.repo_id, "revision": self.revision}

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        if not numbers:
            return
        kept = {number: range(0, self._length(number), frame_step) for number in numbers}
        images = self._images(kept)
        for path, group in _runs(numbers, self.data_path):
            actions = self._vectors(path, group, self._actions)
            states = {} if self._states is None else self._vectors(path, group, self._states)
            rewards = {} if self.rewards is None else self._rewards(path, group)
            for number in group:
                state = no_states if self._states is None else partial(states.get, number)
                frames = islice(images, len(kept[number]))
                yield Episode(number, frames, partial(actions.get, number), state, partial(rewards.get, number))

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
        return self._all_vectors(numbers, self._actions)

    def states(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Return the states of these episodes, each (frames, state_dim); there must be a state."""
        return self._all_vectors(numbers, self._states)

    def _all_vectors(self, numbers: Sequence[int], features: VectorFeatures) -> list[np.ndarray]:
        runs = _runs(numbers, self.data_path)
        return [vectors for path, group in runs for vectors in self._vectors(path, group, features).values()]

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
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"--image_key names a camera twice ({self.image_key}): name each once.")
        self.camera_names = None if self.tile_cameras else camera_names(self.cameras)
        action_keys = self.action_key.split(",")
        vectors = [key for key, item in features.items() if is_numeric(item) and key not in BOOKKEEPING]
        for key in action_keys:
            if key not in vectors:
                raise ValueError(
                    f"{self.repo_id} has no feature {key!r} to take actions from; --action_key can be: "
                    f"{_listed(vectors)}."
                )
        self._actions = VectorFeatures("action", action_keys, [features[key] for key in action_keys])
        self._states, self.state = None, None
        state_key = choose_state_key(self.state_key, STATE_KEY, vectors)
        if state_key is not None:
            keys = state_key.split(",")
            self._states = VectorFeatures("state", keys, [features[key] for key in keys])
            self.state = StateInfo(state_key, self._states.dim, *self._states.describe())
        self.rewards = self._choose_rewards(vectors)

    def _choose_rewards(self, vectors: list[str]) -> RewardInfo | None:
        """Return where rewards are, and the tasks that `task_index` counts."""
        features = self.info["features"]
        if self.terminal_key is not None and self.reward_key is None:
            raise ValueError("--terminal_key says where rewards end: give --reward_key as well.")
        for flag, key in (("reward_key", self.reward_key), ("terminal_key", self.terminal_key)):
            if key is not None and (key not in vectors or math.prod(features[key]["shape"]) != 1):
                single = [name for name in vectors if math.prod(features[name]["shape"]) == 1]
                raise ValueError(
                    f"{self.repo_id} has no feature {key!r} of one number per frame; --{flag} can be: "
                    f"{_listed(single)}."
                )
        if self.reward_key is None:
            return None
        self._has_tasks = TASK_KEY in features and len(names := read_tasks(self.root)) > 1
        return RewardInfo(self.reward_key, names if self._has_tasks else [self.reward_key], self.terminal_key)

    def _rewards(self, path: Path, numbers: Sequence[int]) -> dict[int, RecordedRewards]:
        """Return the rewards of some episodes of one file, in the columns of their tasks."""
        keys = [self.reward_key, *([TASK_KEY] if self._has_tasks else [])]
        keys += [self.terminal_key] if self.terminal_key else []
        features = [self.info["features"][key] for key in keys]
        found, num_tasks = {}, len(self.rewards.task_names)
        for number, values in self._vectors(path, numbers, VectorFeatures("reward", keys, features)).items():
            rewards = np.full((len(values), num_tasks), np.nan, np.float32)
            tasks = values[:, 1].astype(np.int64) if self._has_tasks else np.zeros(len(values), np.int64)
            if tasks.min(initial=0) < 0 or tasks.max(initial=0) >= num_tasks:
                raise ValueError(f"{path}: episode {number} has a {TASK_KEY} that meta/tasks does not list: {AGAIN}.")
            rewards[np.arange(len(values)), tasks] = values[:, 0]
            found[number] = RecordedRewards(rewards, values[:, -1].astype(bool) if self.terminal_key else None)
        return found

    def _check_depth(self, camera: str) -> None:
        feature = self.info["features"][camera]
        info = feature.get("info") or {}
        if not (info.get("is_depth_map") or info.get("video.is_depth_map")):
            return
        if not self._is_video(camera):
            raise ValueError(
                f"{camera} of {self.repo_id} is a depth map, whose values do not fit into frames of 8 bits per "
                "channel: choose another camera."
            )
        logger.warning(f"{camera} of {self.repo_id} is a depth map: its video is stored as gray frames of 8 bits")

    def _read_episode_table(self) -> dict[str, np.ndarray]:
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for camera in filter(self._is_video, self.cameras):
            columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        folder = self.root / "meta" / "episodes"
        files = sorted(path for path in folder.glob("*/*.parquet") if not path.name.startswith("."))
        if not files:
            raise FileNotFoundError(f"{folder} holds no episodes: finalize or download the dataset.")
        table = pa.concat_tables(read_parquet(path, columns) for path in files).sort_by("episode_index")
        if any(table[name].null_count or not is_number(table[name].type) for name in columns):
            raise ValueError(f"{folder} has missing values (null), or text instead of numbers: {AGAIN}.")
        arrays = {name: table[name].to_numpy() for name in columns}
        promised, numbers = self.info.get("total_episodes"), arrays["episode_index"]
        if len(table) != (len(table) if promised is None else promised) or len(np.unique(numbers)) < len(table):
            raise ValueError(
                f"{self.root}/{INFO_PATH} promises {promised} episodes, but meta/episodes lists {len(table)}, or "
                "lists some twice: finalize or download the dataset again."
            )
        if np.any(arrays["length"] < 1) or not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"{folder} lists an episode without frames, or an impossible time: {AGAIN}.")
        return arrays

    def _is_video(self, camera: str) -> bool:
        return self.info["features"][camera]["dtype"] == "video"

    def _images(self, kept: dict[int, range]) -> Iterator[np.ndarray | list[np.ndarray]]:
        """Yield the kept frames of these episodes one after another, of all cameras."""
        per_camera = [self._camera_frames(camera, kept) for camera in self.cameras]
        if len(per_camera) == 1:
            return per_camera[0]
        groups = map(list, zip(*per_camera, strict=True))
        return map(side_by_side, groups) if self.tile_cameras else groups

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
        return self.root / inside(self.info[pattern].format(**fields), f"{self.root}/{INFO_PATH}")

    def _vectors(self, path: Path, numbers: Sequence[int], features: VectorFeatures) -> dict[int, np.ndarray]:
        """Return the actions or states of some episodes, which lie in one file, each (frames, dimensions)."""
        owners, frames, vectors = [], [], []
        for batch in rows_of(path, numbers, features.keys, ROWS_PER_BATCH):
            owners.append(batch["episode_index"].to_numpy())
            frames.append(frame_indices(batch))
            parts = []
            for key, width in zip(features.keys, features.widths, strict=True):
                row, values = matrix(batch[key], width, path, features.kind)
                if row is not None:
                    raise ValueError(
                        f"{path}: the {features.kind} of episode {owners[-1][row]} at frame {frames[-1][row]} is "
                        "missing (null): fill it in, or leave the episode out with --episodes."
                    )
                parts.append(values)
            vectors.append(np.concatenate(parts, axis=1))
        if not vectors:
            owners, frames, vectors = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, features.dim))]
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
                f"{path} holds {len(frames)} frames of episode {number}, but the dataset's metadata promises "
                f"{length}: {AGAIN}."
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
        rows = list(rows_of(path, numbers, [], ROWS_PER_BATCH))
        owners = np.concatenate([row["episode_index"].to_numpy() for row in rows] or [np.zeros(0, np.int64)])
        frames = np.concatenate([frame_indices(row) for row in rows] or [np.zeros(0, np.int64)])
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
        for batch in rows_of(path, numbers, [camera], IMAGES_PER_BATCH):
            columns = (batch["episode_index"].to_pylist(), frame_indices(batch).tolist(), batch[camera])
            for number, frame, cell in zip(*columns, strict=True):
                frame = seen[number] if frame < 0 else frame
                seen[number] += 1
                if frame in kept[number]:
                    yield number, frame, cell.as_py()

    def _encoded(self, cell, path: Path, number: int, frame: int) -> bytes:
        """Return the encoded image of a cell: bytes, or bytes and path as the `datasets` library stores them."""
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            return (self.root / inside(cell["path"], str(path))).read_bytes()
        encoded = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(encoded, bytes):
            raise ValueError(
                f"{path}: the image of episode {number} at frame {frame} is missing (null): {AGAIN}, or leave the "
                "episode out with --episodes."
            )
        return encoded


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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(there is none)"

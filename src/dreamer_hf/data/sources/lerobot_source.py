"""Reads LeRobot datasets (format v3.0) straight from their parquet and video files, without importing lerobot."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfApi

from ..episodes import Episode, parse_range
from ..files import first_line
from ..frame_transform import as_rgb, side_by_side
from ..hub import HUB_ERRORS, download_dataset
from ..video_decoding import decode_frames

MIGRATION = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id="
VECTORS_PER_BATCH, PICTURES_PER_BATCH = 4096, 32
READ_BIT_BY_BIT = {"buffer_size": 1 << 20, "pre_buffer": False}
"""Otherwise Arrow reads all pictures of a row group, a whole episode, before it gives the first."""


@dataclass
class LeRobotSource:
    """Episodes of a LeRobotDataset v3.0 on disk; an `EpisodeSource`.

    Args:
        root: the dataset's folder.
        repo_id: its name, for the record.
        image_key: camera, or several separated by commas, shown side by side; None: the only one.
        action_key: the feature that holds the actions.
        episodes: which ones, like "0:100"; None: all.

    Raises:
        FileNotFoundError, ValueError: no dataset there, an older format, or an unknown feature (those that exist are
        named).
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
        self.numbers = parse_range(self.episodes, len(self._table["length"]))
        self.lengths = [int(self._table["length"][number]) for number in self.numbers]
        self.fps = float(self.info["fps"])
        feature = self.info["features"][self.action_key]
        self.action_dim = int(np.prod(feature["shape"]))
        self.action_names = flatten_names(feature.get("names"), self.action_dim)
        self.action_units = find_units(feature, self.action_dim)
        self.description = {"format": "lerobot", "repo_id": self.repo_id, "revision": self.revision}

    def read(self, numbers: Sequence[int], frame_step: int) -> Iterator[Episode]:
        """See `EpisodeSource.read`."""
        if not numbers:
            return
        kept = {number: range(0, int(self._table["length"][number]), frame_step) for number in numbers}
        pictures = self._pictures(kept)
        for path, group in _runs(numbers, self.data_path):
            actions = self._actions(path, group)
            for number in group:
                values = partial(actions[number].__getitem__, np.s_[::frame_step])
                yield Episode(number, islice(pictures, len(kept[number])), values)

    def frames(self, number: int, kept: range) -> Iterator[np.ndarray]:
        """Yields chosen frames of one episode, (H, W, 3) uint8 RGB."""
        return self._pictures({number: kept})

    def actions(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The actions of these episodes, each (frames, action_dim) float32."""
        return [
            actions
            for path, group in _runs(numbers, self.data_path)
            for actions in self._actions(path, group).values()
        ]

    def files(self) -> list[str]:
        """Paths, relative to the root, of the data and video files that the chosen episodes need."""
        paths = {self.data_path(number) for number in self.numbers}
        for camera in filter(self._is_video, self.cameras):
            paths |= {self._video_path(camera, number) for number in self.numbers}
        return sorted(str(path.relative_to(self.root)) for path in paths)

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
        vectors = [key for key, item in features.items() if item["dtype"].startswith(("float", "int", "bool"))]
        if self.action_key not in vectors:
            raise ValueError(
                f"{self.repo_id} has no feature {self.action_key!r} to take actions from; --action_key can be: "
                f"{_listed(vectors)}."
            )

    def _read_episode_table(self) -> dict[str, np.ndarray]:
        columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for camera in self.cameras:
            if self._is_video(camera):
                columns += [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise FileNotFoundError(f"{self.root}/meta/episodes holds no episodes: finalize or download the dataset.")
        table = pa.concat_tables(_read_parquet(path, columns) for path in files).sort_by("episode_index")
        arrays = {name: table[name].to_numpy() for name in columns}
        promised = self.info.get("total_episodes", len(table))
        if not np.array_equal(arrays["episode_index"], np.arange(promised)):
            raise ValueError(
                f"{self.root}/meta/info.json promises {promised} episodes, but meta/episodes lists {len(table)} or "
                "lists them twice: finalize or download the dataset again."
            )
        if np.any(arrays["length"] < 1):
            raise ValueError(f"{self.root}/meta/episodes lists an episode without frames: download the dataset again.")
        return arrays

    def _is_video(self, camera: str) -> bool:
        return self.info["features"][camera]["dtype"] == "video"

    def _pictures(self, kept: dict[int, range]) -> Iterator[np.ndarray]:
        """Yields the kept frames of these episodes one after another, all cameras side by side."""
        per_camera = [self._camera_frames(camera, kept) for camera in self.cameras]
        if len(per_camera) == 1:
            return per_camera[0]
        return (side_by_side(list(group)) for group in zip(*per_camera, strict=True))

    def _camera_frames(self, camera: str, kept: dict[int, range]) -> Iterator[np.ndarray]:
        """Yields the kept frames of one camera, opening each file once."""
        numbers = list(kept)
        if not self._is_video(camera):
            for path, group in _runs(numbers, self.data_path):
                yield from self._stored_images(path, camera, group, kept)
            return
        tolerance = 0.49 / self.fps
        for path, group in _runs(numbers, lambda number: self._video_path(camera, number)):
            starts = self._table[f"videos/{camera}/from_timestamp"]
            times = [starts[number] + np.array(kept[number]) / self.fps for number in group]
            yield from decode_frames(path, np.concatenate(times), tolerance)

    def _video_path(self, camera: str, number: int) -> Path:
        chunk, file = (self._table[f"videos/{camera}/{name}_index"][number] for name in ("chunk", "file"))
        return self.root / self.info["video_path"].format(video_key=camera, chunk_index=chunk, file_index=file)

    def data_path(self, number: int) -> Path:
        """The parquet file that holds the rows of episode `number`."""
        chunk, file = (self._table[f"data/{name}_index"][number] for name in ("chunk", "file"))
        return self.root / self.info["data_path"].format(chunk_index=chunk, file_index=file)

    def _actions(self, path: Path, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        rows = _rows(path, numbers, self.action_key, VECTORS_PER_BATCH)
        batches = [(batch["episode_index"], batch[self.action_key]) for batch in rows]
        owners = np.concatenate([owner.to_numpy() for owner, _ in batches] or [np.zeros(0)])
        vectors = np.concatenate([_vectors(column, self.action_dim, path) for _, column in batches] or [np.zeros(0)])
        actions = {number: vectors[owners == number] for number in numbers}
        for number, values in actions.items():
            self._check_count(path, number, len(values))
        return actions

    def _stored_images(
        self, path: Path, camera: str, numbers: Sequence[int], kept: dict[int, range]
    ) -> Iterator[np.ndarray]:
        seen = dict.fromkeys(numbers, 0)
        for batch in _rows(path, numbers, camera, PICTURES_PER_BATCH):
            for number, item in zip(batch["episode_index"].to_pylist(), batch[camera].to_pylist(), strict=True):
                if seen[number] in kept[number]:
                    encoded = item["bytes"] if item["bytes"] is not None else (self.root / item["path"]).read_bytes()
                    yield as_rgb(encoded, f"{path}, episode {number}")
                seen[number] += 1
        for number, count in seen.items():
            self._check_count(path, number, count)

    def _check_count(self, path: Path, number: int, found: int) -> None:
        promised = int(self._table["length"][number])
        if found != promised:
            raise ValueError(
                f"{path} holds {found} frames of episode {number}, but the dataset's metadata promises {promised}: "
                "download the dataset again."
            )


def read_info(root: Path, repo_id: str) -> dict:
    """Reads `meta/info.json` of a v3.0 dataset.

    Raises:
        FileNotFoundError, ValueError: no dataset there, damaged, or of an older format.
    """
    path = Path(root) / "meta" / "info.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder of a LeRobotDataset with --local_dir.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        complete = all(key in info for key in ("fps", "features", "data_path")) and float(info["fps"]) > 0
        complete = complete and all({"dtype", "shape"} <= set(item) for item in info["features"].values())
        if complete:
            _try_paths(info)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({first_line(error)}): download the dataset again.") from error
    if version.startswith(("v1", "v2")):
        raise ValueError(
            f"{repo_id} is a LeRobot dataset of format {version}; migrate it to v3.0 with `{MIGRATION}{repo_id}`."
        )
    if not version.startswith("v3") or not complete:
        raise ValueError(f"{path} describes no LeRobot dataset of format v3.0 (it says {version}): download it again.")
    return info


def _try_paths(info: dict) -> None:
    """Fills in the patterns of file names once, so that wrong ones fail here."""
    info["data_path"].format(chunk_index=0, file_index=0)
    if any(item["dtype"] == "video" for item in info["features"].values()):
        info["video_path"].format(video_key="", chunk_index=0, file_index=0)


def local_root(repo_id: str, local_dir: str | Path | None) -> Path | None:
    """Where a dataset lies on this machine: `local_dir`, or lerobot's own folder of recordings; None if nowhere."""
    if local_dir is not None:
        return Path(local_dir)
    default = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "lerobot"
    root = Path(os.environ.get("HF_LEROBOT_HOME", default)).expanduser() / repo_id
    return root if (root / "meta" / "info.json").is_file() else None


def open_lerobot(
    repo_id: str,
    local_dir: str | Path | None = None,
    image_key: str | None = None,
    action_key: str = "action",
    episodes: str | None = None,
    revision: str | None = None,
) -> LeRobotSource:
    """Opens a dataset in `local_dir`, in lerobot's own folder of recordings, or on the Hub, in this order.

    From the Hub only what is needed comes down: the metadata first, then the files of the chosen cameras and episodes.

    Raises:
        FileNotFoundError, ValueError: see `LeRobotSource`; or the dataset is nowhere.
    """
    root = local_root(repo_id, local_dir)
    if root is not None:
        return LeRobotSource(root, repo_id, image_key, action_key, episodes, revision)
    root = download_dataset(repo_id, ["meta/*"], revision or _newest_revision(repo_id))
    source = LeRobotSource(root, repo_id, image_key, action_key, episodes, revision=root.name)
    download_dataset(repo_id, source.files(), root.name)
    return source


def _newest_revision(repo_id: str) -> str:
    """lerobot's tag of the format where there is one, else main."""
    try:
        tags = [ref.name for ref in HfApi().list_repo_refs(repo_id, repo_type="dataset").tags]
    except HUB_ERRORS:
        return "main"  # Perhaps in the cache; else the download says what is wrong.
    return "v3.0" if "v3.0" in tags else "main"


def flatten_names(names, action_dim: int) -> list[str] | None:
    """LeRobot's `names` in any of its spellings as one list of `action_dim` axis labels, or None."""
    if isinstance(names, dict):
        by_position = all(isinstance(value, int) for value in names.values())
        names = list(names) if by_position else list(chain.from_iterable(names.values()))
    if not isinstance(names, list) or len(names) != action_dim:
        return None
    return [str(name) for name in names]


def find_units(feature: dict, action_dim: int) -> list[str] | None:
    """The unit of each axis, where whoever recorded the dataset wrote them into the feature, or None.

    LeRobot has no field of its own for units, but keeps further keys of a feature: "units" (or "unit"), beside "names"
    or within "info", as one text for all axes or a list of one each.
    """
    info = feature.get("info") or {}
    found = next((place[key] for place in (feature, info) for key in ("units", "unit") if place.get(key)), None)
    return [found] * action_dim if isinstance(found, str) else flatten_names(found, action_dim)


def _rows(path: Path, numbers: Sequence[int], column: str, batch_size: int) -> Iterator[pa.RecordBatch]:
    """The rows of these episodes in the order of the file, `column` and `episode_index`, a few at a time."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: download the dataset again.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, **READ_BIT_BY_BIT) as file:
            if column not in file.schema_arrow.names:
                raise KeyError(f"there is no column {column}")
            groups = _row_groups_of(file, numbers)
            for batch in file.iter_batches(batch_size, groups, [column, "episode_index"], use_threads=False):
                yield batch.filter(pc.is_in(batch["episode_index"], pa.array(numbers, pa.int64())))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): download the dataset again.") from error


def _row_groups_of(file: pq.ParquetFile, numbers: Sequence[int]) -> list[int]:
    """The row groups that can hold rows of these (increasing) episodes, as far as their statistics tell."""
    metadata, chosen = file.metadata, []
    position = [metadata.schema.column(i).path for i in range(metadata.num_columns)].index("episode_index")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(position).statistics
        known = statistics is not None and statistics.has_min_max
        if not known or (statistics.min <= numbers[-1] and statistics.max >= numbers[0]):
            chosen.append(group)
    return chosen


def _vectors(column: pa.Array, width: int, path: Path) -> np.ndarray:
    """A list column, or one of plain numbers, as (rows, width) float32."""
    flat = column.flatten() if pa.types.is_nested(column.type) else column
    numeric = pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type) or pa.types.is_boolean(flat.type)
    if not numeric or len(flat) != len(column) * width or column.null_count:
        raise ValueError(f"{path} holds actions that are not {width} numbers wide: download the dataset again.")
    return np.asarray(flat).astype(np.float32).reshape(len(column), width)


def _runs(numbers: Sequence[int], key) -> Iterator[tuple[Path, list[int]]]:
    group: list[int] = []
    for number in numbers:
        if group and key(number) != key(group[0]):
            yield key(group[0]), group
            group = []
        group.append(number)
    if group:
        yield key(group[0]), group


def _read_parquet(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(
            path, columns=columns, partitioning=None, use_threads=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): download the dataset again.") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "(there is none)"

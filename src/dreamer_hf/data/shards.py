"""A folder of HDF5 shards, on this machine or on the Hub: file names, metadata, and the index of all episodes.

    metadata.json     shapes, rate, action names and statistics, source and arguments of the conversion
    index.npz         per episode: shard, length, source episode, labeled or not
    shard_0000.h5     images (episodes, max_len, H, W, 3) uint8 RGB | latents (episodes, max_len, N_z, d_z) float16
                      actions (episodes, max_len, action_dim) float32
                      images_NAME, for each camera after the first, if there are several (attribute camera_names)
                      states (episodes, max_len, state_dim) float32 and has_state (episodes,), if there is a state
                      rewards (episodes, max_len, tasks) float32 and perhaps terminals (episodes, max_len) bool, if
                      there are rewards: each is stored next to the action that earned it
                      episode_lengths (episodes,) int32; attributes num_episodes, max_length
    labels/NAME.npz   rewards that were computed later, see `labels`

Folders without an index, or with the sparse metadata of other writers, can be read too. Nothing in a folder is
trusted: values are checked when they are read, and a shard cannot refer to other files.
"""

import ast
import math
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import hdf5plugin  # noqa: F401  (registers the Zstd filter with HDF5)
import numpy as np
from huggingface_hub import hf_hub_download

from .files import first_line, read_json, replacing, write_json
from .hub import HUB_ERRORS, download_dataset
from .metadata_checks import CHECKS, MAX_EPISODES

FORMAT_VERSION = 1
METADATA_NAME = "metadata.json"
INDEX_NAME = "index.npz"
IMAGES, LATENTS, ACTIONS, LENGTHS = "images", "latents", "actions", "episode_lengths"
SOURCE_EPISODES, LABELED = "source_episodes", "labelled"
STATES, HAS_STATE = "states", "has_state"
REWARDS, TERMINALS = "rewards", "terminals"
CAMERA_NAMES = "camera_names"
"""Attribute of a shard of several cameras."""
STATISTICS = ("mean", "std", "min", "max")
INDEX_KEYS = ("shards", "lengths", SOURCE_EPISODES, LABELED)
"""Arrays of the index, in the order of the fields of `ShardIndex`."""
CONVERSION_ID = "conversion_id"
"""Attribute of a shard: `json_checksum` of the `conversion` in the metadata of its folder."""
UNKNOWN_EPISODE = -1
MAX_FRAME_BYTES = 1 << 28
RESTORE = "restore it, or convert again"


def shard_name(shard: int) -> str:
    """Return the file name of shard number `shard`."""
    return f"shard_{shard:04d}.h5"


def camera_arrays(names: Sequence[str]) -> list[str]:
    """Return the names of the arrays of several cameras: that of the first is the one of a shard with one camera."""
    return [IMAGES, *(f"{IMAGES}_{name.replace('/', '.')}" for name in names[1:])]


@dataclass
class ShardMetadata:
    """Contents of `metadata.json`. Fields that other writers leave out, or fill with "N/A", are None here."""

    num_shards: int
    total_episodes: int
    image_shape: tuple[int, ...] | None = None
    """(height, width, 3) of a frame; None in latent shards."""
    action_shape: tuple[int, ...] | None = None
    """(action_dim,)."""
    relative_actions: bool = False
    """Whether actions are differences of recorded ones, except for the `absolute_action_dims` of `conversion`."""
    relative_mode: str | None = None
    format_version: int | None = None
    fps: float | None = None
    color_order: str | None = None
    """ "rgb" or "bgr"; None if the writer did not say."""
    action_names: list[str] | None = None
    action_units: list[str] | None = None
    """A unit for each dimension, if the source names them."""
    action_stats: dict | None = None
    """mean, std, min, max of the stored actions, lists of action_dim, and count."""
    action_offset: int = 0
    """Alignment of the *stored* pairs: 0, raw. Readers align."""
    image_key: str | None = None
    action_key: str | None = None
    source: dict | None = None
    conversion: dict | None = None
    frames_per_shard: list[int] | None = None
    latent_shape: tuple[int, ...] | None = None
    """(N_z, d_z) in latent shards."""
    tokenizer_fingerprint: str | None = None
    state_shape: tuple[int, ...] | None = None
    """(state_dim,); None if no episode has a state."""
    state_names: list[str] | None = None
    state_units: list[str] | None = None
    """A unit for each dimension of the state, if the source names them."""
    state_stats: dict | None = None
    """mean, std, min, max of the states, lists of state_dim, and count."""
    state_key: str | None = None
    camera_names: list[str] | None = None
    """Of several cameras; None for one."""
    reward_names: list[str] | None = None
    """The tasks for which the shards hold rewards; None if they hold none."""
    reward_key: str | None = None
    extra: dict = field(default_factory=dict)
    """Keys of other writers, kept unchanged."""

    @classmethod
    def read(cls, folder: Path) -> "ShardMetadata":
        """Read `folder/metadata.json`.

        Raises:
            FileNotFoundError, ValueError: missing, damaged, or with a value that cannot be right; the message names
                it.
        """
        path = folder / METADATA_NAME
        if not path.is_file() and (folder / "meta" / "info.json").is_file():
            raise FileNotFoundError(
                f"{folder} is a LeRobot dataset, not a folder of shards: convert it first (dreamer convert lerobot)."
            )
        content = read_json(path)
        known = {item.name for item in fields(cls)} - {"extra"}
        values = {key: None if value == "N/A" else value for key, value in content.items() if key in known}
        for key, rank in (("image_shape", 3), ("action_shape", 1), ("latent_shape", 2), ("state_shape", 1)):
            values[key] = _parse_shape(values.get(key), rank, key, path)
        for key, (is_valid, expected) in CHECKS.items():
            if not is_valid(values.get(key)):
                raise ValueError(f"{path}: expected {expected} for '{key}', got {_shown(values.get(key))}: {RESTORE}.")
        if (values.get("format_version") or 0) > FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {values['format_version']}, but this version of dreamer_hf reads up to "
                f"{FORMAT_VERSION}: update it."
            )
        values["relative_actions"] = bool(values.get("relative_actions"))
        values["action_offset"] = values.get("action_offset") or 0
        metadata = cls(**values, extra={key: value for key, value in content.items() if key not in known})
        if metadata.action_shape is not None:
            metadata.check_action_width(metadata.action_shape[0], path)
        metadata._check_width("state", metadata.state_dim, path)
        return metadata

    def check_action_width(self, width: int, path: Path) -> None:
        """Raise ValueError unless names, units and statistics of actions are those of `width` dimensions."""
        self._check_width("action", width, path)

    def _check_width(self, kind: str, width: int, path: Path) -> None:
        stats = getattr(self, f"{kind}_stats") or {}
        lists = {f"{kind}_{name}": getattr(self, f"{kind}_{name}") for name in ("names", "units")}
        lists |= {f"{kind}_stats.{key}": stats.get(key) for key in STATISTICS}
        for key, values in lists.items():
            if values is not None and len(values) != width:
                raise ValueError(
                    f"{path}: '{key}' has {len(values)} entries for {width} {kind} dimensions: {RESTORE}."
                )

    @property
    def num_cameras(self) -> int:
        """Number of cameras, V."""
        return len(self.camera_names) if self.camera_names else 1

    @property
    def state_dim(self) -> int:
        """Number of state dimensions; 0 if no episode has a state."""
        return self.state_shape[0] if self.state_shape else 0

    @property
    def relative_dims(self) -> list[bool] | None:
        """Whether each action dimension is a displacement instead of a target; None if the writer did not say."""
        if self.conversion is None and not self.relative_actions:
            return None
        absolute, displaced = (
            (self.conversion or {}).get(key) or () for key in ("absolute_action_dims", "displacement_action_dims")
        )
        width = self.action_shape[0] if self.action_shape else 0
        return [dim in displaced or (self.relative_actions and dim not in absolute) for dim in range(width)]

    def write(self, folder: Path) -> None:
        """Write `folder/metadata.json`, completely or not at all; the last act of every conversion."""
        content = asdict(self)
        extra = content.pop("extra")
        write_json(folder / METADATA_NAME, {k: v for k, v in (content | extra).items() if v is not None})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse_shape(value: Any, rank: int, key: str, path: Path) -> tuple[int, ...] | None:
    """Take a list, a stringified tuple, or None; longer shapes (of a whole array) lose their leading sizes."""
    if value is None:
        return None
    try:
        shape = tuple(int(size) for size in (ast.literal_eval(value) if isinstance(value, str) else value))
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"{path}: expected a shape for '{key}', got {_shown(value)}: {RESTORE}.") from error
    shape = shape[-rank:]
    is_possible = len(shape) == rank and min(shape) >= (1 if rank > 1 else 0) and math.prod(shape) <= MAX_FRAME_BYTES
    is_possible = is_possible and (key != "image_shape" or shape[2] == 3)
    if not is_possible:
        raise ValueError(f"{path}: expected {rank} possible sizes for '{key}', got {_shown(value)}: {RESTORE}.")
    return shape


@dataclass
class ShardIndex:
    """Where each episode lies; all arrays are (total_episodes,), ordered by shard and by row within it."""

    shards: np.ndarray
    lengths: np.ndarray
    source_episodes: np.ndarray
    labeled: np.ndarray
    """False for episodes without actions."""

    @property
    def rows(self) -> np.ndarray:
        """Row of each episode within its shard."""
        first = np.searchsorted(self.shards, self.shards, side="left")
        return np.arange(len(self.shards)) - first

    @classmethod
    def join(cls, parts: list["ShardIndex"]) -> "ShardIndex":
        """Return one index made of those of the shards, in order."""
        if not parts:
            return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, bool))
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def write(self, folder: Path) -> None:
        """Write `folder/index.npz` (a zip: every member carries a CRC)."""
        with replacing(folder / INDEX_NAME) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **dict(zip(INDEX_KEYS, vars(self).values(), strict=True)))

    @classmethod
    def read(cls, path: Path) -> "ShardIndex":
        """Read `index.npz`.

        Raises:
            ValueError: the file is damaged, or holds values that cannot be right.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                loaded = [arrays[key] for key in INDEX_KEYS]
        except (*UNREADABLE, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged ({first_line(error)}): delete it, and the shards are read instead."
            ) from error
        are_numbers = all(
            isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iub" for array in loaded
        )
        if not are_numbers or len({len(array) for array in loaded}) > 1:
            raise ValueError(
                f"{path} does not hold one integer per episode: delete it, and the shards are read instead."
            )
        index = cls(*loaded)
        if np.any(index.shards[1:] < index.shards[:-1]) or np.any(index.lengths < 0) or np.any(index.shards < 0):
            raise ValueError(f"{path} contradicts itself: delete it, and the shards are read instead.")
        return index


UNREADABLE = (OSError, RuntimeError, TypeError, OverflowError)
"""What h5py and NumPy raise for files that are damaged in one way or another, besides what they document."""


def read_shard_index(path: Path, shard: int) -> ShardIndex:
    """Read the index of one shard from the shard itself.

    Raises:
        ValueError: the shard is damaged, or its arrays are not what they should be.
    """
    with open_shard(path) as file:
        return shard_index_of(file, path, shard)


def shard_index_of(file: h5py.File, path: Path, shard: int) -> ShardIndex:
    """Do what `read_shard_index` does with an open shard."""
    lengths = read_episode_values(file, LENGTHS, path)
    source = np.full(len(lengths), UNKNOWN_EPISODE)
    if SOURCE_EPISODES in file:
        source = read_episode_values(file, SOURCE_EPISODES, path)
    labeled = np.full(len(lengths), True)
    if LABELED in file:
        labeled = read_episode_values(file, LABELED, path).astype(bool)
    if not len(lengths) == len(source) == len(labeled):
        raise damaged_shard(path, "its arrays differ in length")
    return ShardIndex(
        np.full(len(lengths), shard, np.int32), lengths.astype(np.int32), source.astype(np.int64), labeled
    )


def read_episode_values(file: h5py.File, key: str, path: Path) -> np.ndarray:
    """Read an array of one integer per episode.

    Raises:
        ValueError: it is missing, damaged, or something else.
    """
    dataset = stored_array(file, key, path)
    if dataset.ndim != 1 or dataset.dtype.kind not in "iub" or len(dataset) >= MAX_EPISODES:
        raise damaged_shard(path, f"'{key}' is not one integer per episode")
    try:
        values = dataset[:]
    except UNREADABLE as error:
        raise damaged_shard(path, first_line(error)) from error
    if key == LENGTHS and np.any((values < 0) | (values > np.iinfo(np.int32).max)):
        raise damaged_shard(path, "it holds an impossible length")
    return values


def open_shard(path: Path) -> h5py.File:
    """Open a shard for reading, practically without a chunk cache: a window reads each of its chunks once.

    Raises:
        FileNotFoundError, ValueError: missing, truncated, or not an HDF5 file.
    """
    try:
        return h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: restore it, or convert again with --resume.") from error
    except (*UNREADABLE, ValueError) as error:
        raise damaged_shard(path, first_line(error)) from error


def open_shard_file(file: BinaryIO, path: Path) -> h5py.File:
    """Do what `open_shard` does with an open file that messages call `path`."""
    try:
        return h5py.File(file, "r", rdcc_nbytes=0)
    except (*UNREADABLE, ValueError) as error:
        raise damaged_shard(path, first_line(error)) from error


def stored_array(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """Return an array of an open shard, whose values lie in this very file.

    HDF5 can fetch values from other files: by soft and external links, virtual datasets and external storage. A shard
    from a stranger could show any file of this machine that way.

    Raises:
        ValueError: it is missing, not an array, or refers to another file.
    """
    try:
        link = file.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise damaged_shard(path, f"'{key}' is a link to another place, which shards must not hold")
        item = file[key]
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            raise damaged_shard(path, f"'{key}' is not an array")
        if item.external or item.is_virtual:
            raise damaged_shard(path, f"'{key}' lies in another file, which shards must not do")
    except (KeyError, *UNREADABLE) as error:
        raise damaged_shard(path, first_line(error)) from error
    return item


def read_attribute(file: h5py.File, name: str, path: Path):
    """Return an attribute of a shard; None if it has none of this name.

    Raises:
        ValueError: the file is damaged there.
    """
    try:
        return file.attrs.get(name)
    except (KeyError, *UNREADABLE) as error:
        raise damaged_shard(path, first_line(error)) from error


def damaged_shard(path: Path, reason: str) -> ValueError:
    """Return the error for every way in which a shard can be unreadable."""
    return ValueError(
        f"{path} is truncated or damaged ({reason}): restore it, or delete it and convert with --resume."
    )


class ShardFolder:
    """Finds the shards, metadata and index of `location`: a folder, or "org/name" (or "hf://datasets/org/name") on the
    Hub.

    Raises:
        FileNotFoundError: it is neither, or the Hub cannot be reached and its files are not in the cache.
        ValueError: the metadata is damaged.
    """

    def __init__(self, location: str | Path, revision: str | None = None):
        location = str(location).removeprefix("hf://datasets/")
        self.path = Path(location)
        self.repo_id: str | None = None
        if not self.path.is_dir() and re.match(r"[a-z][a-z0-9+.-]+:/", location):
            raise FileNotFoundError(
                f"{location} is an address, and shards are read from a folder or the Hub: copy them to a folder first."
            )
        if not self.path.is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", location):
            self.repo_id = location
            self.path = download_dataset(self.repo_id, [METADATA_NAME, INDEX_NAME], [revision])
        self.metadata = ShardMetadata.read(self.path)

    def shard(self, number: int) -> Path:
        """Return the path of a shard on this machine, downloaded from the Hub if necessary.

        Raises:
            FileNotFoundError: it cannot be downloaded.
        """
        path = self.path / shard_name(number)
        if self.repo_id is None or path.exists():
            return path
        try:
            commit = self.path.name
            return Path(hf_hub_download(self.repo_id, path.name, repo_type="dataset", revision=commit))
        except HUB_ERRORS as error:
            raise FileNotFoundError(
                f"{path.name} of {self.repo_id} cannot be downloaded ({first_line(error)})."
            ) from error

    def read_index(self) -> ShardIndex:
        """Return the index; folders without one are read shard by shard.

        Raises:
            FileNotFoundError, ValueError: shards are missing, or the index contradicts the metadata.
        """
        present = {entry.name for entry in os.scandir(self.path)}
        shards = range(self.metadata.num_shards)
        absent = (name for name in map(shard_name, shards) if name not in present)
        missing = list(islice(absent, 6)) if self.repo_id is None else []
        if missing:
            more = " and more" if len(missing) > 5 else ""
            raise FileNotFoundError(
                f"{self.path} lacks {', '.join(missing[:5])}{more}: restore the files, or convert again."
            )
        if INDEX_NAME in present:
            index = ShardIndex.read(self.path / INDEX_NAME)
        else:
            index = ShardIndex.join([read_shard_index(self.shard(shard), shard) for shard in shards])
        promised = (self.metadata.total_episodes, self.metadata.num_shards)
        if len(index.lengths) != promised[0] or (len(index.shards) and index.shards[-1] >= promised[1]):
            raise ValueError(
                f"{self.path} promises {promised[0]} episodes in {promised[1]} shards in its metadata but holds "
                f"{len(index.lengths)} episodes: {RESTORE}."
            )
        return index

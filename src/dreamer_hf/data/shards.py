"""A folder of HDF5 shards, here or on the Hub: file names, metadata, and the index that spares opening every shard.

    metadata.json     shapes, rate, action names and statistics, source and arguments of the conversion
    index.npz         per episode: shard, length, source episode, labelled or not
    shard_0000.h5     images (episodes, max_len, H, W, 3) uint8 RGB | latents (episodes, max_len, N_z, d_z) float16
                      actions (episodes, max_len, action_dim) float32
                      episode_lengths (episodes,) int32; attributes num_episodes, max_length

Folders without an index, or with the sparse metadata of other writers, are read too.
"""

import ast
import os
import re
import zipfile
import zlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the Zstd and LZ4 filters with HDF5)
import numpy as np
from huggingface_hub import hf_hub_download

from .files import first_line, read_json, replacing, write_json
from .hub import HUB_ERRORS, download_dataset

FORMAT_VERSION = 1
METADATA_NAME = "metadata.json"
INDEX_NAME = "index.npz"
IMAGES, LATENTS, ACTIONS, LENGTHS = "images", "latents", "actions", "episode_lengths"
SOURCE_EPISODES, LABELLED = "source_episodes", "labelled"


def shard_name(shard: int) -> str:
    """File name of shard number `shard`."""
    return f"shard_{shard:04d}.h5"


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
    relative_mode: str | None = None
    format_version: int | None = None
    fps: float | None = None
    color_order: str | None = None
    """ "rgb" or "bgr"; None where the writer did not say."""
    action_names: list[str] | None = None
    action_units: list[str] | None = None
    """A unit for each dimension, where the source says."""
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
    extra: dict = field(default_factory=dict)
    """Keys of other writers, kept as they are."""

    @classmethod
    def read(cls, folder: Path) -> "ShardMetadata":
        """Reads `folder/metadata.json`.

        Raises:
            FileNotFoundError, ValueError: missing, damaged, or without the counts every writer leaves.
        """
        content = read_json(folder / METADATA_NAME)
        known = {item.name for item in fields(cls)} - {"extra"}
        values = {key: None if value == "N/A" else value for key, value in content.items() if key in known}
        for key in ("num_shards", "total_episodes"):
            if not isinstance(values.get(key), int) or values[key] < 0:
                raise ValueError(f"{folder / METADATA_NAME} has no valid '{key}': restore it, or convert again.")
        for key, rank in (("image_shape", 3), ("action_shape", 1), ("latent_shape", 2)):
            values[key] = _parse_shape(values.get(key), rank, key, folder)
        values["relative_actions"] = bool(values.get("relative_actions"))
        values["action_offset"] = values.get("action_offset") or 0
        return cls(**values, extra={key: value for key, value in content.items() if key not in known})

    def write(self, folder: Path) -> None:
        """Writes `folder/metadata.json` at once and whole; the last act of every conversion."""
        content = asdict(self)
        extra = content.pop("extra")
        write_json(folder / METADATA_NAME, {k: v for k, v in (content | extra).items() if v is not None})


def _parse_shape(value, rank: int, key: str, folder: Path) -> tuple[int, ...] | None:
    """Takes a list, a stringified tuple, or None; longer shapes (of a whole array) lose their leading sizes."""
    if value is None:
        return None
    try:
        shape = tuple(int(size) for size in (ast.literal_eval(value) if isinstance(value, str) else value))
    except (ValueError, SyntaxError, TypeError) as error:
        raise ValueError(f"{folder / METADATA_NAME}: '{key}' is no shape but {value!r}: restore it.") from error
    if len(shape) < rank:
        raise ValueError(f"{folder / METADATA_NAME}: '{key}' is {shape}, {rank} sizes are needed: restore it.")
    return shape[-rank:]


@dataclass
class ShardIndex:
    """Where each episode lies; all arrays are (total_episodes,), ordered by shard and by row within it."""

    shards: np.ndarray
    lengths: np.ndarray
    source_episodes: np.ndarray
    labelled: np.ndarray
    """False for episodes without actions."""

    @property
    def rows(self) -> np.ndarray:
        """Row of each episode within its shard."""
        first = np.searchsorted(self.shards, self.shards, side="left")
        return np.arange(len(self.shards)) - first

    @classmethod
    def join(cls, parts: list["ShardIndex"]) -> "ShardIndex":
        """One index of the shards' own, in order."""
        if not parts:
            return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, bool))
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def write(self, folder: Path) -> None:
        """Writes `folder/index.npz` (a zip: every member carries a CRC)."""
        with replacing(folder / INDEX_NAME) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **asdict(self))

    @classmethod
    def read(cls, path: Path) -> "ShardIndex":
        """Reads `index.npz`.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                index = cls(**{item.name: arrays[item.name] for item in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is damaged ({first_line(error)}): delete it, and the shards are read instead."
            ) from error
        sizes = {len(getattr(index, item.name)) for item in fields(cls)}
        if len(sizes) > 1 or np.any(np.diff(index.shards) < 0) or np.any(index.lengths < 0):
            raise ValueError(f"{path} contradicts itself: delete it, and the shards are read instead.")
        return index


def read_shard_index(path: Path, shard: int) -> ShardIndex:
    """Reads the index of one shard out of the shard itself.

    Raises:
        ValueError: the shard is damaged.
    """
    with open_shard(path) as file:
        try:
            lengths = file[LENGTHS][:].astype(np.int32)
            source = file[SOURCE_EPISODES][:] if SOURCE_EPISODES in file else np.full(len(lengths), -1)
            labelled = file[LABELLED][:].astype(bool) if LABELLED in file else np.full(len(lengths), True)
        except (OSError, KeyError, RuntimeError) as error:
            raise damaged_shard(path, error) from error
    return ShardIndex(np.full(len(lengths), shard, np.int32), lengths, source.astype(np.int64), labelled)


def open_shard(path: Path) -> h5py.File:
    """Opens a shard for reading, with no chunk cache to speak of: a window reads each of its chunks once.

    Raises:
        FileNotFoundError, ValueError: missing, truncated or no HDF5 file.
    """
    try:
        return h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: restore it, or convert again with --resume.") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise damaged_shard(path, error) from error


def damaged_shard(path: Path, error: Exception) -> ValueError:
    """The one sentence for every way in which a shard can be unreadable."""
    return ValueError(
        f"{path} is truncated or damaged ({first_line(error)}): restore it, or delete it and convert with --resume."
    )


class ShardFolder:
    """Finds shards, metadata and index of `location`: a folder, or "org/name" on the Hub.

    Raises:
        FileNotFoundError: it is neither, or the Hub cannot be reached and nothing is in its cache.
    """

    def __init__(self, location: str | Path, revision: str | None = None):
        self.path = Path(location)
        self.repo_id: str | None = None
        if not self.path.is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(location)):
            self.repo_id = str(location)
            self.path = download_dataset(self.repo_id, [METADATA_NAME, INDEX_NAME], revision)
        self.metadata = ShardMetadata.read(self.path)

    def shard(self, number: int) -> Path:
        """Path of a shard on this machine, fetched from the Hub if it is not there yet.

        Raises:
            FileNotFoundError: it cannot be fetched.
        """
        path = self.path / shard_name(number)
        if self.repo_id is None or path.exists():
            return path
        try:
            commit = self.path.name
            return Path(hf_hub_download(self.repo_id, path.name, repo_type="dataset", revision=commit))
        except HUB_ERRORS as error:
            raise FileNotFoundError(
                f"{path.name} of {self.repo_id} cannot be fetched ({first_line(error)})."
            ) from error

    def read_index(self) -> ShardIndex:
        """The index; folders without one are read shard by shard.

        Raises:
            FileNotFoundError, ValueError: shards are missing, or the index contradicts the metadata.
        """
        present = {entry.name for entry in os.scandir(self.path)}
        shards = range(self.metadata.num_shards)
        missing = [shard_name(shard) for shard in shards if shard_name(shard) not in present]
        if missing and self.repo_id is None:
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
                f"{len(index.lengths)} episodes: restore it, or convert again."
            )
        return index

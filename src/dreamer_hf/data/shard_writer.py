"""Writes one shard, frame by frame, in bounded memory."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa

from .action_data import ActionStatistics
from .files import preparing, publish
from .shards import ACTIONS, FORMAT_VERSION, IMAGES, LABELLED, LATENTS, LENGTHS, SOURCE_EPISODES

ZSTD_LEVEL = 1
CODECS: Mapping[str, Mapping] = {
    "zstd": hdf5plugin.Zstd(clevel=ZSTD_LEVEL),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
"""zstd: the default, fast and small. gzip: readable by plain h5py. See docs/decisions/0007-shard-codec.md."""
CHUNK_LENGTH = 8
ACTION_CHUNK_LENGTH = 1024
MODULUS = 65535
WORDS_AT_ONCE = 1 << 16
"""Few enough for their sums to fit into 64 bits, and themselves into the processor's cache."""
_WEIGHTS = np.arange(WORDS_AT_ONCE, 0, -1, dtype=np.uint64)


@contextmanager
def write_shard(path: str | Path, action_dim: int, **options) -> Iterator["ShardWriter"]:
    """Yields a `ShardWriter`; the shard appears under `path` only when the block ends without an error.

    Args:
        path: final name of the shard.
        action_dim: width of the stored actions.
        options: see `ShardWriter`.
    """
    with prepare_shard(path, action_dim, **options) as writer:
        yield writer
    publish(path)


@contextmanager
def prepare_shard(path: str | Path, action_dim: int, **options) -> Iterator["ShardWriter"]:
    """Like `write_shard`, but leaves it to `publish` to let the complete shard appear."""
    with preparing(path) as temporary, _FailingLater(temporary, "w+b") as sink:
        # The newest file format checksums its own structures; every HDF5 since 1.10 reads it.
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            writer = ShardWriter(file, action_dim, sink=sink, **options)
            yield writer
            writer.finish()
        sink.raise_failure()


class _FailingLater(io.FileIO):
    """A file that keeps the first failure to write (a full disk) to itself until it is asked.

    HDF5 cannot even close a file that it could not write: it crashes the interpreter on the way out.
    """

    failure: OSError | None = None

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self.failure is None:
                done += super().write(view[done:])
        except OSError as error:
            self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure


class ShardWriter:
    """Fills one shard; use it through `write_shard`.

    One episode at a time: `begin_episode`, `add_frame` or `new_frame` for each frame, `end_episode` with its actions, or
    `drop_episode` when it turns out to be damaged or too short. Frames leave memory chunk by chunk. Arrays grow with what
    they hold; padding is never written and takes no space.

    Args:
        file: an empty HDF5 file, open for writing.
        sink: what `file` writes to; asked for failures after every chunk.
        action_dim: width of the stored actions.
        compression: a key of `CODECS`.
        chunk_length: frames in a chunk; shortened to the longest episode where that is shorter.
        kind: "images" (frames (H, W, 3) uint8) or "latents" (frames (N_z, d_z) float16).
    """

    def __init__(
        self,
        file: h5py.File,
        action_dim: int,
        sink: "_FailingLater",
        compression: str = "zstd",
        chunk_length: int = CHUNK_LENGTH,
        kind: str = IMAGES,
    ):
        assert kind in (IMAGES, LATENTS)
        if compression not in CODECS:
            raise ValueError(f"no codec {compression!r}: choose one of {', '.join(CODECS)}.")
        if chunk_length < 1:
            raise ValueError(f"--chunk_length {chunk_length} is too small: give at least 1.")
        self.kind = kind
        self.statistics = ActionStatistics.empty(action_dim)
        self._file = file
        self._sink = sink
        self._action_dim = action_dim
        self._filters = {**CODECS[compression], "fletcher32": True}
        self._encoder = ZstdChunks(ZSTD_LEVEL) if compression == "zstd" else None
        self._chunk_length = chunk_length
        self._frames: h5py.Dataset | None = None
        self._extent = (0, 0)  # (rows, frames) of it
        self._chunk: np.ndarray | None = None  # the frames of the chunk that is being filled
        self._chunk_size = 0  # how many there are
        self._waiting: list[tuple[int, np.ndarray]] = []  # (row, frames)
        self._actions: list[np.ndarray | None] = []
        self._lengths: list[int] = []
        self._source_episodes: list[int] = []

    def begin_episode(self, source_episode: int) -> None:
        """Starts the next row; `source_episode` is the episode's number where it came from."""
        self._source_episodes.append(source_episode)
        self._lengths.append(0)

    def drop_episode(self) -> None:
        """Takes back the row that was begun last, with the frames it has got so far."""
        row = len(self._lengths) - 1
        del self._lengths[row], self._source_episodes[row]
        self._chunk_size = 0
        self._waiting = [block for block in self._waiting if block[0] < row]
        if self._frames is not None and len(self._frames) > row:
            self._extent = row, max(self._lengths, default=0)
            self._frames.resize((*self._extent, *self._frames.shape[2:]))
        if row == 0:  # Frames of another shape may follow.
            self._chunk = self._frames = None
            self._file.pop(self.kind, None)

    def add_frame(self, frame: np.ndarray) -> None:
        """Appends a frame.

        Raises:
            ValueError: its shape is not that of the frames before.
        """
        self.new_frame(frame.shape, frame.dtype)[...] = frame

    def new_frame(self, shape: tuple[int, ...], dtype: np.dtype | type = np.uint8) -> np.ndarray:
        """Appends a frame that the caller fills in before the next call: an array of this shape, content undefined.

        Raises:
            ValueError: its shape is not that of the frames before.
        """
        if self._chunk is None:
            self._chunk = np.empty((min(self._chunk_length, CHUNK_LENGTH), *shape), dtype)
        if self._chunk.shape[1:] != shape:
            raise ValueError(
                f"episode {self._source_episodes[-1]} holds a frame of shape {shape} after frames of shape "
                f"{self._chunk.shape[1:]}: give --width and --height to bring all frames to one size."
            )
        if self._chunk_size == self._chunk_length:
            self._flush_chunk()
        elif self._chunk_size == len(self._chunk):
            self._chunk = np.concatenate([self._chunk, self._chunk])[: self._chunk_length]
        self._chunk_size += 1
        self._lengths[-1] += 1
        return self._chunk[self._chunk_size - 1]

    def end_episode(self, actions: np.ndarray | None) -> None:
        """Ends the row; `actions` is (frames, action_dim) float32, or None for an episode without any.

        Raises:
            ValueError: wrong number or width of actions, or values that are not finite.
        """
        if self._chunk_size:
            self._flush_chunk()
        if actions is not None:
            self._check_actions(actions)
            self.statistics = self.statistics.merge(ActionStatistics.of(actions))
        self._actions.append(actions)

    def _check_actions(self, actions: np.ndarray) -> None:
        episode, wanted = self._source_episodes[-1], (self._lengths[-1], self._action_dim)
        if actions.shape != wanted:
            raise ValueError(
                f"episode {episode} has actions of shape {actions.shape}, but its frames ask for {wanted}: "
                "repair it, or leave it out with --episodes."
            )
        if not np.isfinite(actions).all():
            frame = int(np.argmin(np.isfinite(actions).all(axis=1)))
            raise ValueError(
                f"episode {episode} has an action at frame {frame} that is not a number or infinite: "
                "repair it, or leave it out with --episodes."
            )

    def _flush_chunk(self) -> None:
        row, size, self._chunk_size = len(self._lengths) - 1, self._chunk_size, 0
        block, start = self._chunk[:size], self._lengths[-1] - size
        # Until one full chunk has come, the episodes may all be shorter than a chunk: its length is not known yet.
        if self._frames is None and size < self._chunk_length:
            self._waiting.append((row, block.copy()))
            return
        self._write_waiting(size)
        self._write_block(row, start, block)

    def _write_waiting(self, chunk_length: int) -> None:
        """Writes what came before the length of chunks was known: episodes of one chunk each."""
        if self._frames is None:
            self._frames = self._create(self.kind, self._chunk.dtype, chunk_length, self._chunk.shape[1:])
        for row, block in self._waiting:
            self._write_block(row, 0, block)
        self._waiting = []

    def _write_block(self, row: int, start: int, block: np.ndarray) -> None:
        """Writes the frames of one chunk, which begins at frame `start`."""
        self._grow(start + len(block))
        if self._encoder is None:
            self._frames[row, start : start + len(block)] = block
        else:
            missing = self._frames.chunks[1] - len(block)
            if missing:  # The end of an episode; a chunk is stored whole.
                block = np.concatenate([block, np.zeros((missing, *block.shape[1:]), block.dtype)])
            offsets = (row, start, *(0 for _ in block.shape[1:]))
            self._frames.id.write_direct_chunk(offsets, self._encoder.encode(block))
        self._sink.raise_failure()

    def _create(self, name: str, dtype: np.dtype, chunk_length: int, item_shape: tuple[int, ...]) -> h5py.Dataset:
        """A dataset without rows yet."""
        return self._file.create_dataset(
            name,
            (0, 0, *item_shape),
            dtype,
            maxshape=(None, None, *item_shape),
            chunks=(1, chunk_length, *item_shape),
            **self._filters,
        )

    def _grow(self, length: int) -> None:
        rows, longest = self._extent
        if len(self._lengths) != rows or length > longest:
            self._extent = len(self._lengths), max(length, longest)
            self._frames.resize((*self._extent, *self._frames.shape[2:]))

    def finish(self) -> None:
        """Writes what is left: the last frames, the actions, the lengths and the attributes."""
        longest = max(self._lengths, default=0)
        if self._waiting:
            self._write_waiting(min(longest, self._chunk_length))
        self._write_actions(longest)
        file = self._file
        file.create_dataset(LENGTHS, data=np.array(self._lengths, np.int32), **self._small_filters())
        file.create_dataset(SOURCE_EPISODES, data=np.array(self._source_episodes, np.int64), **self._small_filters())
        labelled = np.array([actions is not None for actions in self._actions], np.uint8)
        file.create_dataset(LABELLED, data=labelled, **self._small_filters())
        file.attrs.update(
            num_episodes=len(self._lengths),
            max_length=longest,
            num_frames=sum(self._lengths),
            format_version=FORMAT_VERSION,
        )
        for name in ("count", "mean", "squares", "min", "max"):
            file.attrs[f"action_{name}"] = getattr(self.statistics, name)

    def _small_filters(self) -> dict:
        """A checksum needs a chunk, and a chunk needs at least one element."""
        return {"fletcher32": True} if self._lengths else {}

    def _write_actions(self, longest: int) -> None:
        shape = (len(self._lengths), longest, self._action_dim)
        if 0 in shape:
            self._file.create_dataset(ACTIONS, shape, np.float32)
            return
        actions = self._create(ACTIONS, np.dtype(np.float32), min(longest, ACTION_CHUNK_LENGTH), shape[2:])
        actions.resize(shape)
        for row, values in enumerate(self._actions):
            if values is not None:
                actions[row, : len(values)] = values


def read_shard_statistics(file: h5py.File) -> ActionStatistics:
    """The action statistics that `ShardWriter` left in an open shard."""
    count, *moments = (file.attrs[f"action_{name}"] for name in ("count", "mean", "squares", "min", "max"))
    return ActionStatistics(int(count), *moments)


class ZstdChunks:
    """Encodes chunks for a dataset with the filters Zstd and Fletcher-32, in this order.

    Args:
        level: Zstd's compression level.
    """

    def __init__(self, level: int):
        self._codec = pa.Codec("zstd", compression_level=level)

    def encode(self, chunk: np.ndarray) -> bytes:
        """The bytes to store for a chunk, an array of the dataset's chunk shape and type, C-contiguous."""
        compressed = self._codec.compress(chunk, asbytes=True)
        return compressed + fletcher32(compressed).to_bytes(4, "little")


def fletcher32(data: bytes) -> int:
    """The checksum of HDF5's Fletcher-32 filter, `H5_checksum_fletcher32`.

    It sums big-endian 16-bit words and the sums so far, modulo 65535. Exchanging the bytes of a word multiplies it by 256
    in this arithmetic, so the words are summed in this machine's order, and the sums exchanged at the end.
    """
    words = np.frombuffer(data if len(data) % 2 == 0 else data + b"\0", "<u2")
    total = weighted = 0
    for start in range(0, len(words), WORDS_AT_ONCE):
        part = words[start : start + WORDS_AT_ONCE].astype(np.uint64)
        weighted += total * len(part) + int(part @ _WEIGHTS[-len(part) :])
        total += int(part.sum())
    return _fold(weighted) << 16 | _fold(total)


def _fold(value: int) -> int:
    """A sum of little-endian words modulo 65535 for big-endian ones, written as HDF5 does: only 0 itself gives 0."""
    folded = 256 * value % MODULUS
    return folded or (MODULUS if value else 0)

"""Writes one shard, frame by frame, in bounded memory."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from . import chunk_encoding
from .action_data import ActionStatistics
from .files import preparing, publish
from .shards import (
    ACTIONS,
    CONVERSION_ID,
    FORMAT_VERSION,
    HAS_STATE,
    IMAGES,
    LABELED,
    LATENTS,
    LENGTHS,
    SOURCE_EPISODES,
    STATES,
)

FILTERS: Mapping[str, Mapping] = {
    "zstd": chunk_encoding.FILTERS,
    "gzip": {"compression": "gzip", "compression_opts": 1, "fletcher32": True},
}
"""zstd: the default, fast and small. gzip: readable by plain h5py. See docs/decisions/0007-shard-codec.md."""
CHUNK_LENGTH = 8
"""Frames in a chunk; fewer if all episodes of the shard are shorter."""
MOMENTS = ("count", "mean", "squares", "min", "max")
"""Attributes of a shard with the statistics of its actions and states, after `action_` and `state_`."""
VECTOR_CHUNK_LENGTH = 1024
"""Actions or states in a chunk."""


@contextmanager
def write_shard(path: str | Path, action_dim: int, **options) -> Iterator["ShardWriter"]:
    """Yield a `ShardWriter`; the shard appears under `path` only when the block ends without an error.

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
    """Like `write_shard`, but leave it to `publish` to let the complete shard appear."""
    with preparing(path) as temporary, _DeferredErrorFile(temporary, "w+b") as sink:
        # The newest file format checksums its own structures; every HDF5 since 1.10 reads it.
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            writer = ShardWriter(file, sink, action_dim, **options)
            yield writer
            writer.finish()
        sink.raise_failure()


class _DeferredErrorFile(io.FileIO):
    """A file that remembers the first failure to write (a full disk) instead of raising it.

    HDF5 cannot close a file that it could not write: it crashes the interpreter on exit.
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

    One episode at a time: `begin_episode`, `add_frame` or `new_frame` for each frame, then `end_episode` with its
    actions and states, or `drop_episode` if it turns out to be damaged or too short. Frames leave memory chunk by
    chunk. Arrays grow with their content; padding is never written and takes no space.

    Args:
        file: an empty HDF5 file, open for writing.
        sink: what `file` writes to; its failures are raised after every chunk.
        action_dim: width of the stored actions.
        compression: "zstd" or "gzip".
        kind: "images" (frames (H, W, 3) uint8) or "latents" (frames (N_z, d_z) float16).
        conversion_id: what connects the shard to the metadata of its folder, see `CONVERSION_ID`; None: nothing.
        state_dim: width of the stored states; 0: none are stored.
    """

    def __init__(
        self,
        file: h5py.File,
        sink: "_DeferredErrorFile",
        action_dim: int,
        compression: str = "zstd",
        kind: str = IMAGES,
        conversion_id: str | None = None,
        state_dim: int = 0,
    ):
        assert kind in (IMAGES, LATENTS)
        if compression not in FILTERS:
            raise ValueError(f"expected one of {', '.join(FILTERS)} for --compression, got {compression!r}.")
        self.kind = kind
        self.statistics = ActionStatistics.empty(action_dim)
        self.state_statistics = ActionStatistics.empty(state_dim)
        self._file = file
        self._sink = sink
        self._action_dim, self._state_dim = action_dim, state_dim
        self._conversion_id = conversion_id
        self._filters = FILTERS[compression]
        self._codec = pa.Codec("zstd", compression_level=chunk_encoding.ZSTD_LEVEL) if compression == "zstd" else None
        self._frames: h5py.Dataset | None = None
        self._extent = (0, 0)  # (rows, frames) of it
        self._chunk: np.ndarray | None = None  # the frames of the chunk that is being filled
        self._chunk_size = 0  # how many there are
        self._waiting: list[tuple[int, np.ndarray]] = []  # (row, frames)
        self._actions: list[np.ndarray | None] = []
        self._states: list[np.ndarray | None] = []
        self._lengths: list[int] = []
        self._source_episodes: list[int] = []

    def begin_episode(self, source_episode: int) -> None:
        """Start the next row; `source_episode` is the number of the episode in its source."""
        self._source_episodes.append(source_episode)
        self._lengths.append(0)

    def drop_episode(self) -> None:
        """Take back the row that was started last, with its frames."""
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
        """Append a frame.

        Raises:
            ValueError: its shape differs from that of earlier frames.
        """
        self.new_frame(frame.shape, frame.dtype)[...] = frame

    def new_frame(self, shape: tuple[int, ...], dtype: np.dtype | type = np.uint8) -> np.ndarray:
        """Append a frame and return its array, whose content is undefined: fill it before the next call.

        Raises:
            ValueError: its shape differs from that of earlier frames.
        """
        if self._chunk is None:
            self._chunk = np.empty((CHUNK_LENGTH, *shape), dtype)
        if self._chunk.shape[1:] != shape:
            raise ValueError(
                f"episode {self._source_episodes[-1]} holds a frame of shape {shape} after frames of shape "
                f"{self._chunk.shape[1:]}: give --width and --height to bring all frames to one size."
            )
        if self._chunk_size == CHUNK_LENGTH:
            self._flush_chunk()
        self._chunk_size += 1
        self._lengths[-1] += 1
        return self._chunk[self._chunk_size - 1]

    def end_episode(self, actions: np.ndarray | None, states: np.ndarray | None = None) -> None:
        """End the row; `actions` is (frames, action_dim) float32, or None for an episode without actions, and `states`
        is (frames, state_dim) float32, or None for one without states.

        Raises:
            ValueError: wrong number or width of actions or states, or values that are not finite.
        """
        if self._chunk_size:
            self._flush_chunk()
        if actions is not None:
            self._check_vectors("action", actions, self._action_dim)
            self.statistics = self.statistics.merge(ActionStatistics.of(actions))
        if states is not None:
            self._check_vectors("state", states, self._state_dim)
            self.state_statistics = self.state_statistics.merge(ActionStatistics.of(states))
        self._actions.append(actions)
        self._states.append(states)

    def _check_vectors(self, kind: str, vectors: np.ndarray, width: int) -> None:
        episode, wanted = self._source_episodes[-1], (self._lengths[-1], width)
        if vectors.shape != wanted:
            raise ValueError(
                f"episode {episode} has {kind}s of shape {vectors.shape}, but its frames require {wanted}: "
                "repair it, or leave it out with --episodes."
            )
        if not np.isfinite(vectors).all():
            frame = int(np.argmin(np.isfinite(vectors).all(axis=1)))
            article = "an" if kind == "action" else "a"
            raise ValueError(
                f"episode {episode} has {article} {kind} at frame {frame} that is not a number or infinite: "
                "repair it, or leave it out with --episodes."
            )

    def _flush_chunk(self) -> None:
        row, size, self._chunk_size = len(self._lengths) - 1, self._chunk_size, 0
        frames, start = self._chunk[:size], self._lengths[-1] - size
        # Until the first full chunk, all episodes may be shorter than a chunk: its length is not known yet.
        if self._frames is None and size < CHUNK_LENGTH:
            self._waiting.append((row, frames.copy()))
            return
        self._write_waiting(size)
        self._write_frames(row, start, frames)

    def _write_waiting(self, chunk_length: int) -> None:
        """Write what came before the length of chunks was known: episodes of one chunk each."""
        if self._frames is None:
            self._frames = self._create(self.kind, self._chunk.dtype, chunk_length, self._chunk.shape[1:])
        for row, frames in self._waiting:
            self._write_frames(row, 0, frames)
        self._waiting = []

    def _write_frames(self, row: int, start: int, frames: np.ndarray) -> None:
        """Write the frames of one chunk, which begins at frame `start`."""
        self._grow(start + len(frames))
        self._write_chunk(self._frames, row, start, frames)
        self._sink.raise_failure()

    def _write_chunk(self, array: h5py.Dataset, row: int, start: int, values: np.ndarray) -> None:
        if self._codec is None:
            array[row, start : start + len(values)] = values
            return
        missing = array.chunks[1] - len(values)
        if missing:  # The end of an episode; a chunk is stored whole.
            values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
        offsets = (row, start, *(0 for _ in values.shape[1:]))
        array.id.write_direct_chunk(offsets, chunk_encoding.encode_chunk(self._codec, values))

    def _create(self, name: str, dtype: np.dtype, chunk_length: int, item_shape: tuple[int, ...]) -> h5py.Dataset:
        """Return a new array without rows."""
        array = self._file.create_dataset(
            name,
            (0, 0, *item_shape),
            dtype,
            maxshape=(None, None, *item_shape),
            chunks=(1, chunk_length, *item_shape),
            **self._filters,
        )
        if self._codec is not None:
            array.attrs[chunk_encoding.CHECKSUM_ATTRIBUTE] = chunk_encoding.CHECKSUM_NAME
        return array

    def _grow(self, length: int) -> None:
        rows, longest = self._extent
        if len(self._lengths) != rows or length > longest:
            self._extent = len(self._lengths), max(length, longest)
            self._frames.resize((*self._extent, *self._frames.shape[2:]))

    def finish(self) -> None:
        """Write the remaining frames, the actions and states, the lengths and the attributes."""
        longest = max(self._lengths, default=0)
        if self._waiting:
            self._write_waiting(min(longest, CHUNK_LENGTH))
        self._write_vectors(ACTIONS, self._actions, self._action_dim, longest)
        file = self._file
        file.create_dataset(LENGTHS, data=np.array(self._lengths, np.int32), **self._small_filters())
        file.create_dataset(SOURCE_EPISODES, data=np.array(self._source_episodes, np.int64), **self._small_filters())
        labeled = np.array([actions is not None for actions in self._actions], np.uint8)
        file.create_dataset(LABELED, data=labeled, **self._small_filters())
        if self._state_dim:
            self._write_vectors(STATES, self._states, self._state_dim, longest)
            labeled = np.array([states is not None for states in self._states], np.uint8)
            file.create_dataset(HAS_STATE, data=labeled, **self._small_filters())
        file.attrs.update(
            num_episodes=len(self._lengths),
            max_length=longest,
            num_frames=sum(self._lengths),
            format_version=FORMAT_VERSION,
        )
        if self._conversion_id is not None:
            file.attrs[CONVERSION_ID] = self._conversion_id
        for name in MOMENTS:
            file.attrs[f"action_{name}"] = getattr(self.statistics, name)
            if self._state_dim:
                file.attrs[f"state_{name}"] = getattr(self.state_statistics, name)

    def _small_filters(self) -> dict:
        """A checksum needs a chunk, and a chunk needs at least one element."""
        return {"fletcher32": True} if self._lengths else {}

    def _write_vectors(self, name: str, episodes: list[np.ndarray | None], width: int, longest: int) -> None:
        shape = (len(self._lengths), longest, width)
        if 0 in shape:
            self._file.create_dataset(name, shape, np.float32)
            return
        array = self._create(name, np.dtype(np.float32), min(longest, VECTOR_CHUNK_LENGTH), shape[2:])
        array.resize(shape)
        for row, values in enumerate(episodes):
            for start in range(0, len(() if values is None else values), array.chunks[1]):
                part = np.ascontiguousarray(values[start : start + array.chunks[1]], np.float32)
                self._write_chunk(array, row, start, part)


def read_shard_statistics(file: h5py.File, kind: str = "action") -> ActionStatistics:
    """Return the statistics of actions, or of states ("state"), that `ShardWriter` left in an open shard."""
    count, *moments = (file.attrs[f"{kind}_{name}"] for name in MOMENTS)
    return ActionStatistics(int(count), *moments)

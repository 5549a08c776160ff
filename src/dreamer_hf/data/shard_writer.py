"""Writes one shard, frame by frame, in bounded memory."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from .action_statistics import ActionStatistics
from .files import replacing
from .shard_format import ACTIONS, FORMAT_VERSION, IMAGES, LABELLED, LATENTS, LENGTHS, SOURCE_EPISODES

CODECS: Mapping[str, Mapping] = {
    "zstd": hdf5plugin.Zstd(clevel=1),
    "lz4": hdf5plugin.LZ4(),
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}
"""zstd: the default, fast and small. gzip: readable by plain h5py. See docs/decisions/shard-codec.md."""
CHUNK_LENGTH = 8
ACTION_CHUNK_LENGTH = 1024


@contextmanager
def write_shard(path: str | Path, action_dim: int, **options) -> Iterator["ShardWriter"]:
    """Yields a `ShardWriter`; the shard appears under `path` only when the block ends without an error.

    Args:
        path: final name of the shard.
        action_dim: width of the stored actions.
        options: see `ShardWriter`.
    """
    with replacing(path) as temporary, _FailingLater(temporary, "w+b") as sink:
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

    One episode at a time: `begin_episode`, `add_frame` for each frame, `end_episode` with its actions, or `drop_episode`
    when it turns out to be damaged. Frames leave
    memory chunk by chunk. Arrays grow with what they hold; padding is never written and takes no space.

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
        self._chunk_length = chunk_length
        self._frames: h5py.Dataset | None = None
        self._frame_shape: tuple[int, ...] | None = None
        self._chunk: list[np.ndarray] = []
        self._waiting: list[tuple[int, int, np.ndarray]] = []
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
        self._chunk = []
        self._waiting = [block for block in self._waiting if block[0] < row]
        if self._frames is not None and len(self._frames) > row:
            self._frames.resize((row, max(self._lengths, default=0), *self._frames.shape[2:]))

    def add_frame(self, frame: np.ndarray) -> None:
        """Appends a frame.

        Raises:
            ValueError: its shape is not that of the frames before.
        """
        if self._frame_shape is None:
            self._frame_shape = frame.shape
        if frame.shape != self._frame_shape:
            raise ValueError(
                f"episode {self._source_episodes[-1]} holds a frame of shape {frame.shape} after frames of shape "
                f"{self._frame_shape}: give --width and --height to bring all frames to one size."
            )
        self._chunk.append(frame)
        self._lengths[-1] += 1
        if len(self._chunk) == self._chunk_length:
            self._flush_chunk()

    def end_episode(self, actions: np.ndarray | None) -> None:
        """Ends the row; `actions` is (frames, action_dim) float32, or None for an episode without any.

        Raises:
            ValueError: wrong number or width of actions, or values that are not finite.
        """
        if self._chunk:
            self._flush_chunk()
        if actions is not None:
            self._check_actions(actions)
            self.statistics = self.statistics.merge(ActionStatistics.of(actions))
        self._actions.append(actions)

    @property
    def frame_shape(self) -> tuple[int, ...] | None:
        """Shape of the frames so far; None before the first."""
        return self._frame_shape

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
        start = self._lengths[-1] - len(self._chunk)
        block = np.stack(self._chunk)
        self._chunk = []
        self._waiting.append((len(self._lengths) - 1, start, block))
        # Until one full chunk has come, the episodes may all be shorter than a chunk: its length is not known yet.
        if self._frames is not None or len(block) == self._chunk_length:
            self._write_waiting(len(block))

    def _write_waiting(self, chunk_length: int) -> None:
        if self._frames is None:
            block = self._waiting[0][2]
            self._frames = self._create(self.kind, block.dtype, chunk_length, block.shape[1:])
        self._grow(self._frames, max(self._lengths))
        for row, start, block in self._waiting:
            self._frames[row, start : start + len(block)] = block
        self._waiting = []
        self._sink.raise_failure()

    def _create(self, name: str, dtype: np.dtype, chunk_length: int, item_shape: tuple[int, ...]) -> h5py.Dataset:
        return self._file.create_dataset(
            name,
            (0, 0, *item_shape),
            dtype,
            maxshape=(None, None, *item_shape),
            chunks=(1, chunk_length, *item_shape),
            **self._filters,
        )

    def _grow(self, dataset: h5py.Dataset, length: int) -> None:
        wanted = (len(self._lengths), max(length, dataset.shape[1]))
        if dataset.shape[:2] != wanted:
            dataset.resize((*wanted, *dataset.shape[2:]))

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
        self._grow(actions, longest)
        for row, values in enumerate(self._actions):
            if values is not None:
                actions[row, : len(values)] = values


def read_shard_statistics(file: h5py.File) -> ActionStatistics:
    """The action statistics that `ShardWriter` left in an open shard."""
    count, *moments = (file.attrs[f"action_{name}"] for name in ("count", "mean", "squares", "min", "max"))
    return ActionStatistics(int(count), *moments)

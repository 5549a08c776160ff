"""Arrays of a shard that grow while it is written: chunks, and the frames of one camera."""

from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np
import pyarrow as pa

from . import chunk_encoding

CHUNK_LENGTH = 8
"""Frames in a chunk; fewer if all episodes of the shard are shorter."""


@dataclass
class ChunkWriter:
    """Creates the arrays of a shard and writes their chunks.

    Args:
        file: the shard.
        sink: what `file` writes to; its failures are raised after every chunk of frames.
        filters: HDF5's filters of the chunks.
        codec: compresses chunks outside HDF5; None leaves it to HDF5.
    """

    file: h5py.File
    sink: object
    filters: Mapping
    codec: pa.Codec | None

    def create(self, name: str, dtype: np.dtype, chunk_length: int, item_shape: tuple[int, ...]) -> h5py.Dataset:
        """Return a new array without rows."""
        array = self.file.create_dataset(
            name,
            (0, 0, *item_shape),
            dtype,
            maxshape=(None, None, *item_shape),
            chunks=(1, chunk_length, *item_shape),
            **self.filters,
        )
        if self.codec is not None:
            array.attrs[chunk_encoding.CHECKSUM_ATTRIBUTE] = chunk_encoding.CHECKSUM_NAME
        return array

    def write(self, array: h5py.Dataset, row: int, start: int, values: np.ndarray) -> None:
        """Write the values of one chunk, which begins at `start` of a row."""
        if self.codec is None:
            array[row, start : start + len(values)] = values
            return
        missing = array.chunks[1] - len(values)
        if missing:  # The end of an episode; a chunk is stored whole.
            values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
        offsets = (row, start, *(0 for _ in values.shape[1:]))
        array.id.write_direct_chunk(offsets, chunk_encoding.encode_chunk(self.codec, values))


class FrameArray:
    """The frames, or latents, of one camera in a shard. They leave memory chunk by chunk.

    Args:
        name: of the array.
        chunks: writes the chunks.

    Attributes:
        lengths: number of frames of every episode so far.
    """

    def __init__(self, name: str, chunks: ChunkWriter):
        self.name, self.lengths = name, []
        self._chunks = chunks
        self._array: h5py.Dataset | None = None
        self._extent = (0, 0)  # (rows, frames) of it
        self._chunk: np.ndarray | None = None  # the frames of the chunk that is being filled
        self._chunk_size = 0  # how many there are
        self._waiting: list[tuple[int, np.ndarray]] = []  # (row, frames)

    def begin_episode(self) -> None:
        """Start the next row."""
        self.lengths.append(0)

    def drop_episode(self) -> None:
        """Take back the row that was started last, with its frames."""
        row = len(self.lengths) - 1
        del self.lengths[row]
        self._chunk_size = 0
        self._waiting = [block for block in self._waiting if block[0] < row]
        if self._array is not None and len(self._array) > row:
            self._extent = row, max(self.lengths, default=0)
            self._array.resize((*self._extent, *self._array.shape[2:]))
        if row == 0:  # Frames of another shape may follow.
            self._chunk = self._array = None
            self._chunks.file.pop(self.name, None)

    def new_frame(self, shape: tuple[int, ...], dtype: np.dtype | type, episode: int) -> np.ndarray:
        """Append a frame and return its array, whose content is undefined: fill it before the next call.

        Args:
            shape, dtype: of the frame.
            episode: number of the episode in its source, for the message.

        Raises:
            ValueError: its shape differs from that of earlier frames.
        """
        if self._chunk is None:
            self._chunk = np.empty((CHUNK_LENGTH, *shape), dtype)
        if self._chunk.shape[1:] != shape:
            raise ValueError(
                f"episode {episode} holds a frame of shape {shape} after frames of shape "
                f"{self._chunk.shape[1:]}: give --width and --height to bring all frames to one size."
            )
        if self._chunk_size == CHUNK_LENGTH:
            self._flush_chunk()
        self._chunk_size += 1
        self.lengths[-1] += 1
        return self._chunk[self._chunk_size - 1]

    def end_episode(self) -> None:
        """End the row."""
        if self._chunk_size:
            self._flush_chunk()

    def finish(self) -> None:
        """Write the remaining frames."""
        if self._waiting:
            self._write_waiting(min(max(self.lengths, default=0), CHUNK_LENGTH))

    def _flush_chunk(self) -> None:
        row, size, self._chunk_size = len(self.lengths) - 1, self._chunk_size, 0
        frames, start = self._chunk[:size], self.lengths[-1] - size
        # Until the first full chunk, all episodes may be shorter than a chunk: its length is not known yet.
        if self._array is None and size < CHUNK_LENGTH:
            self._waiting.append((row, frames.copy()))
            return
        self._write_waiting(size)
        self._write_frames(row, start, frames)

    def _write_waiting(self, chunk_length: int) -> None:
        """Write what came before the length of chunks was known: episodes of one chunk each."""
        if self._array is None:
            self._array = self._chunks.create(self.name, self._chunk.dtype, chunk_length, self._chunk.shape[1:])
        for row, frames in self._waiting:
            self._write_frames(row, 0, frames)
        self._waiting = []

    def _write_frames(self, row: int, start: int, frames: np.ndarray) -> None:
        """Write the frames of one chunk, which begins at frame `start`."""
        self._grow(start + len(frames))
        self._chunks.write(self._array, row, start, frames)
        self._chunks.sink.raise_failure()

    def _grow(self, length: int) -> None:
        rows, longest = self._extent
        if len(self.lengths) != rows or length > longest:
            self._extent = len(self.lengths), max(length, longest)
            self._array.resize((*self._extent, *self._array.shape[2:]))

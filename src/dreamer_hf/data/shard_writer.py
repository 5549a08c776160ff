"""Writes one shard, frame by frame, in bounded memory."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from . import chunk_encoding
from .action_data import ActionStatistics
from .episodes import RecordedRewards
from .files import preparing, publish
from .frame_array import ChunkWriter, FrameArray
from .shards import (
    ACTIONS,
    CAMERA_NAMES,
    CONVERSION_ID,
    FORMAT_VERSION,
    HAS_STATE,
    IMAGES,
    LABELED,
    LATENTS,
    LENGTHS,
    REWARDS,
    SOURCE_EPISODES,
    STATES,
    TERMINALS,
    camera_arrays,
)

FILTERS: Mapping[str, Mapping] = {
    "zstd": chunk_encoding.FILTERS,
    "gzip": {"compression": "gzip", "compression_opts": 1, "fletcher32": True},
}
"""zstd: the default, fast and small. gzip: readable by plain h5py. See docs/decisions/0007-shard-codec.md."""
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
        camera_names: those of several cameras, each of which has its own array; None: one camera.
        num_tasks: number of tasks for which rewards are stored; 0: none are.
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
        camera_names: Sequence[str] | None = None,
        num_tasks: int = 0,
    ):
        assert kind in (IMAGES, LATENTS)
        if compression not in FILTERS:
            raise ValueError(f"expected one of {', '.join(FILTERS)} for --compression, got {compression!r}.")
        self.kind = kind
        self.statistics = ActionStatistics.empty(action_dim)
        self.state_statistics = ActionStatistics.empty(state_dim)
        self._file = file
        self._action_dim, self._state_dim = action_dim, state_dim
        self._conversion_id, self._camera_names = conversion_id, camera_names
        codec = pa.Codec("zstd", compression_level=chunk_encoding.ZSTD_LEVEL) if compression == "zstd" else None
        self._chunks = ChunkWriter(file, sink, FILTERS[compression], codec)
        names = [kind] if camera_names is None else camera_arrays(camera_names)
        self._cameras = [FrameArray(name, self._chunks) for name in names]
        self._actions: list[np.ndarray | None] = []
        self._states: list[np.ndarray | None] = []
        self._num_tasks = num_tasks
        self._rewards: list[RecordedRewards] = []
        self._source_episodes: list[int] = []

    def begin_episode(self, source_episode: int) -> None:
        """Start the next row; `source_episode` is the number of the episode in its source."""
        self._source_episodes.append(source_episode)
        for frames in self._cameras:
            frames.begin_episode()

    def drop_episode(self) -> None:
        """Take back the row that was started last, with its frames."""
        del self._source_episodes[-1]
        for frames in self._cameras:
            frames.drop_episode()

    def add_frame(self, frame: np.ndarray, camera: int = 0) -> None:
        """Append a frame.

        Raises:
            ValueError: its shape differs from that of earlier frames.
        """
        self.new_frame(frame.shape, frame.dtype, camera)[...] = frame

    def new_frame(self, shape: tuple[int, ...], dtype: np.dtype | type = np.uint8, camera: int = 0) -> np.ndarray:
        """Append a frame of a camera and return its array, whose content is undefined: fill it before the next call.

        Raises:
            ValueError: its shape differs from that of earlier frames.
        """
        return self._cameras[camera].new_frame(shape, dtype, self._source_episodes[-1])

    def end_episode(
        self,
        actions: np.ndarray | None,
        states: np.ndarray | None = None,
        rewards: RecordedRewards | None = None,
    ) -> None:
        """End the row; `actions` is (frames, action_dim) float32, or None for an episode without actions, `states` is
        (frames, state_dim) float32, or None for one without states, and likewise `rewards`.

        Raises:
            ValueError: wrong number or width of actions, states or rewards, or values that are not finite.
        """
        for frames in self._cameras:
            frames.end_episode()
        if len({frames.lengths[-1] for frames in self._cameras}) > 1:
            raise ValueError(
                f"the cameras of episode {self._source_episodes[-1]} have different numbers of frames: repair it, or "
                "leave it out with --episodes."
            )
        if actions is not None:
            self._check_vectors("action", actions, self._action_dim)
            self.statistics = self.statistics.merge(ActionStatistics.of(actions))
        if states is not None:
            self._check_vectors("state", states, self._state_dim)
            self.state_statistics = self.state_statistics.merge(ActionStatistics.of(states))
        if self._num_tasks:
            self._rewards.append(self._checked_rewards(rewards))
        self._actions.append(actions)
        self._states.append(states)

    def _checked_rewards(self, rewards: RecordedRewards | None) -> RecordedRewards:
        """Return rewards that fit the frames; NaN if there are none."""
        wanted = (self._lengths[-1], self._num_tasks)
        if rewards is None:
            return RecordedRewards(np.full(wanted, np.nan, np.float32))
        if rewards.rewards.shape != wanted or np.isinf(rewards.rewards).any():
            raise ValueError(
                f"episode {self._source_episodes[-1]} has rewards of shape {rewards.rewards.shape}, or infinite ones, "
                f"but its frames require {wanted}: repair it, or leave it out with --episodes."
            )
        return rewards

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

    def finish(self) -> None:
        """Write the remaining frames, the actions and states, the lengths and the attributes."""
        longest = max(self._lengths, default=0)
        for frames in self._cameras:
            frames.finish()
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
        if self._num_tasks:
            self._write_vectors(REWARDS, [each.rewards for each in self._rewards], self._num_tasks, longest)
            if any(each.terminals is not None for each in self._rewards):
                terminals = np.zeros((len(self._lengths), longest), bool)
                for row, each in enumerate(self._rewards):
                    terminals[row, : self._lengths[row]] = False if each.terminals is None else each.terminals
                file.create_dataset(TERMINALS, data=terminals, **self._small_filters())
        file.attrs.update(
            num_episodes=len(self._lengths),
            max_length=longest,
            num_frames=sum(self._lengths),
            format_version=FORMAT_VERSION,
        )
        if self._camera_names is not None:
            file.attrs[CAMERA_NAMES] = list(self._camera_names)
        if self._conversion_id is not None:
            file.attrs[CONVERSION_ID] = self._conversion_id
        for name in MOMENTS:
            file.attrs[f"action_{name}"] = getattr(self.statistics, name)
            if self._state_dim:
                file.attrs[f"state_{name}"] = getattr(self.state_statistics, name)

    @property
    def _lengths(self) -> list[int]:
        """Number of frames of every episode."""
        return self._cameras[0].lengths

    def _small_filters(self) -> dict:
        """A checksum needs a chunk, and a chunk needs at least one element."""
        return {"fletcher32": True} if self._lengths else {}

    def _write_vectors(self, name: str, episodes: list[np.ndarray | None], width: int, longest: int) -> None:
        shape = (len(self._lengths), longest, width)
        if 0 in shape:
            self._file.create_dataset(name, shape, np.float32)
            return
        array = self._chunks.create(name, np.dtype(np.float32), min(longest, VECTOR_CHUNK_LENGTH), shape[2:])
        array.resize(shape)
        for row, values in enumerate(episodes):
            for start in range(0, len(() if values is None else values), array.chunks[1]):
                part = np.ascontiguousarray(values[start : start + array.chunks[1]], np.float32)
                self._chunks.write(array, row, start, part)


def read_shard_statistics(file: h5py.File, kind: str = "action") -> ActionStatistics:
    """Return the statistics of actions, or of states ("state"), that `ShardWriter` left in an open shard."""
    count, *moments = (file.attrs[f"{kind}_{name}"] for name in MOMENTS)
    return ActionStatistics(int(count), *moments)

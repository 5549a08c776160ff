"""Windows of episodes out of a folder of shards, as a map-style PyTorch dataset."""

import logging
import math
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from .chunk_encoding import has_checksums, read_rows
from .episodes import RecordedRewards
from .files import first_line, json_checksum
from .labels import Labels
from .shards import (
    ACTIONS,
    CAMERA_NAMES,
    CONVERSION_ID,
    HAS_STATE,
    IMAGES,
    LABELED,
    LATENTS,
    LENGTHS,
    MAX_FRAME_BYTES,
    REWARDS,
    SOURCE_EPISODES,
    STATES,
    TERMINALS,
    UNREADABLE,
    ShardFolder,
    ShardIndex,
    ShardMetadata,
    camera_arrays,
    damaged_shard,
    open_shard,
    read_attribute,
    read_episode_values,
    stored_array,
)
from .windows import EpisodeWindows, WindowSpec

logger = logging.getLogger(__name__)
MAX_OPEN_SHARDS = 64


class ShardDataset(EpisodeWindows):
    """Windows of the episodes in a folder of shards; for the items see `EpisodeWindows`.

    Construction reads only the index. Shards are opened (from the Hub: downloaded) on first use, separately in every
    process, so the object may be forked, spawned and pickled at any time. One object serves one thread.

    Args:
        data_dir: folder of shards, or "org/name" of a dataset repository on the Hub.
        window_size: T, number of frames of a window; None for whole episodes only (`episode`).
        stride: number of frames between the starts of successive windows.
        split: "train", "validation" or "all"; by episode, from `split_seed`.
        train_fraction: share of the episodes in "train".
        split_seed: seed of the split.
        action_offset: with 1, frame i carries the stored action i - 1 (the command that led to it), including the one
            just before the window, and the first frame of an episode has none; with 0, the action stored with it.
        color_order: "rgb" or "bgr", the order in which the shards hold colors; default: what their metadata says, or
            RGB. Items are RGB in any case.
        revision: branch, tag or commit on the Hub; default: the main branch.

    Raises:
        FileNotFoundError, ValueError: missing or damaged files, contradicting metadata, no window of that size.
    """

    def __init__(
        self,
        data_dir: str | Path,
        window_size: int | None,
        stride: int = 1,
        split: str = "train",
        train_fraction: float = 0.9,
        split_seed: int = 42,
        action_offset: int = 1,
        color_order: str | None = None,
        revision: str | None = None,
    ):
        self._folder = ShardFolder(data_dir, revision)
        self.data_dir, self.metadata = self._folder.path, self._folder.metadata
        self._swap_colors = _swaps_colors(color_order, self.metadata, self.data_dir)
        self._index = self._folder.read_index()
        self._rows = self._index.rows
        self._handles: OrderedDict[int, _OpenShard] = OrderedDict()
        self._handles_pid = os.getpid()
        self._complete_shapes()
        super().__init__(
            str(data_dir),
            self._index.lengths,
            self.metadata.action_shape[0],
            WindowSpec(window_size, stride, split, train_fraction, split_seed, action_offset),
            self.metadata.state_dim,
        )

    @property
    def repo_id(self) -> str | None:
        """The dataset repository on the Hub, None for a folder."""
        return self._folder.repo_id

    @property
    def index(self) -> ShardIndex:
        """Where each episode lies, over all splits."""
        return self._index

    @property
    def source_episodes(self) -> np.ndarray:
        """(num_episodes,) number of each episode in its source; -1 if the shards do not say."""
        return self._index.source_episodes[self.episode_ids]

    @property
    def episode_shards(self) -> np.ndarray:
        """(num_episodes,) number of the shard that holds each episode."""
        return self._index.shards[self.episode_ids]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the frames in pixels; None for latents."""
        return None if self.metadata.image_shape is None else self.metadata.image_shape[:2]

    @property
    def num_channels(self) -> int | None:
        """3 for frames, None for latents."""
        return None if self.metadata.image_shape is None else self.metadata.image_shape[2]

    @property
    def fps(self) -> float | None:
        """Frames per second, None if the shards do not say."""
        return self.metadata.fps

    @property
    def action_names(self) -> list[str] | None:
        """A name for each action dimension, None if the shards do not say."""
        return self.metadata.action_names

    @property
    def action_units(self) -> list[str] | None:
        """A unit for each action dimension, None if the shards do not say."""
        return self.metadata.action_units

    @property
    def action_stats(self) -> dict | None:
        """mean, std, min, max of the stored actions, lists of A; None if the shards do not say."""
        return self.metadata.action_stats

    @property
    def relative_actions(self) -> list[bool] | None:
        """Whether each action dimension is a displacement instead of a target; None if the shards do not say."""
        return self.metadata.relative_dims

    @property
    def state_names(self) -> list[str] | None:
        """A name for each state dimension, None if the shards do not say."""
        return self.metadata.state_names

    @property
    def state_units(self) -> list[str] | None:
        """A unit for each state dimension, None if the shards do not say."""
        return self.metadata.state_units

    @property
    def state_stats(self) -> dict | None:
        """mean, std, min, max of the states, lists of S; None if the shards do not say."""
        return self.metadata.state_stats

    def with_window(self, window_size: int | None, stride: int = 1) -> "ShardDataset":
        """Return the same episodes in windows of another size; nothing is read again."""
        other = super().with_window(window_size, stride)
        other._handles = OrderedDict()
        return other

    def recorded_labels(self) -> Labels | None:
        """Return the rewards that were converted with the episodes, of all splits; None if there are none.

        What an action earned belongs to the frame that it led to. The frame after the last action was not recorded:
        the last frame takes its place, so that a success at the end is not lost.

        Raises:
            ValueError: a shard is damaged.
        """
        names, rewards, terminals = self.metadata.reward_names, [], []
        if names is None:
            return None
        for shard in range(self.metadata.num_shards):
            for recorded in self.recorded_rewards(shard):
                rewards.append(_of_frames(recorded.rewards, np.nan))
                if recorded.terminals is not None:
                    ended = _of_frames(recorded.terminals, False)
                    ended[-1:] |= recorded.terminals[-2:].any()
                    terminals.append(ended)
        successes = [np.zeros(part.shape, bool) for part in rewards]
        return Labels(tuple(names), rewards, successes, terminals if len(terminals) == len(rewards) else None)

    def recorded_rewards(self, shard: int) -> list[RecordedRewards]:
        """Return the rewards of the episodes of one shard as they are stored, next to the actions.

        Raises:
            ValueError: the shard is damaged.
        """
        first, last = np.searchsorted(self._index.shards, [shard, shard + 1])
        lengths, path = self._index.lengths[first:last], self._folder.shard(shard)
        with open_shard(path) as file:
            stored, num_tasks = stored_array(file, REWARDS, path), len(self.metadata.reward_names)
            if stored.ndim != 3 or stored.dtype != np.float32 or stored.shape[2] != num_tasks:
                raise damaged_shard(path, f"'{REWARDS}' has shape {stored.shape} and type {stored.dtype}")
            ends = stored_array(file, TERMINALS, path) if TERMINALS in file else None
            if len(stored) != len(lengths) or (ends is not None and ends.shape != stored.shape[:2]):
                raise damaged_shard(path, "its rewards are those of other episodes")
            checked = has_checksums(stored)
            try:
                rewards = [
                    read_rows(stored, row, 0, int(length)) if checked else stored[row, : int(length)]
                    for row, length in enumerate(lengths)
                ]
                terminals = None if ends is None else ends[:].astype(bool)
            except (*UNREADABLE, ValueError, MemoryError) as error:
                raise damaged_shard(path, first_line(error)) from error
        return [
            RecordedRewards(part, None if terminals is None else terminals[row, : len(part)])
            for row, part in enumerate(rewards)
        ]

    def write_index(self) -> None:
        """Write the index into the folder, so that folders of other writers open quickly from then on."""
        self._index.write(self.data_dir)

    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        if len(self._frame_keys) > 1:
            frames = np.stack([self._read(key, episode, start, stop) for key in self._frame_keys], axis=1)
        else:
            frames = self._read(self._frames_key, episode, start, stop)
        if self._frames_key == LATENTS:
            return {"latents": torch.from_numpy(frames)}
        frames = frames[..., ::-1].copy() if self._swap_colors else frames
        return {"pixel_values_videos": torch.from_numpy(frames).movedim(-1, -3)}

    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        if not self._index.labeled[episode]:
            return None
        with np.errstate(over="ignore"):  # What does not fit becomes infinite, which is refused.
            return self._read(ACTIONS, episode, start, stop).astype(np.float32, copy=False)

    def _read_states(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        labeled = self._open(int(self._index.shards[episode])).state_labeled
        if labeled is not None and not labeled[self._rows[episode]]:
            return None
        with np.errstate(over="ignore"):
            return self._read(STATES, episode, start, stop).astype(np.float32, copy=False)

    def _read(self, key: str, episode: int, start: int, stop: int) -> np.ndarray:
        shard = int(self._index.shards[episode])
        stored, checked = self._open(shard).arrays[key]
        row = int(self._rows[episode])
        try:
            if checked:
                return read_rows(stored, row, start, stop)
            out = np.empty((stop - start, *stored.shape[2:]), stored.dtype)
            if out.size:
                stored.read_direct(out, np.s_[row, start:stop])
        except (*UNREADABLE, ValueError, MemoryError) as error:
            raise damaged_shard(self._folder.shard(shard), first_line(error)) from error
        return out

    def _complete_shapes(self) -> None:
        """Take the shapes that the metadata leaves out from the first shard."""
        metadata = self.metadata
        self._frames_key = LATENTS if metadata.latent_shape is not None else IMAGES
        if metadata.action_shape is not None and (metadata.image_shape or metadata.latent_shape):
            return
        path = self._folder.shard(0)
        with open_shard(path) as file:
            self._frames_key = IMAGES if IMAGES in file else LATENTS
            frame_shape = _item_shape(file, self._frames_key, path)
            metadata.action_shape = _item_shape(file, ACTIONS, path)
        metadata.check_action_width(metadata.action_shape[0], path)
        if self._frames_key == LATENTS:
            metadata.latent_shape, metadata.image_shape = frame_shape, None
        else:
            metadata.image_shape = frame_shape

    @property
    def _keys(self) -> list[str]:
        """Names of the arrays with one entry for each frame."""
        return [*self._frame_keys, ACTIONS, *([STATES] if self.metadata.state_dim else [])]

    @property
    def _frame_keys(self) -> list[str]:
        """Names of the arrays of frames, one for each camera, or of that of latents."""
        names = self.metadata.camera_names
        return [self._frames_key] if names is None or self._frames_key == LATENTS else camera_arrays(names)

    @property
    def camera_names(self) -> list[str] | None:
        """Names of the cameras, if there are several."""
        return self.metadata.camera_names

    def _open(self, shard: int) -> "_OpenShard":
        """Return an open shard. Handles belong to one process, and only the latest ones stay open."""
        if self._handles_pid != os.getpid():
            self._handles, self._handles_pid = OrderedDict(), os.getpid()
        if shard not in self._handles:
            path = self._folder.shard(shard)
            file = open_shard(path)
            self._check_shard(file, shard, path)
            labeled = None
            if self.metadata.state_dim and HAS_STATE in file:
                labeled = read_episode_values(file, HAS_STATE, path).astype(bool)
            arrays = {key: (file[key], has_checksums(file[key])) for key in self._keys}
            self._handles[shard] = _OpenShard(file, arrays, labeled)
            if len(self._handles) > MAX_OPEN_SHARDS:
                self._handles.popitem(last=False)[1].file.close()
        self._handles.move_to_end(shard)
        return self._handles[shard]

    def _check_shard(self, file: h5py.File, shard: int, path: Path) -> None:
        """Refuse a shard that is not the one that metadata and index describe."""
        first, last = np.searchsorted(self._index.shards, [shard, shard + 1])
        metadata = self.metadata
        num_cameras = len(self._frame_keys)
        expected = [tuple(metadata.latent_shape or metadata.image_shape)] * num_cameras
        expected += [tuple(metadata.action_shape)]
        expected += [tuple(metadata.state_shape)] if metadata.state_dim else []
        self._check_cameras(file, path)
        shapes = [_item_shape(file, key, path) for key in self._keys]
        extents = [file[key].shape[:2] for key in self._keys]
        lengths = read_episode_values(file, LENGTHS, path)
        fits = np.array_equal(lengths, self._index.lengths[first:last]) and shapes == expected
        fits = fits and all(rows == len(lengths) for rows, _ in extents)
        if not fits or lengths.max(initial=0) > min(length for _, length in extents):
            states = f" and states {shapes[-1]}" if metadata.state_dim else ""
            raise ValueError(
                f"{path} holds {len(lengths)} episodes of frames {shapes[0]} and actions {shapes[num_cameras]}{states}"
                f", which contradicts the metadata and index of {self.data_dir}: restore them, or convert again."
            )
        for key, expected in ((SOURCE_EPISODES, self._index.source_episodes), (LABELED, self._index.labeled)):
            if key in file and not np.array_equal(read_episode_values(file, key, path), expected[first:last]):
                raise ValueError(
                    f"{path} holds other episodes than the index of {self.data_dir} says: its files were exchanged or "
                    "renamed; restore them, or convert again."
                )
        arguments, made_by = self.metadata.conversion, read_attribute(file, CONVERSION_ID, path)
        if None not in (arguments, made_by) and str(made_by) != json_checksum(arguments):
            raise ValueError(
                f"{path} comes from another conversion than {self.data_dir}: restore it, or convert again."
            )

    def _check_cameras(self, file: h5py.File, path: Path) -> None:
        """Refuse a shard of other cameras than those of the metadata."""
        names = self.metadata.camera_names
        found = read_attribute(file, CAMERA_NAMES, path)
        found = found if found is None else [str(name) for name in np.ravel(found)]
        if self._frames_key == IMAGES and found != names:
            raise ValueError(
                f"{path} has {_cameras(found)}, but the metadata of {self.data_dir} name {_cameras(names)}: restore "
                "it, or convert again with the same --image_key."
            )

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_handles": OrderedDict()}


@dataclass(frozen=True)
class _OpenShard:
    """An open shard: its arrays, each with whether it has checksums, and which episodes have states (None: all)."""

    file: h5py.File
    arrays: dict[str, tuple[h5py.Dataset, bool]]
    state_labeled: np.ndarray | None


def _item_shape(file: h5py.File, key: str, path: Path) -> tuple[int, ...]:
    """Return the shape of one frame, latent, action or state in a shard.

    Raises:
        ValueError: the array is missing, refers to another file, or is not one of frames, latents, actions or states.
    """
    array = stored_array(file, key, path)
    key = IMAGES if key.startswith(IMAGES) else key
    rank, kinds = {
        IMAGES: (5, ("uint8",)),
        LATENTS: (4, ("float16", "float32")),
        ACTIONS: (3, None),
        STATES: (3, None),
    }[key]
    is_right = array.dtype.kind in "fiu" if kinds is None else array.dtype.name in kinds
    if array.ndim != rank or not is_right or math.prod(array.shape[2:]) * array.dtype.itemsize > MAX_FRAME_BYTES:
        raise damaged_shard(path, f"'{key}' has shape {array.shape} and type {array.dtype}")
    return array.shape[2:]


def _of_frames(values: np.ndarray, first: float) -> np.ndarray:
    """Return values (T,...) of actions as those of the frames that the actions led to; the last takes that of the last
    action, and the first has a given value."""
    shifted = np.concatenate([np.full_like(values[:1], first), values[:-1]])
    shifted[1:][-1:] = values[1:][-1:]
    return shifted


def _cameras(names: list[str] | None) -> str:
    return "one camera" if names is None else f"the cameras {', '.join(names)}"


def _swaps_colors(color_order: str | None, metadata: ShardMetadata, folder: Path) -> bool:
    if color_order not in (None, "rgb", "bgr"):
        raise ValueError(f"expected rgb or bgr for color_order, got {color_order!r}.")
    if color_order is None and metadata.color_order is None and metadata.relative_mode is not None:
        logger.warning(
            f"{folder} does not state its color order, and other converters often store LeRobot data as BGR: look at "
            "`dreamer inspect --preview FILE.png`, and give color_order if the colors are swapped."
        )
    return (color_order or metadata.color_order or "rgb") == "bgr"

"""Windows of episodes out of a folder of shards, as a map-style PyTorch dataset.

Shapes: T frames of a window, H height, W width, A action_dim, N_z latent tokens, d_z their width.
"""

import copy
import logging
import os
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from .shard_format import (
    ACTIONS,
    IMAGES,
    INDEX_NAME,
    LATENTS,
    LENGTHS,
    ShardIndex,
    ShardMetadata,
    damaged_shard,
    open_shard,
    read_shard_index,
    shard_name,
)

logger = logging.getLogger(__name__)
SPLITS = ("train", "validation", "all")
MAX_OPEN_SHARDS = 64


def split_episodes(num_episodes: int, split: str, train_fraction: float, split_seed: int) -> np.ndarray:
    """Episode numbers of a split, increasing; a function of its arguments alone.

    Raises:
        ValueError: no such split, a fraction outside (0, 1], or a split without any episode.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}.")
    if not 0 < train_fraction <= 1:
        raise ValueError(f"train_fraction {train_fraction} lies outside (0, 1]: give the share of training episodes.")
    if split == "all":
        return np.arange(num_episodes)
    order = np.random.default_rng(split_seed).permutation(num_episodes)
    count = max(1, round(train_fraction * num_episodes))
    chosen = np.sort(order[:count] if split == "train" else order[count:])
    if len(chosen) == 0:
        raise ValueError(
            f"the {split} split of {num_episodes} episodes with train_fraction {train_fraction} is empty: lower the "
            "fraction, or record more episodes."
        )
    return chosen


class ShardDataset(Dataset):
    """Windows of `window_size` frames that begin every `stride` frames and never cross an episode's end.

    Items are dictionaries:
        pixel_values_videos: (T, 3, H, W) uint8 RGB (a view of channels-last memory; see `collate_windows`), or
        latents: (T, N_z, d_z) float16, where the shards hold latents;
        actions: (T, A) float32, raw, in the dataset's units, aligned: entry i belongs to frame i by `action_offset`;
        action_mask: (T,) bool, False where a frame has no action (its entry is 0).

    Nothing but the index is read on construction; shards are opened on first use, anew in every process, so the object
    may be forked, spawned and pickled at any time. One object serves one thread.

    Args:
        data_dir: folder of shards.
        window_size: T; None for whole episodes only (`episode`).
        stride: frames between the starts of successive windows.
        split: "train", "validation" or "all"; by episode, from `split_seed`.
        train_fraction: share of the episodes in "train".
        split_seed: seed of the split.
        action_offset: with 1, frame i carries the stored action i - 1 (the command that led to it), also the one just
            before the window, and the first frame of an episode none; with 0 the action stored beside it.
        color_order: "rgb" or "bgr", the order in which the shards hold colors; None: as their metadata say, else RGB.
            Items are RGB in any case.

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
    ):
        self.data_dir = Path(data_dir)
        self.action_offset = action_offset
        if action_offset < 0:
            raise ValueError(f"action_offset {action_offset} is negative: give 0, 1 or more.")
        self.metadata = ShardMetadata.read(self.data_dir)
        self._swap_colors = _swaps_colors(color_order, self.metadata, self.data_dir)
        self._index = _read_index(self.data_dir, self.metadata)
        self._rows = self._index.rows
        self._handles: OrderedDict[int, h5py.File] = OrderedDict()
        self._handles_pid = os.getpid()
        self.episode_ids = split_episodes(len(self._index.lengths), split, train_fraction, split_seed)
        self.episode_lengths = self._index.lengths[self.episode_ids]
        self._read_frame_shape()
        self._set_window(window_size, stride)

    def write_index(self) -> None:
        """Writes the index into the folder, for folders of other writers, so that later opening is immediate."""
        self._index.write(self.data_dir)

    def with_window(self, window_size: int | None, stride: int = 1) -> "ShardDataset":
        """The same episodes in windows of another size; nothing is read again."""
        other = copy.copy(self)
        other._handles = OrderedDict()
        other._set_window(window_size, stride)
        return other

    @property
    def num_episodes(self) -> int:
        """Episodes in this split."""
        return len(self.episode_ids)

    @property
    def source_episodes(self) -> np.ndarray:
        """(num_episodes,) number of each episode where it came from; -1 where the shards do not say."""
        return self._index.source_episodes[self.episode_ids]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the frames in pixels; None for latents."""
        return None if self.metadata.image_shape is None else self.metadata.image_shape[:2]

    @property
    def num_channels(self) -> int | None:
        """3 for frames, None for latents."""
        return None if self.metadata.image_shape is None else self.metadata.image_shape[2]

    @property
    def action_dim(self) -> int:
        """A, the width of an action; 0 where no episode has actions."""
        return self.metadata.action_shape[0]

    @property
    def fps(self) -> float | None:
        """Frames a second, None where the shards do not say."""
        return self.metadata.fps

    @property
    def action_names(self) -> list[str] | None:
        """A label for each action dimension, None where the shards do not say."""
        return self.metadata.action_names

    @property
    def action_stats(self) -> dict | None:
        """mean, std, min, max of the stored actions, lists of A; None where the shards do not say."""
        return self.metadata.action_stats

    def __len__(self) -> int:
        return int(self._first_window[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} does not exist: there are {len(self)}.")
        index %= len(self)
        position = int(np.searchsorted(self._first_window, index, side="right")) - 1
        start = (index - int(self._first_window[position])) * self.stride
        return self.window(position, start, self.window_size)

    def episode(self, position: int) -> dict[str, torch.Tensor]:
        """The whole episode number `position` of this split, as an item."""
        if not 0 <= position < self.num_episodes:
            raise IndexError(f"episode {position} does not exist: this split has {self.num_episodes}.")
        return self.window(position, 0, int(self.episode_lengths[position]))

    def window(self, position: int, start: int, size: int) -> dict[str, torch.Tensor]:
        """The frames `start` to `start + size` of episode number `position` of this split, as an item."""
        assert start >= 0 and start + size <= self.episode_lengths[position]
        episode = int(self.episode_ids[position])
        shard, row = int(self._index.shards[episode]), int(self._rows[episode])
        file = self._open(shard)
        first_action = max(0, start - self.action_offset)
        last_action = max(first_action, start + size - self.action_offset)
        try:
            frames = _read_rows(file[self._frames_key], row, start, start + size)
            stored = _read_rows(file[ACTIONS], row, first_action, last_action)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise damaged_shard(self._path(shard), error) from error
        actions = np.zeros((size, self.action_dim), np.float32)
        mask = np.zeros(size, bool)
        if len(stored) and self._index.labelled[episode]:
            actions[size - len(stored) :] = stored
            mask[size - len(stored) :] = True
        return self._as_item(frames, actions, mask)

    def _as_item(self, frames: np.ndarray, actions: np.ndarray, mask: np.ndarray) -> dict[str, torch.Tensor]:
        if self._frames_key == LATENTS:
            item = {"latents": torch.from_numpy(frames)}
        else:
            frames = frames[..., ::-1].copy() if self._swap_colors else frames
            item = {"pixel_values_videos": torch.from_numpy(frames).permute(0, 3, 1, 2)}
        return item | {"actions": torch.from_numpy(actions), "action_mask": torch.from_numpy(mask)}

    def _set_window(self, window_size: int | None, stride: int) -> None:
        if stride < 1 or (window_size is not None and window_size < 1):
            raise ValueError(f"window_size {window_size} and stride {stride} must each be at least 1.")
        self.window_size, self.stride = window_size, stride
        counts = np.zeros(self.num_episodes, np.int64)
        if window_size is not None:
            counts = np.maximum(0, (self.episode_lengths.astype(np.int64) - window_size) // stride + 1)
            if counts.sum() == 0:
                raise ValueError(
                    f"no episode in {self.data_dir} is as long as a window of {window_size} frames (the longest has "
                    f"{self.episode_lengths.max()}): choose a shorter window."
                )
        self._first_window = np.concatenate([[0], np.cumsum(counts)])

    def _read_frame_shape(self) -> None:
        """Takes the shapes that the metadata leaves out from the first shard."""
        metadata = self.metadata
        self._frames_key = LATENTS if metadata.latent_shape is not None else IMAGES
        if metadata.action_shape is not None and (metadata.image_shape or metadata.latent_shape):
            return
        with open_shard(self._path(0)) as file:
            if IMAGES not in file and LATENTS in file:
                self._frames_key = LATENTS
                metadata.latent_shape = file[LATENTS].shape[2:]
            elif IMAGES in file:
                metadata.image_shape = file[IMAGES].shape[2:]
            else:
                raise ValueError(f"{self._path(0)} holds neither images nor latents: is it a shard?")
            if ACTIONS not in file:
                raise ValueError(f"{self._path(0)} holds no actions: is it a shard?")
            metadata.action_shape = file[ACTIONS].shape[2:]

    def _path(self, shard: int) -> Path:
        return self.data_dir / shard_name(shard)

    def _open(self, shard: int) -> h5py.File:
        """The open shard; handles belong to one process and only the latest ones stay open."""
        if self._handles_pid != os.getpid():
            self._handles, self._handles_pid = OrderedDict(), os.getpid()
        if shard not in self._handles:
            path = self._path(shard)
            file = open_shard(path)
            self._check_shard(file, shard, path)
            self._handles[shard] = file
            if len(self._handles) > MAX_OPEN_SHARDS:
                self._handles.popitem(last=False)[1].close()
        self._handles.move_to_end(shard)
        return self._handles[shard]

    def _check_shard(self, file: h5py.File, shard: int, path: Path) -> None:
        """Refuses a shard that is not what metadata and index promise."""
        try:
            lengths = file[LENGTHS][:]
            frames, actions = file[self._frames_key].shape, file[ACTIONS].shape
        except (KeyError, OSError, RuntimeError) as error:
            raise damaged_shard(path, error) from error
        item_shape = self.metadata.latent_shape or self.metadata.image_shape
        promised = self._index.lengths[self._index.shards == shard]
        fits = np.array_equal(lengths, promised) and frames[2:] == tuple(item_shape)
        fits = fits and actions[2:] == tuple(self.metadata.action_shape) and frames[0] == actions[0] == len(lengths)
        if not fits or lengths.max(initial=0) > min(frames[1], actions[1]):
            raise ValueError(
                f"{path} holds {len(lengths)} episodes of frames {frames[2:]} and actions {actions[2:]}, which "
                f"contradicts the metadata and index of {self.data_dir}: restore them, or convert again."
            )

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_handles": OrderedDict()}


def collate_windows(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stacks items to a batch (B, T, ...) and leaves frames in channels-last memory: no transpose on the CPU.

    A model moves the uint8 batch to its device first and makes it contiguous there.
    """
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        if key == "pixel_values_videos":
            batch[key] = torch.stack([value.permute(0, 2, 3, 1) for value in values]).permute(0, 1, 4, 2, 3)
        else:
            batch[key] = torch.stack(values)
    return batch


def _read_rows(dataset: h5py.Dataset, row: int, start: int, stop: int) -> np.ndarray:
    out = np.empty((stop - start, *dataset.shape[2:]), dataset.dtype)
    if out.size:
        dataset.read_direct(out, np.s_[row, start:stop])
    return out


def _read_index(folder: Path, metadata: ShardMetadata) -> ShardIndex:
    """The folder's index; folders without one are read shard by shard."""
    present = {entry.name for entry in os.scandir(folder)}
    missing = [shard_name(shard) for shard in range(metadata.num_shards) if shard_name(shard) not in present]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}: restore the files, or "
            "convert again."
        )
    if INDEX_NAME in present:
        index = ShardIndex.read(folder / INDEX_NAME)
    else:
        index = ShardIndex.join([read_shard_index(folder / shard_name(s), s) for s in range(metadata.num_shards)])
    if len(index.lengths) != metadata.total_episodes:
        raise ValueError(
            f"{folder} promises {metadata.total_episodes} episodes in its metadata but holds {len(index.lengths)}: "
            "restore it, or convert again."
        )
    return index


def _swaps_colors(color_order: str | None, metadata: ShardMetadata, folder: Path) -> bool:
    if color_order not in (None, "rgb", "bgr"):
        raise ValueError(f"no color order {color_order!r}: choose rgb or bgr.")
    if color_order is None and metadata.color_order is None and metadata.relative_mode is not None:
        logger.warning(
            f"{folder} does not say its order of colors; folders that other converters made from LeRobot data tend to "
            "be BGR: look at `python -m dreamer_hf.data.inspect --preview`, and give color_order if they are."
        )
    return (color_order or metadata.color_order or "rgb") == "bgr"

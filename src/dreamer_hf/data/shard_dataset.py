"""Windows of episodes out of a folder of shards, as a map-style PyTorch dataset."""

import logging
import os
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import torch

from .shards import ACTIONS, IMAGES, LATENTS, LENGTHS, ShardFolder, ShardMetadata, damaged_shard, open_shard
from .windows import EpisodeWindows, WindowSpec

logger = logging.getLogger(__name__)
MAX_OPEN_SHARDS = 64


class ShardDataset(EpisodeWindows):
    """Windows out of shards; for the items see `EpisodeWindows`.

    Nothing but the index is read on construction; shards are opened (from the Hub: downloaded) on first use, anew in
    every process, so the object may be forked, spawned and pickled at any time. One object serves one thread.

    Args:
        data_dir: folder of shards, or "org/name" of a dataset repository on the Hub.
        window_size: T, frames of a window; None for whole episodes only (`episode`).
        stride: frames between the starts of successive windows.
        split: "train", "validation" or "all"; by episode, from `split_seed`.
        train_fraction: share of the episodes in "train".
        split_seed: seed of the split.
        action_offset: with 1, frame i carries the stored action i - 1 (the command that led to it), also the one just
            before the window, and the first frame of an episode none; with 0 the action stored beside it.
        color_order: "rgb" or "bgr", the order in which the shards hold colors; None: as their metadata say, else RGB.
            Items are RGB in any case.
        revision: branch, tag or commit on the Hub.

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
        self._handles: OrderedDict[int, h5py.File] = OrderedDict()
        self._handles_pid = os.getpid()
        self._complete_shapes()
        super().__init__(
            str(data_dir),
            self._index.lengths,
            self.metadata.action_shape[0],
            WindowSpec(window_size, stride, split, train_fraction, split_seed, action_offset),
        )

    @property
    def repo_id(self) -> str | None:
        """The dataset repository on the Hub that is read, None for a folder."""
        return self._folder.repo_id

    @property
    def source_episodes(self) -> np.ndarray:
        """(num_episodes,) number of each episode where it came from; -1 where the shards do not say."""
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
        """Frames a second, None where the shards do not say."""
        return self.metadata.fps

    @property
    def action_names(self) -> list[str] | None:
        """A label for each action dimension, None where the shards do not say."""
        return self.metadata.action_names

    @property
    def action_units(self) -> list[str] | None:
        """A unit for each action dimension, None where the shards do not say."""
        return self.metadata.action_units

    @property
    def action_stats(self) -> dict | None:
        """mean, std, min, max of the stored actions, lists of A; None where the shards do not say."""
        return self.metadata.action_stats

    def with_window(self, window_size: int | None, stride: int = 1) -> "ShardDataset":
        """The same episodes in windows of another size; nothing is read again."""
        other = super().with_window(window_size, stride)
        other._handles = OrderedDict()
        return other

    def write_index(self) -> None:
        """Writes the index into the folder, for folders of other writers, so that later opening is immediate."""
        self._index.write(self.data_dir)

    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        frames = self._read(self._frames_key, episode, start, stop)
        if self._frames_key == LATENTS:
            return {"latents": torch.from_numpy(frames)}
        frames = frames[..., ::-1].copy() if self._swap_colors else frames
        return {"pixel_values_videos": torch.from_numpy(frames).permute(0, 3, 1, 2)}

    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        return self._read(ACTIONS, episode, start, stop) if self._index.labelled[episode] else None

    def _read(self, key: str, episode: int, start: int, stop: int) -> np.ndarray:
        shard = int(self._index.shards[episode])
        file = self._open(shard)
        try:
            stored = file[key]
            out = np.empty((stop - start, *stored.shape[2:]), stored.dtype)
            if out.size:
                stored.read_direct(out, np.s_[int(self._rows[episode]), start:stop])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise damaged_shard(self._folder.shard(shard), error) from error
        return out

    def _complete_shapes(self) -> None:
        """Takes the shapes that the metadata leaves out from the first shard."""
        metadata = self.metadata
        self._frames_key = LATENTS if metadata.latent_shape is not None else IMAGES
        if metadata.action_shape is not None and (metadata.image_shape or metadata.latent_shape):
            return
        path = self._folder.shard(0)
        with open_shard(path) as file:
            try:
                self._frames_key = IMAGES if IMAGES in file else LATENTS
                frame_shape = file[self._frames_key].shape[2:]
                metadata.action_shape = file[ACTIONS].shape[2:]
            except (KeyError, OSError, RuntimeError) as error:
                raise damaged_shard(path, error) from error
        if self._frames_key == LATENTS:
            metadata.latent_shape, metadata.image_shape = frame_shape, None
        else:
            metadata.image_shape = frame_shape

    def _open(self, shard: int) -> h5py.File:
        """The open shard; handles belong to one process and only the latest ones stay open."""
        if self._handles_pid != os.getpid():
            self._handles, self._handles_pid = OrderedDict(), os.getpid()
        if shard not in self._handles:
            path = self._folder.shard(shard)
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
        first, last = np.searchsorted(self._index.shards, [shard, shard + 1])
        fits = np.array_equal(lengths, self._index.lengths[first:last]) and frames[2:] == tuple(item_shape)
        fits = fits and actions[2:] == tuple(self.metadata.action_shape) and frames[0] == actions[0] == len(lengths)
        if not fits or lengths.max(initial=0) > min(frames[1], actions[1]):
            raise ValueError(
                f"{path} holds {len(lengths)} episodes of frames {frames[2:]} and actions {actions[2:]}, which "
                f"contradicts the metadata and index of {self.data_dir}: restore them, or convert again."
            )

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_handles": OrderedDict()}


def _swaps_colors(color_order: str | None, metadata: ShardMetadata, folder: Path) -> bool:
    if color_order not in (None, "rgb", "bgr"):
        raise ValueError(f"no color order {color_order!r}: choose rgb or bgr.")
    if color_order is None and metadata.color_order is None and metadata.relative_mode is not None:
        logger.warning(
            f"{folder} does not say its order of colors; folders that other converters made from LeRobot data tend to "
            "be BGR: look at `python -m dreamer_hf.data.inspect_dataset --preview`, and give color_order if they are."
        )
    return (color_order or metadata.color_order or "rgb") == "bgr"

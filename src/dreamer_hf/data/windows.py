"""What every dataset of episode windows shares: splits, counting windows, and pairing frames with actions.

Shapes: T frames of a window, H height, W width, A action_dim, N_z latent tokens, d_z their width.
"""

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch.utils.data import Dataset

SPLITS = ("train", "validation", "all")


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


class EpisodeWindows(Dataset, ABC):
    """Windows of `window_size` frames that begin every `stride` frames and never cross an episode's end.

    Items are dictionaries:
        pixel_values_videos: (T, 3, H, W) uint8 RGB (a view of channels-last memory; see `collate_windows`), or
        latents: (T, N_z, d_z) float16, where shards hold latents;
        actions: (T, A) float32, raw, in the dataset's units, aligned: entry i belongs to frame i by `action_offset`;
        action_mask: (T,) bool, False where a frame has no action (its entry is 0).

    Args:
        name: what errors call the dataset.
        lengths: frames of every episode, all splits.
        action_dim: A.
        window_size, stride, split, train_fraction, split_seed, action_offset: see `ShardDataset`.
    """

    def __init__(
        self,
        name: str,
        lengths: np.ndarray,
        action_dim: int,
        window_size: int | None,
        stride: int,
        split: str,
        train_fraction: float,
        split_seed: int,
        action_offset: int,
    ):
        if action_offset < 0:
            raise ValueError(f"action_offset {action_offset} is negative: give 0, 1 or more.")
        self._name = name
        self.action_dim, self.action_offset = action_dim, action_offset
        self.episode_ids = split_episodes(len(lengths), split, train_fraction, split_seed)
        self.episode_lengths = np.asarray(lengths)[self.episode_ids]
        self._set_window(window_size, stride)

    @abstractmethod
    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        """The frames `start` to `stop` of an episode (numbered over all splits), under their key."""

    @abstractmethod
    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        """The stored actions `start` to `stop`, (stop - start, A) float32; None for an episode without actions."""

    @property
    def num_episodes(self) -> int:
        """Episodes in this split."""
        return len(self.episode_ids)

    def with_window(self, window_size: int | None, stride: int = 1) -> "EpisodeWindows":
        """The same episodes in windows of another size; nothing is read again."""
        other = copy.copy(self)
        other._set_window(window_size, stride)
        return other

    def __len__(self) -> int:
        return int(self._first_window[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        position, start = self._place(index)
        return self.window(position, start, self.window_size)

    def episode_of(self, index: int) -> int:
        """The episode that a window lies in, numbered over all splits."""
        return int(self.episode_ids[self._place(index)[0]])

    def episode(self, position: int) -> dict[str, torch.Tensor]:
        """The whole episode number `position` of this split, as an item."""
        if not 0 <= position < self.num_episodes:
            raise IndexError(f"episode {position} does not exist: this split has {self.num_episodes}.")
        return self.window(position, 0, int(self.episode_lengths[position]))

    def window(self, position: int, start: int, size: int) -> dict[str, torch.Tensor]:
        """The frames `start` to `start + size` of episode number `position` of this split, as an item."""
        if start < 0 or start + size > self.episode_lengths[position]:
            raise IndexError(
                f"episode {position} has {self.episode_lengths[position]} frames, not up to {start + size}."
            )
        episode = int(self.episode_ids[position])
        item = self._read_frames(episode, start, start + size)
        # Frame i carries the stored action i - offset: the first ones of an episode have none.
        first = max(0, start - self.action_offset)
        last = max(first, start + size - self.action_offset)
        stored = self._read_actions(episode, first, last)
        actions = torch.zeros(size, self.action_dim)
        mask = torch.zeros(size, dtype=torch.bool)
        if stored is not None and len(stored):
            if not np.isfinite(stored).all():
                raise ValueError(
                    f"episode {episode} of {self._name} has an action among frames {first} to {last - 1} that is not a "
                    "number or infinite: repair the recording and convert it again, or leave the episode out."
                )
            actions[size - len(stored) :] = torch.from_numpy(stored)
            mask[size - len(stored) :] = True
        return item | {"actions": actions, "action_mask": mask}

    def _place(self, index: int) -> tuple[int, int]:
        """The episode of a window, numbered in this split, and its first frame."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} does not exist: there are {len(self)}.")
        index %= len(self)
        position = int(np.searchsorted(self._first_window, index, side="right")) - 1
        return position, (index - int(self._first_window[position])) * self.stride

    def _set_window(self, window_size: int | None, stride: int) -> None:
        if stride < 1 or (window_size is not None and window_size < 1):
            raise ValueError(f"window_size {window_size} and stride {stride} must each be at least 1.")
        self.window_size, self.stride = window_size, stride
        counts = np.zeros(self.num_episodes, np.int64)
        if window_size is not None:
            counts = np.maximum(0, (self.episode_lengths.astype(np.int64) - window_size) // stride + 1)
            if counts.sum() == 0:
                raise ValueError(
                    f"no episode in {self._name} is as long as a window of {window_size} frames (the longest has "
                    f"{self.episode_lengths.max()}): choose a shorter window."
                )
        self._first_window = np.concatenate([[0], np.cumsum(counts)])


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

"""Windows of episodes: splits, counting windows, and pairing frames with actions, for every kind of storage.

Shapes: T frames of a window, H height, W width, A action_dim, S state_dim, N_z latent tokens, d_z their width.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from .labels import Labels

SPLITS = ("train", "validation", "all")


@dataclass(frozen=True)
class WindowSpec:
    """Which windows of which episodes a dataset consists of, and how actions are aligned; see `ShardDataset`.

    Raises:
        ValueError: an impossible value.
    """

    window_size: int | None
    stride: int = 1
    split: str = "train"
    train_fraction: float = 0.9
    split_seed: int = 42
    action_offset: int = 1

    def __post_init__(self):
        if self.stride < 1 or (self.window_size is not None and self.window_size < 1):
            raise ValueError(
                f"expected a window_size and a stride of at least 1, got {self.window_size} and {self.stride}."
            )
        if self.split not in SPLITS:
            raise ValueError(f"expected one of the splits {', '.join(SPLITS)}, got {self.split!r}.")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"expected a train_fraction above 0 and up to 1, got {self.train_fraction}.")
        if self.action_offset < 0:
            raise ValueError(f"expected an action_offset of 0, 1 or more, got {self.action_offset}.")

    def episodes(self, num_episodes: int) -> np.ndarray:
        """Return the numbers of the episodes in the split, increasing; they depend on the spec and `num_episodes`
        only.

        Raises:
            ValueError: the split has no episode.
        """
        if self.split == "all":
            return np.arange(num_episodes)
        order = np.random.default_rng(self.split_seed).permutation(num_episodes)
        count = max(1, round(self.train_fraction * num_episodes))
        chosen = np.sort(order[:count] if self.split == "train" else order[count:])
        if len(chosen) == 0:
            raise ValueError(
                f"the {self.split} split of {num_episodes} episodes with train_fraction {self.train_fraction} is "
                "empty: lower the fraction, or record more episodes."
            )
        return chosen


class EpisodeWindows(Dataset, ABC):
    """Windows of `window_size` frames that start every `stride` frames and never cross the end of an episode.

    Items are dictionaries:
        pixel_values_videos: (T, 3, H, W) uint8 RGB (a view of channels-last memory; see `collate_windows`), with V
            cameras (T, V, 3, H, W), or
        latents: (T, N_z, d_z) float16, if the storage holds latents;
        actions: (T, A) float32, raw, in the dataset's units, aligned: entry i belongs to frame i by `action_offset`;
        action_mask: (T,) bool, False where a frame has no action (its entry is 0);
        states: (T, S) float32, in the dataset's units: entry i is the state in frame i; only if there is a state;
        state_mask: (T,) bool, False where a frame has no state (its entry is 0);
        rewards: (T, Q) float32, what arriving at each frame was worth for each of Q tasks; only with labels;
        reward_mask: (T, Q) bool, False where that is unknown, and in the first frame of an episode (its entry is 0);
        continues: (T,) float32, 0 where the episode ended at a frame for good, otherwise 1; only if the labels say.

    Args:
        name: the dataset in error messages.
        lengths: number of frames of every episode, of all splits.
        action_dim: A.
        spec: the windows.
        state_dim: S; 0 (the default) for items without states.
    """

    def __init__(self, name: str, lengths: np.ndarray, action_dim: int, spec: WindowSpec, state_dim: int = 0):
        self._name, self._all_lengths = name, np.asarray(lengths)
        self.action_dim, self.state_dim = action_dim, state_dim
        self.episode_ids = spec.episodes(len(lengths))
        self.episode_lengths = self._all_lengths[self.episode_ids]
        self._set_spec(spec)

    camera_names: list[str] | None = None
    """Names of the cameras, if there are several."""
    labels: Labels | None = None
    """Rewards of the episodes; see `with_labels`."""

    @abstractmethod
    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        """Return the frames `start` to `stop` of an episode (numbered over all splits), under their key."""

    @abstractmethod
    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        """Return the stored actions `start` to `stop`, (stop - start, A) float32; None if the episode has none."""

    def _read_states(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        """Return the states `start` to `stop`, (stop - start, S) float32; None if the episode has none."""
        return None

    @property
    def window_size(self) -> int | None:
        """T, the number of frames of a window; None for whole episodes only."""
        return self.spec.window_size

    @property
    def stride(self) -> int:
        """Number of frames between the starts of successive windows."""
        return self.spec.stride

    @property
    def action_offset(self) -> int:
        """Frame i carries the stored action i - `action_offset`."""
        return self.spec.action_offset

    @property
    def num_episodes(self) -> int:
        """Number of episodes in this split."""
        return len(self.episode_ids)

    def with_window(self, window_size: int | None, stride: int = 1) -> "EpisodeWindows":
        """Return the same episodes in windows of another size; nothing is read again."""
        other = copy.copy(self)
        other._set_spec(replace(self.spec, window_size=window_size, stride=stride))
        return other

    def with_labels(self, labels: Labels) -> "EpisodeWindows":
        """Return the same windows with rewards.

        Raises:
            ValueError: the labels are not those of these episodes.
        """
        if [len(rewards) for rewards in labels.rewards] != self._all_lengths.tolist():
            raise ValueError(
                f"the labels have other episodes than {self._name}, or of other lengths: make them again with dreamer "
                "label."
            )
        other = self.with_window(self.window_size, self.stride)
        other.labels = labels
        return other

    def __len__(self) -> int:
        return int(self._first_window[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        position, start = self._place(index)
        return self.window(position, start, self.window_size)

    def episode_of(self, index: int) -> int:
        """Return the number, over all splits, of the episode that a window belongs to."""
        return int(self.episode_ids[self._place(index)[0]])

    def episode(self, position: int) -> dict[str, torch.Tensor]:
        """Return the whole episode number `position` of this split, as an item."""
        if not 0 <= position < self.num_episodes:
            raise IndexError(f"episode {position} does not exist: this split has {self.num_episodes}.")
        return self.window(position, 0, int(self.episode_lengths[position]))

    def window(self, position: int, start: int, size: int) -> dict[str, torch.Tensor]:
        """Return the frames `start` to `start + size` of episode number `position` of this split, as an item."""
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
        item["actions"], item["action_mask"] = self._padded("action", stored, size, self.action_dim, episode, first)
        if self.state_dim:
            stored = self._read_states(episode, start, start + size)
            states = self._padded("state", stored, size, self.state_dim, episode, start)
            item["states"], item["state_mask"] = states
        return item | self._rewards(episode, start, start + size)

    def _rewards(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        """Return the rewards of a window; nothing without labels."""
        if self.labels is None:
            return {}
        rewards = torch.from_numpy(self.labels.rewards[episode][start:stop])
        mask = ~torch.isnan(rewards)
        if start == 0:  # Nothing led to the first frame.
            mask[0] = False
        item = {"rewards": rewards.where(mask, torch.zeros(())), "reward_mask": mask}
        if self.labels.terminals is not None:
            item["continues"] = 1 - torch.from_numpy(self.labels.terminals[episode][start:stop]).float()
        return item

    def _padded(
        self, kind: str, stored: np.ndarray | None, size: int, width: int, episode: int, first: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the actions or states of a window, with zeros in front for those that are missing, and their mask.

        Args:
            kind: "action" or "state".
            stored: the last ones of the window; None if the episode has none.
            size, width: T and the number of components.
            episode, first: where they come from.

        Raises:
            ValueError: a value that is not finite.
        """
        vectors, mask = torch.zeros(size, width), torch.zeros(size, dtype=torch.bool)
        if stored is not None and len(stored):
            if not np.isfinite(stored).all():
                article = "an" if kind == "action" else "a"
                raise ValueError(
                    f"episode {episode} of {self._name} has {article} {kind} among frames {first} to "
                    f"{first + len(stored) - 1} that is not a number or infinite: repair the recording and convert it "
                    "again, or leave the episode out."
                )
            vectors[size - len(stored) :] = torch.from_numpy(stored)
            mask[size - len(stored) :] = True
        return vectors, mask

    def _place(self, index: int) -> tuple[int, int]:
        """Return the episode of a window, numbered in this split, and its first frame."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} does not exist: there are {len(self)}.")
        index %= len(self)
        position = int(np.searchsorted(self._first_window, index, side="right")) - 1
        return position, (index - int(self._first_window[position])) * self.stride

    def _set_spec(self, spec: WindowSpec) -> None:
        self.spec = spec
        counts = np.zeros(self.num_episodes, np.int64)
        if spec.window_size is not None:
            counts = np.maximum(0, (self.episode_lengths.astype(np.int64) - spec.window_size) // spec.stride + 1)
            if counts.sum() == 0:
                raise ValueError(
                    f"no episode in {self._name} is as long as a window of {spec.window_size} frames (the longest has "
                    f"{self.episode_lengths.max()}): choose a shorter window."
                )
        self._first_window = np.concatenate([[0], np.cumsum(counts)])


class EachCamera(Dataset):
    """The windows of a dataset of V cameras, those of each camera as windows of one; see `EpisodeWindows`.

    Window i V + v is that of camera v in window i.
    """

    def __init__(self, windows: EpisodeWindows):
        self.windows = windows
        self.num_cameras = len(windows.camera_names)

    def with_window(self, window_size: int | None, stride: int = 1) -> "EachCamera":
        """Return the same episodes in windows of another size; nothing is read again."""
        return EachCamera(self.windows.with_window(window_size, stride))

    def episode_of(self, index: int) -> int:
        """Return the number, over all splits, of the episode that a window belongs to."""
        return self.windows.episode_of(index // self.num_cameras)

    def __len__(self) -> int:
        return len(self.windows) * self.num_cameras

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = self.windows[index // self.num_cameras]
        return item | {"pixel_values_videos": item["pixel_values_videos"][:, index % self.num_cameras]}


def collate_windows(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack items to a batch (B, T, ...) and leave frames in channels-last memory, without a transpose on the CPU.

    A model moves the uint8 batch to its device first and makes it contiguous there.
    """
    batch = {}
    for key in items[0]:
        values = [item[key] for item in items]
        if key == "pixel_values_videos":
            batch[key] = torch.stack([value.movedim(-3, -1) for value in values]).movedim(-1, -3)
        else:
            batch[key] = torch.stack(values)
    return batch

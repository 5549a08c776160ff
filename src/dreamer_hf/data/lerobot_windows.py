"""Windows straight out of a LeRobotDataset, without converting it: for small sets and first looks."""

from pathlib import Path

import numpy as np
import torch

from .action_statistics import ActionStatistics
from .conversion_options import ConversionOptions
from .sources.lerobot_source import open_lerobot
from .windows import EpisodeWindows


class LeRobotWindows(EpisodeWindows):
    """The items of `ShardDataset` from LeRobot's own files (format v3.0); for the items see `EpisodeWindows`.

    Every window is decoded anew from video: many times slower than shards. Actions are kept in memory.

    Args:
        repo_id: the dataset's name.
        window_size, stride, split, train_fraction, split_seed, action_offset: as for `ShardDataset`, and with the same
            result as shards converted from the same episodes with the same options.
        local_dir, image_key, action_key, episodes, revision: which data, see `open_lerobot`.
        options: frame rate and size, and whether actions are relative; default: all as recorded.

    Raises:
        FileNotFoundError, ValueError: as `open_lerobot` and `ShardDataset`.
    """

    def __init__(
        self,
        repo_id: str,
        window_size: int | None,
        stride: int = 1,
        split: str = "train",
        train_fraction: float = 0.9,
        split_seed: int = 42,
        action_offset: int = 1,
        local_dir: str | Path | None = None,
        image_key: str | None = None,
        action_key: str = "action",
        episodes: str | None = None,
        revision: str | None = None,
        options: ConversionOptions | None = None,
    ):
        options = options or ConversionOptions()
        self._source = open_lerobot(repo_id, local_dir, image_key, action_key, episodes, revision)
        self._transform, self._frame_step = options.transform, options.frame_step(self._source.fps)
        recorded = self._source.actions(self._source.numbers)
        self._actions = [options.prepare_actions(actions[:: self._frame_step]) for actions in recorded]
        statistics = ActionStatistics.of(np.concatenate(self._actions))
        self.action_stats = statistics.to_dict()
        self.action_names, self.action_units = self._source.action_names, self._source.action_units
        self.fps = self._source.fps / self._frame_step
        super().__init__(
            repo_id,
            np.array([len(actions) for actions in self._actions]),
            self._source.action_dim,
            window_size,
            stride,
            split,
            train_fraction,
            split_seed,
            action_offset,
        )
        self.image_size, self.num_channels = tuple(self._read_frames(0, 0, 1)["pixel_values_videos"].shape[-2:]), 3

    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        kept = range(start * self._frame_step, stop * self._frame_step, self._frame_step)
        frames = np.stack(
            [self._transform(frame) for frame in self._source.frames(self._source.numbers[episode], kept)]
        )
        return {"pixel_values_videos": torch.from_numpy(frames).permute(0, 3, 1, 2)}

    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        return self._actions[episode][start:stop]

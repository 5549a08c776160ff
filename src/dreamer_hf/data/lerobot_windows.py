"""Windows straight out of a LeRobotDataset, without converting it: for small sets, first looks, and to begin dreams from."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .action_data import ActionStatistics
from .conversion_options import ConversionOptions
from .frame_transform import FrameTransform
from .sources.lerobot_source import open_lerobot, read_info
from .windows import EpisodeWindows, WindowSpec


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
            WindowSpec(window_size, stride, split, train_fraction, split_seed, action_offset),
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


def is_lerobot(path: Path) -> bool:
    """Whether a LeRobotDataset lies there."""
    return (path / "meta" / "info.json").is_file()


def opener_for_world(
    path: Path,
    dynamics_config,
    frame_size: tuple[int, int],
    image_key: str | None = None,
    action_key: str = "action",
) -> Callable[..., LeRobotWindows]:
    """Finds out how a LeRobotDataset suits a world, and returns what opens whole episodes of it so, given a `split`.

    Each action component is taken as recorded, or as the difference to the frame before, whichever spreads more like
    the same component in the world's data. A component that the world knows to be absolute is taken as recorded.

    Args:
        path: the dataset's folder.
        dynamics_config: the world's `DreamerDynamicsConfig`.
        frame_size: height and width of its frames.
        image_key: camera, where there are several.
        action_key: feature that holds the actions.

    Raises:
        ValueError: a frame rate that is no multiple of the world's; or as `LeRobotWindows`.
    """
    fps, ours = float(read_info(path, str(path))["fps"]), dynamics_config.fps
    if ours is not None and abs(fps / ours - max(1, round(fps / ours))) > 0.005:
        raise ValueError(
            f"{path} has {fps:g} frames/s, no multiple of the world's {ours:g}: begin from a video of it, or from other "
            "data."
        )
    height, width = frame_size

    offset = dynamics_config.action_offset
    open_with = partial(
        LeRobotWindows,
        str(path),
        None,
        action_offset=offset,
        local_dir=path,
        image_key=image_key,
        action_key=action_key,
    )
    options = ConversionOptions(target_fps=ours, transform=FrameTransform(width, height))
    relative = replace(options, relative_actions=True)
    stats = [open_with(split="all", options=form).action_stats for form in (options, relative)]
    absolute = _absolute_components(*stats, dynamics_config)
    if len(absolute) < len(stats[0]["std"]):
        options = replace(relative, absolute_action_dims=absolute)
    return partial(open_with, options=options)


def _absolute_components(recorded: dict, relative: dict, config) -> tuple[int, ...]:
    """The action components whose spread in the world's data is rather that of recorded actions than of differences;
    all of them, where the world does not say or has another number of components."""
    spreads, ours = [np.maximum(stats["std"], 1e-9) for stats in (recorded, relative)], config.action_stats
    if ours is None or len(ours["std"]) != len(spreads[0]):
        return tuple(range(len(spreads[0])))
    far = [np.abs(np.log(spread / np.maximum(ours["std"], 1e-9))) for spread in spreads]
    absolute = far[0] <= far[1]
    if config.relative_actions is not None:
        absolute |= ~np.array(config.relative_actions)
    return tuple(np.flatnonzero(absolute).tolist())

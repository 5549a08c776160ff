"""Windows directly from a LeRobotDataset, without converting it: for small sets, first looks, and start frames."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .action_data import ActionStatistics
from .conversion_options import ConversionOptions
from .episodes import NO_STATE
from .frame_transform import FrameTransform
from .sources.lerobot_info import flatten_names, read_info
from .sources.lerobot_source import LeRobotSelection
from .windows import EpisodeWindows, WindowSpec


class LeRobotWindows(EpisodeWindows):
    """The items of `ShardDataset` from LeRobot's own files (format v3.0); for the items see `EpisodeWindows`.

    The video of every window is decoded each time: many times slower than shards. Actions and states are kept
    in memory.

    Args:
        data: name or folder of the dataset, or a `LeRobotSelection`, which also chooses cameras, actions and episodes.
        window_size, stride, split, train_fraction, split_seed, action_offset: as for `ShardDataset`, and with the same
            result as shards converted from the same episodes with the same options.
        options: frame rate and size, and how actions are stored; default: all as recorded.

    Raises:
        FileNotFoundError, ValueError: as `LeRobotSelection.open` and `ShardDataset`.
    """

    def __init__(
        self,
        data: str | Path | LeRobotSelection,
        window_size: int | None,
        stride: int = 1,
        split: str = "train",
        train_fraction: float = 0.9,
        split_seed: int = 42,
        action_offset: int = 1,
        options: ConversionOptions | None = None,
    ):
        selection = data if isinstance(data, LeRobotSelection) else LeRobotSelection(str(data))
        options = options or ConversionOptions()
        self._source = selection.open()
        self._source.check()
        self.camera_names = self._source.camera_names
        options.check_actions(self._source.action_dim)
        self._transform, self._frame_step = options.transform, options.frame_step(self._source.fps)
        recorded = self._source.actions(self._source.numbers)
        self._actions = [options.prepare_actions(actions, self._frame_step) for actions in recorded]
        self.action_stats = ActionStatistics.of(np.concatenate(self._actions)).to_dict()
        self.action_names, self.action_units = self._source.action_names, self._source.action_units
        state, self._states = self._source.state, None
        if state is not None:
            recorded = self._source.states(self._source.numbers)
            self._states = [options.prepare_states(states, self._frame_step) for states in recorded]
            self.state_stats = ActionStatistics.of(np.concatenate(self._states)).to_dict()
            self.state_names, self.state_units = state.names, state.units
        self.fps = self._source.fps / self._frame_step
        super().__init__(
            selection.repo_id,
            np.array([len(actions) for actions in self._actions]),
            self._source.action_dim,
            WindowSpec(window_size, stride, split, train_fraction, split_seed, action_offset),
            0 if state is None else state.dim,
        )
        self.image_size, self.num_channels = tuple(self._read_frames(0, 0, 1)["pixel_values_videos"].shape[-2:]), 3

    def _read_frames(self, episode: int, start: int, stop: int) -> dict[str, torch.Tensor]:
        kept = range(start * self._frame_step, stop * self._frame_step, self._frame_step)
        frames = self._source.frames(self._source.numbers[episode], kept)
        if self.camera_names:
            frames = [np.stack([self._transform(view) for view in views]) for views in frames]
        else:
            frames = [self._transform(frame) for frame in frames]
        return {"pixel_values_videos": torch.from_numpy(np.stack(frames)).movedim(-1, -3)}

    def _read_actions(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        return self._actions[episode][start:stop]

    def _read_states(self, episode: int, start: int, stop: int) -> np.ndarray | None:
        return self._states[episode][start:stop]


def is_lerobot(path: Path) -> bool:
    """Return whether a folder holds a LeRobotDataset."""
    return (path / "meta" / "info.json").is_file()


def opener_for_world(
    path: Path,
    dynamics_config,
    frame_size: tuple[int, int],
    image_key: str | None = None,
    action_key: str = "action",
) -> Callable[..., LeRobotWindows]:
    """Find out how a LeRobotDataset suits a world; return a function that opens whole episodes of it, given a `split`.

    Each action component is taken as recorded, as the difference to the frame before, or as a displacement, whichever
    spreads most like the same component in the world's data. One that the world knows to be absolute is taken as
    recorded.

    Args:
        path: the dataset's folder.
        dynamics_config: the world's `DreamerDynamicsConfig`.
        frame_size: height and width of its frames.
        image_key: camera, if there are several.
        action_key: feature that holds the actions. If the dataset has none of this name, it is the feature whose
            dimensions are named like the actions of the world.

    Raises:
        ValueError: a frame rate that is not a multiple of the world's; or as `LeRobotWindows`.
    """
    info = read_info(path, str(path))
    fps, ours = float(info["fps"]), dynamics_config.fps
    if ours is not None and abs(fps / ours - max(1, round(fps / ours))) > 0.005:
        raise ValueError(
            f"{path} has {fps:g} frames/s, which is not a multiple of the world's {ours:g}: start from a video of it, "
            "or from other data."
        )
    action_key = _find_actions(info, action_key, dynamics_config)
    image_key = image_key or _find_cameras(info, dynamics_config.camera_names)
    height, width = frame_size
    state_key = None if dynamics_config.state_dim else NO_STATE
    selection = LeRobotSelection(str(path), path, image_key, action_key, state_key=state_key)
    open_with = partial(LeRobotWindows, selection, None, action_offset=dynamics_config.action_offset)
    options = ConversionOptions(target_fps=ours, transform=FrameTransform(width, height))
    return partial(open_with, options=_like_the_world(open_with, options, dynamics_config))


def _find_cameras(info: dict, names: list[str] | None) -> str | None:
    """Return the cameras with the names of a world's, joined by commas; None for a world of one camera.

    Raises:
        ValueError: the dataset lacks one.
    """
    if not names:
        return None
    keys = [key for key, item in info["features"].items() if item["dtype"] in ("video", "image")]
    found = {name: [key for key in keys if name in (key, re.split(r"[./]", key)[-1])] for name in names}
    missing = [name for name, alike in found.items() if len(alike) != 1]
    if missing:
        raise ValueError(
            f"the world has the cameras {', '.join(names)}, but the dataset has {', '.join(keys)}: name those that "
            "take their place with --image_key a,b."
        )
    return ",".join(alike[0] for alike in found.values())


def _find_actions(info: dict, action_key: str, config) -> str:
    """Return `action_key`, or, if it is missing, the only feature with dimensions named like the world's actions."""
    features, ours = info["features"], config.action_names
    if action_key in features or not ours:
        return action_key
    alike = [key for key, item in features.items() if flatten_names(item.get("names"), len(ours)) == list(ours)]
    return alike[0] if len(alike) == 1 else action_key


def _like_the_world(open_with: Callable[..., LeRobotWindows], options: ConversionOptions, config) -> ConversionOptions:
    """Return `options` with each action component stored as the world's data store it.

    That is as recorded, as differences, or as displacements that are added up, whichever spreads most alike; as
    recorded if the world does not say, or has another number of components.
    """
    forms = [options, replace(options, relative_actions=True), replace(options, displacement_action_dims="all")]
    spreads = [np.maximum(open_with(split="all", options=form).action_stats["std"], 1e-9) for form in forms]
    if config.action_stats is None or len(config.action_stats["std"]) != len(spreads[0]):
        return options
    ours = np.maximum(config.action_stats["std"], 1e-9)
    nearest = np.argmin([np.abs(np.log(spread / ours)) for spread in spreads], axis=0)
    if config.relative_actions is not None:
        nearest[~np.array(config.relative_actions)] = 0
    as_recorded, differences, sums = (tuple(np.flatnonzero(nearest == form).tolist()) for form in range(3))
    if differences:
        options = replace(options, relative_actions=True, absolute_action_dims=tuple(sorted(as_recorded + sums)))
    return replace(options, displacement_action_dims=sums)

"""LeRobot data as a trained world knows such: at its frame rate and size, with actions as it takes them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .conversion_options import ConversionOptions
from .frame_transform import FrameTransform
from .lerobot_windows import LeRobotWindows
from .sources.lerobot_source import read_info


def is_lerobot(path: Path) -> bool:
    """Whether a LeRobotDataset lies there."""
    return (path / "meta" / "info.json").is_file()


def opener_for_world(
    path: Path, dynamics_config, frame_size: tuple[int, int], image_key: str | None = None
) -> Callable[..., LeRobotWindows]:
    """Finds out how a LeRobotDataset suits a world, and returns what opens whole episodes of it so, given a `split`.

    Each action component is taken as recorded, or as the difference to the frame before, whichever spreads more like
    the same component in the world's data.

    Args:
        path: the dataset's folder.
        dynamics_config: the world's `DreamerDynamicsConfig`.
        frame_size: height and width of its frames.
        image_key: camera, where there are several.

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
    open_with = partial(LeRobotWindows, str(path), None, action_offset=offset, local_dir=path, image_key=image_key)
    options = ConversionOptions(target_fps=ours, transform=FrameTransform(width, height))
    relative = replace(options, relative_actions=True)
    stats = [open_with(split="all", options=form).action_stats for form in (options, relative)]
    absolute = _absolute_components(*stats, dynamics_config.action_stats)
    if len(absolute) < len(stats[0]["std"]):
        options = replace(relative, absolute_action_dims=absolute)
    return partial(open_with, options=options)


def _absolute_components(recorded: dict, relative: dict, ours: dict | None) -> tuple[int, ...]:
    """The action components whose spread in the world's data is rather that of recorded actions than of differences;
    all of them, where the world does not say or has another number of components."""
    spreads = [np.maximum(stats["std"], 1e-9) for stats in (recorded, relative)]
    if ours is None or len(ours["std"]) != len(spreads[0]):
        return tuple(range(len(spreads[0])))
    far = [np.abs(np.log(spread / np.maximum(ours["std"], 1e-9))) for spread in spreads]
    return tuple(np.flatnonzero(far[0] <= far[1]).tolist())

"""The first frames of data, for dreams to start from: of a shard folder, a LeRobot dataset, a video or an image.

What is returned are the fields of `StartFrames`: uint8 frames (S, C, 3, H, W), float32 actions (S, C, A) and a bool
mask (S, C), False where a frame has no action; and, if the data have states, float32 states (S, C, D) with another
mask. S starts, C context frames, A action dimensions, D state dimensions, H height, W width.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .frame_transform import FrameTransform
from .lerobot_windows import is_lerobot, opener_for_world
from .shard_dataset import ShardDataset
from .sources.lerobot_info import local_root
from .video_decoding import read_first_frames
from .windows import EpisodeWindows

SOURCES = "from a shard folder, a LeRobot dataset, a video or an image"
MAX_STARTS = 8
CONTEXT_FRAMES = 8
MIN_EPISODES_TO_SPLIT = 10


def read_starts(path: str | os.PathLike, config, image_key: str | None, action_key: str) -> dict[str, torch.Tensor]:
    """Read the first frames of some data; arguments and errors as in `read_start_frames`."""
    if not Path(path).exists():
        path = local_root(str(path), None) or path
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no start frames at {path}: give some {SOURCES}.")
    if is_lerobot(path):
        size = config.tokenizer_config.frame_size
        return starts_of_dataset(
            _held_out(opener_for_world(path, config.dynamics_config, size, image_key, action_key))
        )
    if path.is_dir():
        offset = config.dynamics_config.action_offset
        return starts_of_dataset(_held_out(partial(ShardDataset, path, window_size=None, action_offset=offset)))
    return _starts_of_file(path, config)


def starts_of_dataset(
    dataset: EpisodeWindows,
    num_starts: int = MAX_STARTS,
    context_frames: int = CONTEXT_FRAMES,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Return the first frames of episodes spread evenly over a dataset; arguments as in `starts_from_dataset`."""
    if dataset.image_size is None and decode is None:
        raise ValueError(f"{dataset.data_dir} holds latents: give the folder of frames that they were made from.")
    context_frames = min(context_frames, int(dataset.episode_lengths.max()))
    if context_frames == 0:
        raise ValueError(f"{dataset.data_dir} holds no frame: give another folder.")
    long_enough = np.flatnonzero(dataset.episode_lengths >= context_frames)
    chosen = long_enough[np.unique(np.linspace(0, len(long_enough) - 1, num_starts).round().astype(int))]
    items = [dataset.window(int(position), 0, context_frames) for position in chosen]
    for item in items if decode is not None else ():
        item["pixel_values_videos"] = decode(item["latents"])
    names = ["pixel_values_videos", "actions", "action_mask"]
    names += ["states", "state_mask"] if dataset.state_dim else []
    return {name: torch.stack([item[name] for item in items]).contiguous() for name in names}


def _held_out(open_split: Callable[..., EpisodeWindows]) -> EpisodeWindows:
    """Open the episodes that training holds out, or all of them if there are too few for it to hold some out."""
    dataset = open_split(split="all")
    return open_split(split="validation") if dataset.num_episodes >= MIN_EPISODES_TO_SPLIT else dataset


def _starts_of_file(path: Path, config) -> dict[str, torch.Tensor]:
    """Return the first frames of a video, or an image, resized as training data are; they have no actions."""
    names = config.dynamics_config.camera_names
    if names:
        raise ValueError(
            f"{path} shows one camera, but the world has {', '.join(names)}: start from a LeRobot dataset or a folder "
            "of shards that have all of them."
        )
    height, width = config.tokenizer_config.frame_size
    frames = read_first_frames(path, CONTEXT_FRAMES, config.dynamics_config.fps, FrameTransform(width, height))
    return {
        "pixel_values_videos": torch.from_numpy(frames).permute(0, 3, 1, 2)[None].contiguous(),
        "actions": torch.zeros(1, len(frames), config.dynamics_config.action_dim),
        "action_mask": torch.zeros(1, len(frames), dtype=torch.bool),
    }

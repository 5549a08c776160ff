"""The frames that dreams begin from: kept in a world's folder, or read from shards, LeRobot data, a video or an image.

S starts, C context frames each, A action dimensions, H height, W width.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .data import EpisodeWindows, ShardDataset
from .data.files import replacing
from .data.frame_transform import FrameTransform
from .data.lerobot_windows import is_lerobot, opener_for_world
from .data.sources.lerobot_source import local_root
from .data.video_decoding import read_first_frames
from .worlds import resolve_model

START_FRAMES_NAME = "start_frames.safetensors"
SOURCES = "from a shard folder, a LeRobot dataset, a video or an image"
MAX_STARTS = 8
CONTEXT_FRAMES = 8
MIN_EPISODES_TO_SPLIT = 10


@dataclass
class StartFrames:
    """Context frames with their actions, as `DreamerWorldModel.start_rollout` takes them.

    Attributes:
        pixel_values_videos: uint8 (S, C, 3, H, W) RGB.
        actions: float32 (S, C, A), raw and aligned: `actions[:, t]` is the one denoised together with frame t.
        action_mask: bool (S, C), False where a frame has no action.

    Raises:
        ValueError: when shapes or types are others.
    """

    pixel_values_videos: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor

    def __post_init__(self):
        frames, actions, mask = self.pixel_values_videos, self.actions, self.action_mask
        shapes_agree = frames.ndim == 5 and actions.ndim == 3 and frames.shape[:2] == actions.shape[:2] == mask.shape
        types_agree = (frames.dtype, actions.dtype, mask.dtype) == (torch.uint8, torch.float32, torch.bool)
        if not shapes_agree or not types_agree or frames.shape[2] != 3 or 0 in frames.shape[:2]:
            raise ValueError(
                "start frames must be uint8 (S, C, 3, H, W) with float32 actions (S, C, A) and a bool mask (S, C), but "
                f"are {frames.dtype} {tuple(frames.shape)}, {actions.dtype} {tuple(actions.shape)} and "
                f"{mask.dtype} {tuple(mask.shape)}."
            )

    def __len__(self) -> int:
        return len(self.pixel_values_videos)

    def __getitem__(self, index: int) -> "StartFrames":
        """Return one start, as a batch of one.

        Raises:
            IndexError: the index is not in [-S, S).
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} start frames: expected an index below {len(self)}, got {index}.")
        return self.select([index % len(self)])

    def select(self, indices: Sequence[int]) -> "StartFrames":
        """Return the starts with these indices, in this order.

        Raises:
            ValueError: an index is not in [0, S).
        """
        if not np.isin(indices, np.arange(len(self))).all():
            raise ValueError(f"start_index {list(indices)} names no start: choose from 0 to {len(self) - 1}.")
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return StartFrames(self.pixel_values_videos[rows], self.actions[rows], self.action_mask[rows])

    def to(self, device: torch.device | str) -> "StartFrames":
        """The same on another device."""
        return StartFrames(
            *(tensor.to(device) for tensor in (self.pixel_values_videos, self.actions, self.action_mask))
        )

    def check_fits(self, config) -> None:
        """Raises a ValueError unless the sizes are those of a `DreamerWorldConfig`."""
        ours, action_dim = config.tokenizer_config.frame_size, config.dynamics_config.action_dim
        if tuple(self.pixel_values_videos.shape[-2:]) != ours:
            height, width = self.pixel_values_videos.shape[-2:]
            raise ValueError(
                f"the start frames are {height}x{width} pixels but the world dreams {ours[0]}x{ours[1]}: "
                "convert the data at that size, or start from a LeRobot dataset, a video or an image, which are resized."
            )
        if self.actions.shape[-1] != action_dim:
            raise ValueError(
                f"the start frames come with actions of width {self.actions.shape[-1]} but the world takes "
                f"{action_dim}: choose data of the robot that the world was trained on."
            )


def save_start_frames(folder: str | os.PathLike, starts: StartFrames) -> Path:
    """Writes `start_frames.safetensors` into a world's folder, whole or not at all, and returns its path."""
    path = Path(folder) / START_FRAMES_NAME
    tensors = {name: tensor.cpu().contiguous() for name, tensor in vars(starts).items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return path


def load_start_frames(path_or_repo: str | os.PathLike) -> StartFrames:
    """Reads the start frames that a world carries.

    Args:
        path_or_repo: the world's folder, its repository on the Hub, or the name of a shipped world.

    Raises:
        ValueError: when it carries none, or the file is damaged.
    """
    path = _find_start_frames(path_or_repo)
    try:
        tensors = load_file(path)
        return StartFrames(*(tensors[name] for name in ("pixel_values_videos", "actions", "action_mask")))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again, or give other start frames.") from error


def starts_from_dataset(
    dataset: EpisodeWindows,
    num_starts: int = MAX_STARTS,
    context_frames: int = CONTEXT_FRAMES,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> StartFrames:
    """Takes the first frames of episodes spread evenly over a dataset.

    Args:
        dataset: whose episodes to begin from; its `action_offset` must be the world's.
        num_starts: S, at most; fewer where the dataset has fewer episodes.
        context_frames: C, at most; fewer where every episode is shorter.
        decode: latents (C, N_z, d_z) -> uint8 frames (C, 3, H, W), for shards that hold latents.

    Raises:
        ValueError: when the shards hold latents and there is no `decode`, or no frame.
    """
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
    names = ("pixel_values_videos", "actions", "action_mask")
    return StartFrames(*(torch.stack([item[name] for item in items]).contiguous() for name in names))


def _find_start_frames(path_or_repo: str | os.PathLike) -> Path:
    path = Path(resolve_model(path_or_repo))
    if path.is_dir():
        path = path / START_FRAMES_NAME
        found = path.is_file()
    else:
        try:
            path, found = Path(hf_hub_download(str(path_or_repo), START_FRAMES_NAME)), True
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
            found = False
    if not found:
        raise ValueError(f"{path_or_repo} carries no {START_FRAMES_NAME}: give start frames, {SOURCES}.")
    return path


def read_start_frames(path: str | os.PathLike, config, image_key: str | None = None) -> StartFrames:
    """Reads start frames from what a user has at hand.

    Args:
        path: a folder of HDF5 shards or a LeRobotDataset (the first frames of up to 8 held-out episodes; of LeRobot's, the
            folder, or the name of one recorded on this machine), a video (its first frames), or an image. All but shards
            are brought to the world's frame rate and stretched to its size. Videos and images have no actions. LeRobot's
            are taken as recorded or as their differences, for each component what the world's statistics look like.
        config: the `DreamerWorldConfig` of the world.
        image_key: camera of a LeRobot dataset that has several.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is none of these, or does not fit the world.
    """
    if not Path(path).exists():
        path = local_root(str(path), None) or path
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no start frames at {path}: give some {SOURCES}.")
    if is_lerobot(path):
        size = config.tokenizer_config.frame_size
        open_split = opener_for_world(path, config.dynamics_config, size, image_key)
        starts = starts_from_dataset(_not_seen(open_split))
    elif path.is_dir():
        starts = _starts_from_folder(path, config)
    else:
        starts = _starts_from_file(path, config)
    starts.check_fits(config)
    return starts


def _starts_from_folder(path: Path, config) -> StartFrames:
    if (path / START_FRAMES_NAME).is_file():
        return load_start_frames(path)
    offset = config.dynamics_config.action_offset
    return starts_from_dataset(_not_seen(partial(ShardDataset, path, window_size=None, action_offset=offset)))


def _not_seen(open_split: Callable[..., EpisodeWindows]) -> EpisodeWindows:
    """The episodes that training holds out, where there are enough for it to hold some out."""
    dataset = open_split(split="all")
    return open_split(split="validation") if dataset.num_episodes >= MIN_EPISODES_TO_SPLIT else dataset


def _starts_from_file(path: Path, config) -> StartFrames:
    """Start frames from a video or an image, resized as converted training data are; they have no actions."""
    height, width = config.tokenizer_config.frame_size
    frames = read_first_frames(path, CONTEXT_FRAMES, config.dynamics_config.fps, FrameTransform(width, height))
    return StartFrames(
        torch.from_numpy(frames).permute(0, 3, 1, 2)[None].contiguous(),
        torch.zeros(1, len(frames), config.dynamics_config.action_dim),
        torch.zeros(1, len(frames), dtype=torch.bool),
    )

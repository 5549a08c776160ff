"""The frames that dreams start from: what they are, and the file that keeps them with a world.

S starts, C context frames each, A action dimensions, D state dimensions, H height, W width.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .data import EpisodeWindows
from .data.files import replacing
from .data.start_sources import CONTEXT_FRAMES, MAX_STARTS, SOURCES, read_starts, starts_of_dataset
from .frame_inputs import START_FRAMES_NAME
from .start_sizes import StartSizes
from .worlds import resolve_model

DIGEST_KEY = "sha256"


@dataclass
class StartFrames:
    """Context frames with their actions and states, for example for `DreamerWorldModel.start_rollout`.

    Attributes:
        pixel_values_videos: uint8 (S, C, 3, H, W) RGB; (S, C, V, 3, H, W) for V cameras.
        actions: float32 (S, C, A), raw: `actions[:, t]` belongs to frame t.
        action_mask: bool (S, C), False where a frame has no action.
        states: float32 (S, C, D), in the units of the data; None (the default) if no frame has a state.
        state_mask: bool (S, C), False where a frame has no state. Default: every frame has one if there are `states`.

    Raises:
        ValueError: the shapes or types are different, or a state is not finite.
    """

    pixel_values_videos: torch.Tensor
    actions: torch.Tensor
    action_mask: torch.Tensor
    states: torch.Tensor | None = None
    state_mask: torch.Tensor | None = None

    def __post_init__(self):
        frames, actions, mask = self.pixel_values_videos, self.actions, self.action_mask
        shapes_agree = (
            frames.ndim in (5, 6) and actions.ndim == 3 and frames.shape[:2] == actions.shape[:2] == mask.shape
        )
        types_agree = (frames.dtype, actions.dtype, mask.dtype) == (torch.uint8, torch.float32, torch.bool)
        if not shapes_agree or not types_agree or frames.shape[-3] != 3 or 0 in frames.shape[:2]:
            raise ValueError(
                "start frames must be uint8 (S, C, 3, H, W) with float32 actions (S, C, A) and a bool mask (S, C), "
                f"but are {frames.dtype} {tuple(frames.shape)}, {actions.dtype} {tuple(actions.shape)} and "
                f"{mask.dtype} {tuple(mask.shape)}."
            )
        if self.states is None:
            self.state_mask = None
            return
        if self.state_mask is None:
            self.state_mask = torch.ones_like(mask)
        states, mask = self.states, self.state_mask
        shapes_agree = states.ndim == 3 and states.shape[:2] == mask.shape == frames.shape[:2]
        if not shapes_agree or (states.dtype, mask.dtype) != (torch.float32, torch.bool):
            raise ValueError(
                "the states of start frames must be float32 (S, C, D) with a bool mask (S, C), but are "
                f"{states.dtype} {tuple(states.shape)} and {mask.dtype} {tuple(mask.shape)}."
            )
        if not states[mask].isfinite().all():
            raise ValueError("the states of start frames hold NaN or infinity: mark frames without one in state_mask.")

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
        return StartFrames(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> "StartFrames":
        """Return the same on another device."""
        return StartFrames(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that there are, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def check_fits(self, config) -> None:
        """Raise a ValueError unless the sizes are those of a `DreamerWorldConfig`.

        A world with a state can begin without one; a world without a state leaves one out.
        """
        dynamics = config.dynamics_config
        sizes = StartSizes(
            config.tokenizer_config.frame_size,
            dynamics.action_dim,
            dynamics.camera_names if dynamics.num_cameras > 1 else None,
            dynamics.state_dim,
            dynamics.state_names,
        )
        sizes.check(self)


def save_start_frames(folder: str | os.PathLike, starts: StartFrames) -> Path:
    """Write `start_frames.safetensors` into a world's folder, completely or not at all, and return its path."""
    path = Path(folder) / START_FRAMES_NAME
    tensors = {name: tensor.cpu().contiguous() for name, tensor in starts.tensors().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", DIGEST_KEY: _digest(tensors)})
    return path


def load_start_frames(path_or_repo: str | os.PathLike) -> StartFrames:
    """Read the start frames that are saved with a world.

    Args:
        path_or_repo: the world's folder, its repository on the Hub, or the name of a shipped world.

    Raises:
        ValueError: there are none, or the file is damaged.
    """
    path = _find_start_frames(path_or_repo)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get(DIGEST_KEY)  # Files from before version 0.2.0 have none.
        if expected is not None and expected != _digest(tensors):
            raise ValueError(f"{path} is damaged (its digest differs): write it again, or give other start frames.")
        required = {name: tensors[name] for name in ("pixel_values_videos", "actions", "action_mask")}
        return StartFrames(**required, states=tensors.get("states"), state_mask=tensors.get("state_mask"))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again, or give other start frames.") from error


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def starts_from_dataset(
    dataset: EpisodeWindows,
    num_starts: int = MAX_STARTS,
    context_frames: int = CONTEXT_FRAMES,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> StartFrames:
    """Take the first frames of episodes spread evenly over a dataset.

    Args:
        dataset: whose episodes to start from; its `action_offset` must be the world's.
        num_starts: S, at most; fewer if the dataset has fewer episodes.
        context_frames: C, at most; fewer if every episode is shorter.
        decode: latents (C, N_z, d_z) -> uint8 frames (C, 3, H, W), for shards that hold latents.

    Raises:
        ValueError: the shards hold latents and there is no `decode`, or they hold no frame.
    """
    return StartFrames(**starts_of_dataset(dataset, num_starts, context_frames, decode))


def read_start_frames(
    path: str | os.PathLike, config, image_key: str | None = None, action_key: str = "action"
) -> StartFrames:
    """Read start frames for a world from data of many kinds.

    Args:
        path: a folder of HDF5 shards or a LeRobotDataset (the first frames of up to 8 held-out episodes; a
            LeRobotDataset's folder, or its name if it was recorded on this machine), a video (its first frames), an
            image, or the folder of a world with start frames. All but shards are resampled to the world's frame rate
            and resized to its frame size. Videos and images have no actions. Each action component of a LeRobotDataset
            is taken as recorded, or as its differences, as the world was trained on.
        config: the `DreamerWorldConfig` of the world.
        image_key: camera to use if a LeRobotDataset has several.
        action_key: feature that holds the actions of a LeRobotDataset.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is none of these, or does not fit the world.
    """
    if (Path(path) / START_FRAMES_NAME).is_file():
        starts = load_start_frames(path)
    else:
        starts = StartFrames(**read_starts(path, config, image_key, action_key))
    if not config.dynamics_config.state_dim:
        starts = replace(starts, states=None)
    starts.check_fits(config)
    return starts


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


__all__ = [
    "CONTEXT_FRAMES",
    "MAX_STARTS",
    "START_FRAMES_NAME",
    "StartFrames",
    "load_start_frames",
    "read_start_frames",
    "save_start_frames",
    "starts_from_dataset",
]

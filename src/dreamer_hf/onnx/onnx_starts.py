"""The frames that the dreams of an exported world start from, with their latents: `StartFrames` without PyTorch.

S starts, C context frames each, A action dimensions, D state dimensions, V cameras, H height, W width, N_z latent
tokens, d_z latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .manifest import DamagedExportError, Manifest

START_LATENTS_NAME = "start_latents.safetensors"
START_FRAMES_NAME = "start_frames.safetensors"


@dataclass
class OnnxStarts:
    """Context frames with their actions, states and latents, for `OnnxWorld.start_rollout`.

    Attributes:
        pixel_values_videos: uint8 (S, C, 3, H, W) RGB; (S, C, V, 3, H, W) for V cameras.
        actions: float32 (S, C, A), raw: `actions[:, t]` belongs to frame t.
        action_mask: bool (S, C), False where a frame has no action.
        latents: float32 (S, C, N_z, d_z), clean; None if the frames have yet to be encoded.
        states: float32 (S, C, D), in the units of the data; None (the default) if no frame has a state.
        state_mask: bool (S, C), False where a frame has no state. Default: every frame has one if there are `states`.

    Raises:
        ValueError: the shapes or types are different, or a state is not finite.
    """

    pixel_values_videos: np.ndarray
    actions: np.ndarray
    action_mask: np.ndarray
    latents: np.ndarray | None = None
    states: np.ndarray | None = None
    state_mask: np.ndarray | None = None

    def __post_init__(self):
        frames, actions, mask, latents = self.pixel_values_videos, self.actions, self.action_mask, self.latents
        shapes_agree = (
            frames.ndim in (5, 6) and actions.ndim == 3 and frames.shape[:2] == actions.shape[:2] == mask.shape
        )
        types_agree = (frames.dtype, actions.dtype, mask.dtype) == (np.uint8, np.float32, np.bool_)
        latents_fit = latents is None or (latents.ndim == 4 and latents.shape[:2] == frames.shape[:2])
        if not (shapes_agree and types_agree and latents_fit) or frames.shape[-3] != 3 or 0 in frames.shape[:2]:
            raise ValueError(
                "start frames must be uint8 (S, C, 3, H, W) with float32 actions (S, C, A) and a bool mask (S, C), "
                f"but are {frames.dtype} {frames.shape}, {actions.dtype} {actions.shape} and {mask.dtype} "
                f"{mask.shape}."
            )
        if self.states is None:
            self.state_mask = None
            return
        if self.state_mask is None:
            self.state_mask = np.ones_like(mask)
        states, mask = self.states, self.state_mask
        shapes_agree = states.ndim == 3 and states.shape[:2] == mask.shape == frames.shape[:2]
        if not shapes_agree or (states.dtype, mask.dtype) != (np.float32, np.bool_):
            raise ValueError(
                "the states of start frames must be float32 (S, C, D) with a bool mask (S, C), but are "
                f"{states.dtype} {states.shape} and {mask.dtype} {mask.shape}."
            )
        if not np.isfinite(states[mask]).all():
            raise ValueError("the states of start frames hold NaN or infinity: mark frames without one in state_mask.")

    def __len__(self) -> int:
        return len(self.pixel_values_videos)

    def __getitem__(self, index: int) -> OnnxStarts:
        """Return one start, as a batch of one.

        Raises:
            IndexError: the index is not in [-S, S).
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} start frames: expected an index below {len(self)}, got {index}.")
        return self.select([index % len(self)])

    def select(self, indices: Sequence[int]) -> OnnxStarts:
        """Return the starts with these indices, in this order.

        Raises:
            ValueError: an index is not in [0, S).
        """
        if not np.isin(indices, np.arange(len(self))).all():
            raise ValueError(f"start_index {list(indices)} names no start: choose from 0 to {len(self) - 1}.")
        rows = np.asarray(indices, dtype=np.int64)
        arrays = (getattr(self, each.name) for each in fields(self))
        return OnnxStarts(*(None if array is None else array[rows] for array in arrays))


def load_onnx_starts(folder: Path, manifest: Manifest) -> OnnxStarts | None:
    """Read the start frames of an export and their latents; None if it has none.

    Raises:
        ValueError: a file is missing or damaged, or does not fit the world.
    """
    if manifest.starts is None:
        return None
    try:
        latents = load_file(folder / START_LATENTS_NAME)
        frames = load_file(folder / START_FRAMES_NAME)["pixel_values_videos"]
        state_mask = latents.get("state_mask")
        starts = OnnxStarts(
            frames,
            latents["actions"],
            latents["action_mask"].astype(bool),
            latents["latents"].astype(np.float32),
            latents.get("states"),
            None if state_mask is None else state_mask.astype(bool),
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DamagedExportError(
            f"the start frames in {folder} are damaged ({reason}): copy or download the folder again."
        ) from error
    sizes = (*starts.pixel_values_videos.shape[2:], starts.actions.shape[-1], *starts.latents.shape[2:])
    cameras = () if manifest.num_cameras == 1 else (manifest.num_cameras,)
    expected = (*cameras, 3, *manifest.frame_size, manifest.actions["dim"], *manifest.latents.values())
    state_fits = starts.states is None or (
        manifest.state is not None and starts.states.shape[-1] == manifest.state["dim"]
    )
    if sizes != expected or not state_fits:
        raise DamagedExportError(
            f"the start frames in {folder} are of another world: copy or download the folder again."
        )
    return starts


__all__ = ["START_FRAMES_NAME", "START_LATENTS_NAME", "OnnxStarts", "load_onnx_starts"]

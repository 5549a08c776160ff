"""What dreams need from a world, whatever computes it.

Shapes: R rows, C context frames, V cameras, H, W pixels, A action components, S state components, N_z latent tokens,
d_z latent channels.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..action_space import ActionSpace
from ..seeded_noise import MAX_SEED, SeededNoise
from ..state_space import StateSpace
from ..threads import ThreadChoice

OTHER_NOISE = 0x5DEECE66D1234567
"""Differs in half of its bits from the seeds that people and programs choose."""


class WorldEngine(Protocol):
    """A world, and the form of its start frames, rollouts and latents: tensors of PyTorch, or NumPy arrays.

    Attributes:
        name: "torch" or "onnx".
        world: the `DreamerWorldModel` or `OnnxWorld`.
        fps: its frame rate.
        frame_size: height and width in pixels of its frames, with several cameras side by side.
        camera_names: names of several cameras, from left to right; None for one.
        space: its actions.
        state_space: its state, of length 0 if it has none.
        limits: float32 (2, A), the smallest and the largest value of each action component; infinite without limit.
        action_offset: as in `DreamerDynamicsConfig`.
        can_compile: whether its rollouts have `compile`.
    """

    name: str
    world: Any
    fps: float
    frame_size: tuple[int, int]
    camera_names: Sequence[str] | None
    space: ActionSpace
    state_space: StateSpace
    limits: np.ndarray
    action_offset: int
    can_compile: bool

    def check_num_inference_steps(self, number: int | None) -> None:
        """Raise a ValueError unless the world can dream with this number of denoising passes per frame."""

    def own_starts(self, starts):
        """Return start frames, `StartFrames` or those of an `OnnxWorld`, in the form of this engine.

        Raises:
            ValueError: they do not fit the world.
        """

    def make_starts(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        action_mask: np.ndarray,
        states: np.ndarray | None = None,
        state_mask: np.ndarray | None = None,
    ):
        """Return start frames of uint8 (R, C, 3, H, W), or (R, C, V, 3, H, W) for V cameras, float32 (R, C, A) and
        bool (R, C), and perhaps states, float32 (R, C, S), and which frames have one, bool (R, C).

        Raises:
            ValueError: other shapes, sizes that do not fit the world, or a state that is not finite.
        """

    def start_rollout(self, starts, num_inference_steps: int | None, generator: Sequence[SeededNoise]):
        """Return a rollout of R rows from start frames, and the clean latents (R, C, N_z, d_z) of these."""

    def join(self, rollouts: Sequence):
        """Return one rollout with the rows of several, in this order."""

    def tile(self, frames):
        """Return frames (R, 3, H, W) unchanged; those of V cameras, (R, V, 3, H, W), as (R, 3, H, V*W)."""

    def stack(self, latents: Sequence):
        """Return latents (N_z, d_z) of R rows as one batch (R, N_z, d_z)."""

    def twin(self, rollout):
        """Return a copy of a rollout whose rows draw other noise; its `step` gives `latents` and perhaps frames."""

    def encode_frames(self, frames) -> np.ndarray:
        """Return the latents, float32 (R, N_z, d_z), of frames (R, 3, H, W) in [0, 1], each encoded by itself."""

    def choose_threads(self, work: Callable[[], object], threads: int | None) -> ThreadChoice | None:
        """Set the number of CPU threads that suits some repeated work, or the given one; None if there is no
        choice."""


def as_numpy(values) -> np.ndarray:
    """Return a tensor, on any device, or an array as a NumPy array; bfloat16 becomes float32."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach()
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def other_noise(generator, num_rows: int) -> list[SeededNoise]:
    """Return one source of noise for each row that is independent of that of a rollout.

    A row with a `SeededNoise` gets one that its seed determines; others get random seeds.
    """
    sources = generator if isinstance(generator, Sequence) else [generator] * num_rows
    return [
        SeededNoise((each.seed ^ OTHER_NOISE) if isinstance(each, SeededNoise) else secrets.randbelow(MAX_SEED))
        for each in sources
    ]


def is_start(starts) -> bool:
    """Return whether these are start frames, rather than indices of some."""
    return hasattr(starts, "pixel_values_videos")


def clip_actions(actions, num_rows: int, limits: np.ndarray) -> np.ndarray:
    """Return raw actions, float32 (R, A), clipped to the range of the training data.

    Raises:
        ValueError: another shape, or an action that is not finite.
    """
    actions, shape = np.asarray(actions, np.float32), (num_rows, limits.shape[1])
    if actions.shape != shape:
        raise ValueError(f"expected actions of shape {shape}, got {actions.shape}.")
    if not np.isfinite(actions).all():
        raise ValueError("expected finite actions, got NaN or infinity: give finite numbers.")
    return actions.clip(limits[0], limits[1])


__all__ = ["WorldEngine", "as_numpy", "clip_actions", "is_start", "other_noise"]

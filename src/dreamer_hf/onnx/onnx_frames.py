"""The frames that a rollout on ONNX Runtime holds: latents, states and actions of T frames of every row.

Shapes: B rows, R of them, C context frames, T frames, N_z latent tokens, d_z latent channels, S state components, a
action width, V cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

NAMES = ("latents", "actions", "action_mask", "states", "state_mask")


@dataclass(frozen=True, eq=False)
class LatentFrames:
    """T frames of every row.

    Attributes:
        latents: float32 (B,T,N_z,d_z).
        actions: float32 (B,T,a), raw.
        action_mask: bool (B,T), False where a frame has no action.
        states: float32 (B,T,S), normalized; None for a world without a state.
        state_mask: bool (B,T), False where a frame has no state; None for a world without one.
    """

    latents: np.ndarray
    actions: np.ndarray
    action_mask: np.ndarray
    states: np.ndarray | None = None
    state_mask: np.ndarray | None = None

    def __len__(self) -> int:
        """Return T."""
        return self.latents.shape[1]

    def __getitem__(self, time: slice) -> LatentFrames:
        """Return the frames of a slice of T."""
        return LatentFrames(**{name: array[:, time] for name, array in self.named.items()})

    def append(self, other: LatentFrames) -> LatentFrames:
        """Return these frames, followed by others."""
        theirs = other.named
        return LatentFrames(
            **{name: np.concatenate([array, theirs[name]], axis=1) for name, array in self.named.items()}
        )

    def select(self, rows: np.ndarray) -> LatentFrames:
        """Return the same frames of some rows."""
        return replace(self, **{name: array[rows] for name, array in self.named.items()})

    def with_rows(self, rows: np.ndarray, source: LatentFrames) -> LatentFrames:
        """Return these frames with those of some rows replaced."""
        arrays = {name: array.copy() for name, array in self.named.items()}
        for name, array in arrays.items():
            array[rows] = source.named[name]
        return replace(self, **arrays)

    @staticmethod
    def join(parts: Sequence[LatentFrames]) -> LatentFrames:
        """Return the rows of several batches as one batch."""
        names = parts[0].named
        return replace(parts[0], **{name: np.concatenate([part.named[name] for part in parts]) for name in names})

    def to_noisy(self, noise: np.ndarray, state_noise: np.ndarray | None, signal_level: float) -> LatentFrames:
        """Return the same frames at a signal level, with noise (B,T,N_z,d_z) and, for a state, (B,T,S)."""
        noisy = replace(self, latents=_mix(noise, self.latents, signal_level))
        if self.states is None:
            return noisy
        return replace(noisy, states=_mix(state_noise, self.states, signal_level))

    def moved_toward(self, clean: np.ndarray, clean_states: np.ndarray | None, num_steps_left: int) -> LatentFrames:
        """Return the same frames after one of the denoising steps that are left, towards a clean prediction."""
        moved = replace(self, latents=self.latents + (clean - self.latents) / num_steps_left)
        if self.states is None:
            return moved
        return replace(moved, states=self.states + (clean_states - self.states) / num_steps_left)

    @property
    def named(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        arrays = ((name, getattr(self, name)) for name in NAMES)
        return {name: array for name, array in arrays if array is not None}


@dataclass(frozen=True, eq=False)
class OnnxContext(LatentFrames):
    """The context frames of a rollout: the last T of them, which can influence it.

    Attributes:
        num_skipped: number of context frames before these.
    """

    num_skipped: int = 0

    @property
    def num_frames(self) -> int:
        """C, the number of context frames."""
        return self.num_skipped + len(self)


def _mix(noise: np.ndarray, clean: np.ndarray, signal_level: float) -> np.ndarray:
    return (1 - signal_level) * noise + signal_level * clean


def split_cameras(values: np.ndarray) -> np.ndarray:
    """Return what V cameras show in T frames, (B,T,V,...), as videos (B*V,T,...), row b*V + v for camera v."""
    rows, frames, cameras = values.shape[:3]
    return np.ascontiguousarray(values.swapaxes(1, 2)).reshape(rows * cameras, frames, *values.shape[3:])


def join_cameras(videos: np.ndarray, num_cameras: int) -> np.ndarray:
    """Return videos (B*V,T,...) as (B,T,V,...)."""
    return videos.reshape(-1, num_cameras, *videos.shape[1:]).swapaxes(1, 2)


def camera_rows(rows: np.ndarray, num_cameras: int) -> np.ndarray:
    """Return the rows of a tokenizer's ring that belong to rows of a world."""
    return (rows[:, None] * num_cameras + np.arange(num_cameras)).ravel()


__all__ = ["LatentFrames", "OnnxContext", "camera_rows", "join_cameras", "split_cameras"]

"""The images of dreams in the form and size that a policy expects.

Shapes: N rows, H, W pixels of one camera of the world, V cameras.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.frame_transform import FrameTransform

SHOWN_SIZE = 256
"""Videos of dreams are enlarged by a whole factor until they have about this height."""


class CameraImages:
    """Cuts frames with the cameras side by side into images, and resizes them.

    Args:
        cameras: V names; for a single one without a name, none.
        frame_size: H and W.
        size: height and width that the policy expects. Defaults to the world's.
    """

    def __init__(
        self, cameras: Sequence[str], frame_size: tuple[int, int], size: tuple[int | None, int | None] = (None, None)
    ):
        self.cameras = tuple(cameras)
        self.size = (size[0] or frame_size[0], size[1] or frame_size[1])
        self._resizes = self.size != tuple(frame_size)
        self._transform = FrameTransform(width=self.size[1], height=self.size[0])

    def cut(self, frames: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """Return the images of N rows: uint8 (N, height, width, 3), or a dictionary of these by camera.

        Args:
            frames: uint8 (N, H, V*W, 3).
        """
        if not self.cameras:
            return self._resized(frames)
        parts = np.split(frames, len(self.cameras), axis=2)
        return {name: self._resized(part) for name, part in zip(self.cameras, parts, strict=True)}

    def by_camera(self, frames: np.ndarray) -> np.ndarray:
        """Return frames as reward functions see them: (N, V, H, W, 3) of several cameras, and otherwise unchanged."""
        count = len(self.cameras)
        return frames if count < 2 else np.stack(np.split(frames, count, axis=2), axis=1)

    def _resized(self, frames: np.ndarray) -> np.ndarray:
        if not self._resizes:
            return np.ascontiguousarray(frames)
        return np.stack([self._transform(np.ascontiguousarray(frame)) for frame in frames])


def enlarged(frame: np.ndarray) -> np.ndarray:
    """Return a frame (H, W, 3) for people to look at: small ones are enlarged, pixel by pixel."""
    factor = max(1, round(SHOWN_SIZE / frame.shape[0]))
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


__all__ = ["CameraImages", "enlarged"]

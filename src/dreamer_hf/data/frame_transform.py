"""Brings frames to the size that shards store."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class FrameTransform:
    """Resizes one frame (h, w, 3) uint8 to (height, width, 3) uint8.

    Args:
        width, height: size to store; None keeps the source's. One alone means a square with `pad_to_square`, and keeps
            the other size otherwise.
        pad_to_square: keep the aspect ratio and fill up with black to a square; without it frames are stretched.
    """

    width: int | None = None
    height: int | None = None
    pad_to_square: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value} is too small: give at least 1.")
        if self.pad_to_square and self.width and self.height and self.width != self.height:
            raise ValueError(
                f"--pad_to_square makes squares, but --width {self.width} --height {self.height} is none: give both "
                "the same value."
            )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what becomes of a frame of this size."""
        if self.pad_to_square:
            side = self.width or self.height or max(height, width)
            return side, side
        return self.height or height, self.width or width

    def stretches(self, height: int, width: int) -> bool:
        """Whether a frame of this size changes its aspect ratio."""
        new_height, new_width = self.output_size(height, width)
        return not self.pad_to_square and height * new_width != width * new_height

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        target = self.output_size(height, width)
        if (height, width) == target:
            return np.ascontiguousarray(frame)
        if not self.pad_to_square:
            return _resize(frame, *target)
        scale = target[0] / max(height, width)
        inner = _resize(frame, max(1, round(height * scale)), max(1, round(width * scale)))
        top, left = (target[0] - inner.shape[0]) // 2, (target[1] - inner.shape[1]) // 2
        padded = np.zeros((*target, 3), np.uint8)
        padded[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return padded


def _resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height * width < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def side_by_side(frames: list[np.ndarray]) -> np.ndarray:
    """Puts the pictures of several cameras in one row, each scaled to the height of the first."""
    height = frames[0].shape[0]
    scaled = [_resize(frame, height, max(1, round(frame.shape[1] * height / frame.shape[0]))) for frame in frames]
    return scaled[0] if len(scaled) == 1 else np.concatenate(scaled, axis=1)

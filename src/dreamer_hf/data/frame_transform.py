"""Brings frames to the size that shards store."""

from dataclasses import dataclass

import cv2
import numpy as np


class UnreadablePicture(ValueError):
    """Encoded bytes that are no picture, or a damaged one."""


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


def as_rgb(picture, where: str) -> np.ndarray:
    """Any stored picture as (H, W, 3) uint8 RGB: an array with 1, 3 or 4 channels, or encoded bytes (PNG, JPEG, ...).

    Raises:
        UnreadablePicture: it cannot be decoded; `where` says which one.
        ValueError: it is neither.
    """
    if isinstance(picture, bytes | bytearray):
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) if picture else None
        if image is None:
            raise UnreadablePicture(f"{where}: a picture cannot be decoded: repair it, or leave the episode out.")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8 or array.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"{where}: a picture of shape {array.shape} and type {array.dtype} is none of (height, width, 1, 3 or 4) "
            "uint8: choose another image key."
        )
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array[..., :3])


def side_by_side(frames: list[np.ndarray]) -> np.ndarray:
    """Puts the pictures of several cameras in one row, each scaled to the height of the first."""
    height = frames[0].shape[0]
    scaled = [_resize(frame, height, max(1, round(frame.shape[1] * height / frame.shape[0]))) for frame in frames]
    return scaled[0] if len(scaled) == 1 else np.concatenate(scaled, axis=1)

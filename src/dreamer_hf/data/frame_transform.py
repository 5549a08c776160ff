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
        """The transformed frame, in new memory."""
        out = np.empty((*self.output_size(*frame.shape[:2]), 3), np.uint8)
        self.write(frame, out)
        return out

    def write(self, frame: np.ndarray, out: np.ndarray) -> None:
        """Writes the transformed frame to `out`, (*output_size, 3) uint8, C-contiguous."""
        if self.pad_to_square:
            height, width = frame.shape[:2]
            scale = len(out) / max(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
            top, left = (len(out) - height) // 2, (len(out) - width) // 2
            out[...] = 0
            out = out[top : top + height, left : left + width]
        _resize_into(frame, out)


def _resize_into(frame: np.ndarray, out: np.ndarray) -> None:
    if frame.shape == out.shape:
        out[...] = frame
        return
    shrinks = out.shape[0] * out.shape[1] < frame.shape[0] * frame.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    cv2.resize(frame, out.shape[1::-1], dst=out, interpolation=method)


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
    widths = [max(1, round(frame.shape[1] * height / frame.shape[0])) for frame in frames]
    row = np.empty((height, sum(widths), 3), np.uint8)
    for frame, part in zip(frames, np.split(row, np.cumsum(widths)[:-1], axis=1), strict=True):
        _resize_into(frame, part)
    return row

"""Decodes stored images and brings frames to the size that shards store."""

from dataclasses import dataclass

import cv2
import numpy as np


class UnreadableImage(ValueError):
    """Encoded bytes that are not an image, or a damaged one."""


@dataclass(frozen=True)
class FrameTransform:
    """Resizes one frame (h, w, 3) uint8 to (height, width, 3) uint8.

    Frames are averaged over areas when they shrink and interpolated linearly when they grow.

    Args:
        width, height: size to store; None keeps the source's. One alone means a square with `pad_to_square`, and keeps
            the other size otherwise.
        pad_to_square: whether to keep the aspect ratio and pad with black to a square; otherwise frames are stretched.
    """

    width: int | None = None
    height: int | None = None
    pad_to_square: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected a positive int for --{name}, got {value}.")
        if self.pad_to_square and self.width and self.height and self.width != self.height:
            raise ValueError(
                f"--pad_to_square makes squares, but --width {self.width} and --height {self.height} differ: give "
                "both the same value."
            )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that a frame of this size is stored at."""
        if self.pad_to_square:
            side = self.width or self.height or max(height, width)
            return side, side
        return self.height or height, self.width or width

    def stretches(self, height: int, width: int) -> bool:
        """Return whether a frame of this size changes its aspect ratio."""
        new_height, new_width = self.output_size(height, width)
        return not self.pad_to_square and height * new_width != width * new_height

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Return the transformed frame, in new memory."""
        out = np.empty((*self.output_size(*frame.shape[:2]), 3), np.uint8)
        self.write(frame, out)
        return out

    def write(self, frame: np.ndarray, out: np.ndarray) -> None:
        """Write the transformed frame to `out`, (*output_size, 3) uint8, C-contiguous."""
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


def as_rgb(image, where: str) -> np.ndarray:
    """Return any stored image as (H, W, 3) uint8 RGB, upright.

    Args:
        image: an array with 1, 3 or 4 channels, or encoded bytes (PNG, JPEG, ...).
        where: what to call it in errors.

    Raises:
        UnreadableImage: the bytes cannot be decoded.
        ValueError: the image is missing (None), is not an image, or has more than 8 bits per channel.
    """
    if image is None:
        raise ValueError(
            f"{where}: the image is missing (null): fill it in, or leave the episode out with --episodes."
        )
    if isinstance(image, bytes | bytearray):
        # Without IMREAD_ANYDEPTH, OpenCV would drop the low byte of deeper images.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        decoded = cv2.imdecode(np.frombuffer(image, np.uint8), flags) if image else None
        if decoded is None:
            raise UnreadableImage(f"{where}: an image cannot be decoded: repair it, or leave the episode out.")
        _check_depth(decoded, where)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"{where}: expected an image of shape (height, width, 1, 3 or 4), got {array.shape}: "
            "choose another image key."
        )
    _check_depth(array, where)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array[..., :3])


def _check_depth(image: np.ndarray, where: str) -> None:
    if image.dtype != np.uint8:
        raise ValueError(
            f"{where}: the image has values of type {image.dtype} (a depth map?), but frames have 8 bits per channel: "
            "choose another camera, or scale its values to uint8 first."
        )


def side_by_side(frames: list[np.ndarray]) -> np.ndarray:
    """Put the frames of several cameras in one row, each scaled to the height of the first."""
    height = frames[0].shape[0]
    widths = [max(1, round(frame.shape[1] * height / frame.shape[0])) for frame in frames]
    row = np.empty((height, sum(widths), 3), np.uint8)
    for frame, part in zip(frames, np.split(row, np.cumsum(widths)[:-1], axis=1), strict=True):
        _resize_into(frame, part)
    return row

"""Frames for people to look at: images, GIFs and MP4 videos.

Importing it loads neither PyTorch nor a codec: these are imported when something is encoded.

Shapes: T frames, H, W pixels. An image is uint8 RGB (H, W, 3); frames of a model are float (..., 3, H, W) in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    import torch

MIN_VIDEO_SIDE = 256
"""Smaller videos are enlarged by a whole factor, without smoothing: video players would blur them."""
PALETTE_COLORS = 128
PALETTE_SAMPLES = 12
"""Number of images from which the palette of a GIF is computed."""


def to_uint8(frames: torch.Tensor | np.ndarray) -> np.ndarray:
    """Convert float frames (..., 3, H, W) in [0, 1], clipped to that range, to uint8 images (..., H, W, 3)."""
    if isinstance(frames, np.ndarray):
        values = np.rint(frames.astype(np.float32, copy=False).clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(values, -3, -1))
    return frames.detach().float().clamp(0, 1).mul(255).round().byte().movedim(-3, -1).contiguous().cpu().numpy()


def encode_image(image: np.ndarray, format: str = "png", quality: int = 90, compression: int = 3) -> bytes:
    """Encode a uint8 RGB image (H, W, 3) as the bytes of a PNG or JPEG file.

    Args:
        image: the image.
        format: "png" (lossless) or "jpeg".
        quality: quality of a JPEG, 0 to 100.
        compression: effort for a PNG, from 0 (fast) to 9 (small).
    """
    from PIL import Image

    buffer = io.BytesIO()
    options = {"png": {"compress_level": compression}, "jpeg": {"quality": quality}}
    Image.fromarray(image).save(buffer, format, **options[format])
    return buffer.getvalue()


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write a uint8 RGB image (H, W, 3) as a PNG file; its folder is created if needed.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(image))


def save_gif(path: str | Path, frames: Sequence[np.ndarray] | torch.Tensor, fps: float) -> None:
    """Write a GIF that repeats forever.

    All frames share one palette, so that unchanged regions take no space.

    Args:
        path: the file to write.
        frames: uint8 images (H, W, 3), or a float tensor (T, 3, H, W) in [0, 1].
        fps: frames per second.
    """
    from PIL import Image

    images = _as_images(frames)
    sample = np.concatenate(images[:: max(1, len(images) // PALETTE_SAMPLES)])
    palette = Image.fromarray(sample).quantize(PALETTE_COLORS, method=Image.Quantize.FASTOCTREE)
    quantized = (Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    first, *others = quantized
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


def save_video(path: str | Path, frames: Sequence[np.ndarray] | torch.Tensor, fps: float) -> None:
    """Write an H.264 MP4 video.

    Args:
        path: the file to write; it must end in `.mp4` and must not exist.
        frames: uint8 images (H, W, 3), or a float tensor (T, 3, H, W) in [0, 1].
        fps: frames per second.

    Raises:
        FileExistsError, ValueError: see `VideoWriter`.
    """
    writer = VideoWriter(path, fps)
    for image in _as_images(frames):
        writer.write(image)
    writer.close()


class VideoWriter:
    """An H.264 MP4 file that is written frame by frame and gets its final name when it is closed.

    Until then the frames are in `<stem>.partial.mp4`, flushed in short fragments, so that even a killed process leaves
    a playable video.

    Args:
        path: the file to write; it must end in `.mp4` and must not exist.
        fps: frames per second.

    Raises:
        FileExistsError: the file exists already.
        ValueError: the name does not end in `.mp4`, or PyAV is missing.
    """

    def __init__(self, path: str | Path, fps: float):
        self._av = _import_av()
        self.path = Path(path)
        self.fps = fps
        if self.path.suffix != ".mp4":
            raise ValueError(f"cannot record to {self.path}: choose a name that ends in .mp4.")
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists: choose another name, or move it away.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial_path = self.path.with_suffix(".partial.mp4")
        self.num_frames = 0
        self._container = None
        self._stream = None

    def write(self, image: np.ndarray) -> None:
        """Append a frame: a uint8 RGB image (H, W, 3)."""
        if self._container is None:
            self._open(*image.shape[:2])
        enlarged = image.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        self._mux(self._av.VideoFrame.from_ndarray(enlarged, format="rgb24"))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. If no frame was written, there is no file."""
        if self._container is None:
            return
        self._mux(None)
        self._container.close()
        self._container = None
        self.partial_path.replace(self.path)

    def _open(self, height: int, width: int) -> None:
        scale = max(1, -(-MIN_VIDEO_SIDE // min(height, width)))
        if scale % 2 and (height % 2 or width % 2):  # The chroma planes of yuv420p need even sides.
            scale += 1
        self._scale = scale
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._container = self._av.open(str(self.partial_path), "w", options=options)
        self._stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width * scale, height * scale, "yuv420p"
        # A key frame every second bounds what a killed process loses; one thread leaves the others to the model.
        self._stream.codec_context.gop_size = max(1, round(self.fps))
        self._stream.codec_context.thread_count = 1
        # Without "log=0", x264 prints to the terminal once another library has enabled FFmpeg's messages.
        self._stream.options = {"crf": "16", "preset": "veryfast", "tune": "zerolatency", "x264-params": "log=0"}

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ValueError("recording a video needs PyAV: pip install 'dreamer_hf[video]'.") from error
    return av


def _as_images(frames: Sequence[np.ndarray] | torch.Tensor) -> Sequence[np.ndarray]:
    return to_uint8(frames) if hasattr(frames, "detach") else frames


__all__ = ["VideoWriter", "encode_image", "save_gif", "save_image", "save_video", "to_uint8"]

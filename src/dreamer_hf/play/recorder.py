"""Recording what was dreamt as an H.264 MP4."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

MIN_RECORDED_SIDE = 256  # smaller pictures are enlarged, whole pixels at a time, so that players show them crisp


class VideoRecorder:
    """Writes frames to an MP4 file that appears under its name when the recorder is closed.

    Until then the frames lie beside it in `<stem>.partial.mp4`, flushed in short fragments, so that even a killed
    process leaves a video that plays.

    Args:
        path: the file to make; it must not exist yet.
        fps: frames per second of the video.

    Raises:
        FileExistsError: when the file exists already.
        ValueError: when the name does not end in `.mp4`.
    """

    def __init__(self, path: str | Path, fps: float):
        self.path = Path(path)
        self.fps = fps
        if self.path.suffix != ".mp4":
            raise ValueError(f"cannot record to {self.path}: give a name that ends in .mp4.")
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists: record under another name, or move it away.")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial_path = self.path.with_suffix(".partial.mp4")
        self.num_frames = 0
        self._container = None
        self._stream = None

    def add(self, before: np.ndarray, action: np.ndarray, after: np.ndarray) -> None:
        """Appends one step: the frame that the action led to. `after` is uint8 (H, W, 3) RGB."""
        self.add_picture(after)

    def add_picture(self, picture: np.ndarray) -> None:
        """Appends one frame, uint8 (H, W, 3) RGB."""
        if self._container is None:
            self._open(*picture.shape[:2])
        enlarged = cv2.resize(picture, (self._stream.width, self._stream.height), interpolation=cv2.INTER_NEAREST)
        self._mux(av.VideoFrame.from_ndarray(enlarged, format="rgb24"))
        self.num_frames += 1

    def cut(self) -> None:
        """A reset or a rewind: the film goes on with what is shown next."""

    def close(self) -> None:
        """Finishes the file and gives it its name; without a frame there is no file."""
        if self._container is None:
            return
        self._mux(None)
        self._container.close()
        self._container = None
        self.partial_path.replace(self.path)

    def _open(self, height: int, width: int) -> None:
        scale = max(1, -(-MIN_RECORDED_SIDE // min(height, width)))
        if scale % 2 and (height % 2 or width % 2):  # the chroma planes of yuv420p need even sides
            scale += 1
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        self._container = av.open(str(self.partial_path), "w", options=options)
        self._stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width * scale, height * scale, "yuv420p"
        # A key frame every second bounds what a killed process loses; one thread leaves the others to the model.
        self._stream.codec_context.gop_size = max(1, round(self.fps))
        self._stream.codec_context.thread_count = 1
        # x264 reports to the terminal, when another library has turned FFmpeg's messages on, unless told "log=0".
        self._stream.options = {"crf": "16", "preset": "veryfast", "tune": "zerolatency", "x264-params": "log=0"}

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

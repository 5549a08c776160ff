"""How PushT looks: what recorders of it make of the same scene. Needs the extra `pusht`.

gym-pusht draws a scene of 512 x 512 pixels and reduces it by picking pixels, which leaves jagged edges. Other
recorders average, and most datasets are compressed as video, whose colors have half the resolution.
"""

import io
from dataclasses import dataclass

import av
import cv2
import numpy as np

from ..real_time import leave_real_time
from .task import FPS

CODECS = {
    "av1": ("libsvtav1", {"preset": "12"}, (18, 34)),
    "h264": ("libx264", {"preset": "veryfast"}, (15, 28)),
}
"""FFmpeg's encoder, its options, and the range that its quality (CRF) is drawn from. LeRobot's default for AV1 is 30,
FFmpeg's for H.264 is 23."""
KEYFRAMES = 2
"""Every second frame can be decoded alone, as LeRobot stores videos."""


@dataclass(frozen=True)
class Rendering:
    """How frames are made of the scene.

    Attributes:
        averaged: whether each pixel is the mean of its area in the scene, instead of a pick as in gym-pusht's own
            observations.
        codec: the key of `CODECS` that the episode is compressed with; None for none.
    """

    averaged: bool
    codec: str | None = None

    def reduce(self, scene: np.ndarray, size: int) -> np.ndarray:
        """Return a drawn scene (512, 512, 3 or 4) uint8 as a frame of `size` pixels, with the same channels."""
        method = cv2.INTER_AREA if self.averaged else cv2.INTER_LINEAR
        return cv2.resize(scene, (size, size), interpolation=method)

    def compress(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the frames of an episode, (T, S, S, 3) uint8 RGB, after the codec, if there is one."""
        if self.codec is None:
            return frames
        encoder, options, (best, worst) = CODECS[self.codec]
        return through_codec(frames, encoder, options | {"crf": str(rng.integers(best, worst + 1))})


RENDERINGS = {
    "own": Rendering(averaged=False),
    "averaged": Rendering(averaged=True),
    "own-av1": Rendering(averaged=False, codec="av1"),
    "averaged-av1": Rendering(averaged=True, codec="av1"),
    "own-h264": Rendering(averaged=False, codec="h264"),
    "averaged-h264": Rendering(averaged=True, codec="h264"),
}
"""Every kind of rendering by the name that `--renderings` gives it; `own` is gym-pusht's observation."""


def through_codec(frames: np.ndarray, encoder: str, options: dict[str, str]) -> np.ndarray:
    """Return frames (T, S, S, 3) uint8 RGB as a video of them shows them.

    Args:
        frames: of even sides of at least 64 pixels.
        encoder: name of FFmpeg's encoder.
        options: its options.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(encoder, rate=FPS, options=options | {"g": str(KEYFRAMES)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    leave_real_time()
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


__all__ = ["RENDERINGS", "Rendering", "through_codec"]

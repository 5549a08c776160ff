"""Recording what was dreamt as an H.264 MP4."""

import numpy as np

from ..media import VideoWriter


class VideoRecorder(VideoWriter):
    """A `Recorder` that writes the frames of a session to an MP4 file."""

    def add(self, before: np.ndarray, action: np.ndarray, after: np.ndarray) -> None:
        """Append one step: the frame that the action led to. `after` is uint8 (H, W, 3) RGB."""
        self.write(after)

    def cut(self) -> None:
        """After a reset or a rewind, the video continues with the next frame."""

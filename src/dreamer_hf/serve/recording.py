"""Recording what a player sees as a video that can be downloaded."""

import logging
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np

from ..media import VideoWriter

MAX_BACKLOG = 300  # frames that may wait for the encoder; a machine that falls further behind ends the recording
log = logging.getLogger(__package__)


class Recording:
    """An MP4 file of a running dream. Frames are encoded in another thread than they are dreamed in.

    Args:
        path: the file to write.
        fps: frames per second.
        max_frames: further frames are left out.
        encoder: executor with one worker, which keeps the frames in order.

    Attributes:
        finished: whether the player has ended the recording.
    """

    def __init__(self, path: Path, fps: float, max_frames: int, encoder: Executor):
        self.path = path
        self.finished = False
        self._video = VideoWriter(path, fps)
        self._encoder, self._max_frames = encoder, max_frames
        self._num_added = self._num_encoded = 0
        self._closed = False  # used by the encoder's thread only

    @property
    def is_full(self) -> bool:
        """Whether no more frames are taken."""
        return self._num_added >= self._max_frames or self._num_added - self._num_encoded > MAX_BACKLOG

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 (H, W, 3) RGB, unless the recording is full or finished."""
        if not self.is_full and not self.finished:
            self._num_added += 1
            self._encoder.submit(self._encode, frame)

    def finish(self) -> Future:
        """Return a future that is done when the file is complete. Without a frame there is no file."""
        self.finished = True
        return self._encoder.submit(self._close)

    def discard(self) -> Future:
        """Return a future that is done when the file is deleted."""
        self.finished = True
        return self._encoder.submit(self._remove)

    def _encode(self, frame: np.ndarray) -> None:
        if self._closed:  # a frame that was added while the recording was finished
            return
        try:
            self._video.write(frame)
        except Exception:
            log.exception("a recording failed")
        finally:
            self._num_encoded += 1

    def _close(self) -> None:
        self._closed = True
        self._video.close()

    def _remove(self) -> None:
        self._close()
        for path in (self.path, self._video.partial_path):
            path.unlink(missing_ok=True)

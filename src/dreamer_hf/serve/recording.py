"""Recording what a player sees, for a download."""

import logging
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from ..media import VideoWriter

MAX_BACKLOG = 300  # frames that may wait for the encoder; a machine that falls further behind ends the recording
log = logging.getLogger(__name__)


class Recording:
    """An MP4 file that grows beside the game: frames are encoded in another thread than they are dreamt in.

    Args:
        path: the file to make.
        fps: frames a second.
        max_frames: what comes after them is left out.
        encoder: the thread (one worker, which keeps the frames in order).

    Attributes:
        finished: whether no more frames are taken because the player has ended it.
    """

    def __init__(self, path: Path, fps: float, max_frames: int, encoder: Executor):
        self.path = path
        self._recorder = VideoWriter(path, fps)
        self._encoder, self._max_frames = encoder, max_frames
        self._given = self._encoded = 0
        self.finished = False
        self._closed = False  # known to the encoder's thread alone

    @property
    def is_full(self) -> bool:
        """Whether no more frames are taken."""
        return self._given >= self._max_frames or self._given - self._encoded > MAX_BACKLOG

    def add(self, frame: np.ndarray) -> None:
        """Takes a frame, uint8 (H, W, 3) RGB, unless the recording is full."""
        if not self.is_full and not self.finished:
            self._given += 1
            self._encoder.submit(self._encode, frame)

    def finish(self):
        """A future that is done when the file is complete; there is no file when no frame was taken."""
        self.finished = True
        return self._encoder.submit(self._close)

    def discard(self):
        """A future that is done when the file is gone."""
        self.finished = True
        return self._encoder.submit(self._remove)

    def _encode(self, frame: np.ndarray) -> None:
        if self._closed:  # given at the moment at which the recording was finished
            return
        try:
            self._recorder.write(frame)
        except Exception:
            log.exception("a recording failed")
        finally:
            self._encoded += 1

    def _close(self) -> None:
        self._closed = True
        self._recorder.close()

    def _remove(self) -> None:
        self._close()
        for path in (self.path, self._recorder.partial_path):
            path.unlink(missing_ok=True)

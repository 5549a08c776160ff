"""Playing without a window: as fast as the world goes, or paced for a hand on a device."""

import time
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm

from ..pacing import PacingClock
from .session import PlaySession


class HeadlessReport(NamedTuple):
    """Frames dreamt and the seconds that they took."""

    frames: int
    seconds: float

    def __str__(self) -> str:
        rate = self.frames / max(self.seconds, 1e-9)
        return f"{self.frames} frames in {self.seconds:.2f} s: {rate:.1f} frames/s"


def run_headless(session: PlaySession, steps: int | None, poll: Callable[[], bool] | None = None) -> HeadlessReport:
    """Advances a session.

    Args:
        steps: frames to dream; None: until the source ends.
        poll: for a device: called before each frame, at the world's own frame rate, and ends the run by returning
            False. Without it frames follow each other as fast as they come.
    """
    clock = PacingClock(session.fps)
    begun = time.perf_counter()
    frames = 0
    with tqdm(total=steps, unit="frame", desc="dreaming") as bar:
        while frames != steps:
            if poll is not None:
                clock.tick()
                if not poll():
                    break
            if not session.advance():
                break
            frames += 1
            bar.update()
    return HeadlessReport(frames, time.perf_counter() - begun)

"""Films of dreams beside what really followed."""

from pathlib import Path

import torch

from ..media import save_gif, side_by_side
from ..play.recorder import VideoRecorder

FILM_NAME = "dream"


def save_films(
    folder: Path, films: list[dict[str, torch.Tensor]], num_given: int, fps: float, first_is_real: bool = True
) -> None:
    """Writes dream.mp4 and dream.gif: the episodes one after the other.

    Args:
        folder: where to.
        films: per episode, videos (T,3,H,W) in [0, 1] by title.
        num_given: frames at the beginning that are given, not dreamt.
        fps: frames a second.
        first_is_real: the first video of each episode is no dream.

    Raises:
        OSError: the disk is full or not writable.
    """
    pictures = [
        picture for columns in films for picture in side_by_side(columns, num_given, first_is_real=first_is_real)
    ]
    recorder = VideoRecorder(folder / f"{FILM_NAME}.mp4", fps)
    for picture in pictures:
        recorder.add_picture(picture)
    recorder.close()
    save_gif(folder / f"{FILM_NAME}.gif", pictures, fps)

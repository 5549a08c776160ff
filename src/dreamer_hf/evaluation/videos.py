"""Images and videos that show dreams next to the real frames.

Shapes: T frames, S images in a row, H, W pixels; frames are float in [0, 1], images uint8 RGB (H, W, 3).
"""

from pathlib import Path

import cv2
import numpy as np
import torch

from ..media import save_gif, save_video, to_uint8

VIDEO_NAME = "dream"
GRID_MARGIN = 2
"""White pixels around each image of a grid."""
MARGIN = 8
TITLE_HEIGHT = 28
BACKGROUND = 24
TITLE_COLOR = (235, 235, 235)
DREAM_TITLE_COLOR = (120, 200, 255)


def image_grid(rows: list[torch.Tensor]) -> np.ndarray:
    """Arrange rows of frames, each (S, 3, H, W), in one uint8 image."""
    padded = torch.stack(
        [torch.nn.functional.pad(row.detach().float().cpu(), [GRID_MARGIN] * 4, value=1.0) for row in rows]
    )
    return to_uint8(padded.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))


def side_by_side(
    videos: dict[str, torch.Tensor], num_context_frames: int, height: int = 256, first_is_real: bool = True
) -> list[np.ndarray]:
    """Enlarge videos to `height` pixels and put them next to each other under their titles.

    The title of a dream says "(context)" during the first `num_context_frames` frames, which are real. A counter
    in the corner is +1 at the first frame of the dream.

    Args:
        videos: videos (T, 3, H, W) of one size and length by title.
        num_context_frames: number of context frames.
        height: height of each video in the result, in pixels.
        first_is_real: whether the first video is real, not a dream.
    """
    images = {title: to_uint8(frames) for title, frames in videos.items()}
    length = len(next(iter(images.values())))
    num_real = 1 if first_is_real else 0
    return [
        _titled_row({title: video[t] for title, video in images.items()}, t, num_context_frames, height, num_real)
        for t in range(length)
    ]


def _titled_row(
    frames: dict[str, np.ndarray], time: int, num_context_frames: int, height: int, num_real: int
) -> np.ndarray:
    rows, columns = next(iter(frames.values())).shape[:2]
    frame_width = round(height * columns / rows)
    width = len(frames) * (frame_width + MARGIN) + MARGIN
    image = np.full((height + 2 * MARGIN + TITLE_HEIGHT, width, 3), BACKGROUND, np.uint8)
    top, baseline = MARGIN + TITLE_HEIGHT, MARGIN + 14
    for index, (title, frame) in enumerate(frames.items()):
        left = MARGIN + index * (frame_width + MARGIN)
        enlarged = cv2.resize(frame, (frame_width, height), interpolation=cv2.INTER_NEAREST)
        image[top : top + height, left : left + frame_width] = enlarged
        is_dream, is_context = index >= num_real, time < num_context_frames
        text = f"{title} (context)" if is_dream and is_context else title
        color = DREAM_TITLE_COLOR if is_dream and not is_context else TITLE_COLOR
        _write_text(image, text, (left, baseline), color)
    _write_text(image, f"{time - num_context_frames + 1:+d}", (width - 56, baseline), TITLE_COLOR)
    return image


def _write_text(image: np.ndarray, text: str, position: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(image, text, position, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)


def save_videos(
    folder: Path,
    episodes: list[dict[str, torch.Tensor]],
    num_context_frames: int,
    fps: float,
    first_is_real: bool = True,
) -> None:
    """Write dream.mp4 and dream.gif, which show the episodes one after the other.

    Args:
        folder: where to write.
        episodes: for each episode, videos (T, 3, H, W) in [0, 1] by title.
        num_context_frames: number of context frames at the beginning of each episode.
        fps: frames per second.
        first_is_real: whether the first video of each episode is real, not a dream.

    Raises:
        OSError: the disk is full or not writable.
    """
    images = [
        image for videos in episodes for image in side_by_side(videos, num_context_frames, first_is_real=first_is_real)
    ]
    save_video(folder / f"{VIDEO_NAME}.mp4", images, fps)
    save_gif(folder / f"{VIDEO_NAME}.gif", images, fps)


__all__ = ["image_grid", "save_videos", "side_by_side"]

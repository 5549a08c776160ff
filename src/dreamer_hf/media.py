"""Pictures and films for the eye: tiles as PNG, films side by side, GIFs.

Shapes: S columns, T frames, H, W pixels; frames are float in [0, 1], pictures uint8 RGB (H,W,3).
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

TILE_MARGIN = 2
"""White pixels around the tiles of a picture."""
MARGIN = 8
TITLE_HEIGHT = 28
BACKGROUND = 24
INK = (235, 235, 235)
DREAM_INK = (120, 200, 255)
PALETTE_COLORS = 128
PALETTE_PICTURES = 12
"""Pictures that a GIF's palette is made from."""


def tile(rows: list[torch.Tensor]) -> np.ndarray:
    """Puts rows of images, each (S,3,H,W), into one picture, uint8 (height, width, 3) RGB."""
    bordered = torch.stack(
        [torch.nn.functional.pad(row.detach().float().cpu(), [TILE_MARGIN] * 4, value=1.0) for row in rows]
    )
    picture = bordered.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return picture.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a uint8 RGB picture as PNG, its folder included.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    path.write_bytes(encoded.tobytes())


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """(T,3,H,W) float in [0, 1] -> (T,H,W,3) uint8."""
    return (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def side_by_side(
    columns: dict[str, torch.Tensor], num_context_frames: int, height: int = 256, first_is_real: bool = True
) -> list[np.ndarray]:
    """Enlarges films of one size and length (T,3,H,W) to `height` pixels and puts them beside each other under their titles.

    While the first `num_context_frames` frames last, the title of every dream says that they are given, not dreamt.
    """
    films = {title: to_uint8(frames) for title, frames in columns.items()}
    length = len(next(iter(films.values())))
    num_real = 1 if first_is_real else 0
    return [
        _picture({title: film[t] for title, film in films.items()}, t, num_context_frames, height, num_real)
        for t in range(length)
    ]


def _picture(
    frames: dict[str, np.ndarray], time: int, num_context_frames: int, height: int, num_real: int
) -> np.ndarray:
    rows, columns = next(iter(frames.values())).shape[:2]
    tile_width = round(height * columns / rows)
    tiles = [cv2.resize(frame, (tile_width, height), interpolation=cv2.INTER_NEAREST) for frame in frames.values()]
    width = len(tiles) * (tile_width + MARGIN) + MARGIN
    picture = np.full((height + 2 * MARGIN + TITLE_HEIGHT, width, 3), BACKGROUND, np.uint8)
    for index, (title, tile) in enumerate(zip(frames, tiles)):
        left = MARGIN + index * (tile_width + MARGIN)
        picture[MARGIN + TITLE_HEIGHT : MARGIN + TITLE_HEIGHT + height, left : left + tile_width] = tile
        given = index >= num_real and time < num_context_frames
        text = f"{title} (given)" if given else title
        ink = DREAM_INK if index >= num_real and not given else INK
        cv2.putText(picture, text, (left, MARGIN + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    step = f"{time - num_context_frames + 1:+d}"
    cv2.putText(picture, step, (width - 56, MARGIN + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return picture


def save_gif(path: str | Path, pictures: Sequence[np.ndarray], fps: float) -> None:
    """Writes an endless GIF. One palette serves all pictures: what stands still is then stored once."""
    sample = np.concatenate(pictures[:: max(1, len(pictures) // PALETTE_PICTURES)])
    palette = Image.fromarray(sample).quantize(PALETTE_COLORS, method=Image.Quantize.MAXCOVERAGE)
    images = (Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    first, *others = images
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)


__all__ = ["save_gif", "save_picture", "side_by_side", "tile", "to_uint8"]

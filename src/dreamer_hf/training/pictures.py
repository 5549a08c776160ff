"""Pictures of what a model makes, for the eye.

Shapes: S columns, H, W pixels; images are float on the [0, 1] scale.
"""

from pathlib import Path

import cv2
import numpy as np
import torch

MARGIN = 2
"""White pixels between the tiles of a picture."""


def tile(rows: list[torch.Tensor]) -> np.ndarray:
    """Puts rows of images, each (S,3,H,W), into one picture, uint8 (height, width, 3) RGB."""
    bordered = torch.stack(
        [torch.nn.functional.pad(row.detach().float().cpu(), [MARGIN] * 4, value=1.0) for row in rows]
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

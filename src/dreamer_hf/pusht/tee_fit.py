"""Fits a drawn T to patches that show PushT's block, in NumPy: the patches are small, and its calls take less time.

Units: pixels of the simulator, y points down; radians. Shapes: F patches, K starts of fits, P side of a patch.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .task import TEE_CENTER_OFFSET

TEE_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))
"""Center x, y and half sizes of bar and stem in the coordinates of the block. Both are symmetrical about x = 0."""
TEE_EDGE = 2.0
"""The drawn outline extends this far beyond the shape."""
NUM_ANGLES = 36
THIRDS = (0, NUM_ANGLES // 3, -NUM_ANGLES // 3)
WORTH_WHILE = 0.9
"""A start that is less similar than this times the best one never won in 1,536 dreamed frames."""
FIT_STEPS = 6
LARGEST_CHANGE = 8.0
UNIT = np.array([1.0, 1.0, 1 / 50], np.float32)
"""This angle moves the ends of the T by about one pixel."""


@dataclass(frozen=True)
class Patches:
    """F square patches of images.

    Attributes:
        shares: float32 (F, P, P), how much of each pixel is block.
        x, y: float32 (F, P), the places of columns and rows.
        softness: half the width of a pixel, by which edges are soft.
    """

    shares: np.ndarray
    x: np.ndarray
    y: np.ndarray
    softness: float

    def take(self, indices: np.ndarray) -> "Patches":
        """Return some of the patches, which may repeat."""
        return Patches(self.shares[indices], self.x[indices], self.y[indices], self.softness)


def fit_tee(patches: Patches, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the poses of the T that match the patches best.

    Args:
        patches: F of them.
        centers: float32 (F, 2), where the T is about.

    Returns:
        float32 (F, 3), center and angle; float32 (F,), the cosine between patch and drawn T; and float32 (F,), the
        share of its area that is shown.
    """
    starts, is_likely = _starts(patches, centers)
    tried = patches.take(is_likely.nonzero()[1])
    poses, likeness, shown = starts, np.full(is_likely.shape, -1, np.float32), np.zeros(is_likely.shape, np.float32)
    poses[is_likely] = refined = _refine(starts[is_likely], tried)
    tee = _draw(refined, tried)[0]
    overlap, area = (tee * tried.shares).sum(axis=(1, 2)), np.square(tee).sum(axis=(1, 2))
    likeness[is_likely] = overlap / np.sqrt(area * np.square(tried.shares).sum(axis=(1, 2))).clip(1e-8)
    shown[is_likely] = overlap / area
    best, every = likeness.argmax(axis=0), np.arange(len(centers))
    return poses[best, every], likeness[best, every], shown[best, every]


def _starts(patches: Patches, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return poses (3, F, 3) to start from, and (3, F) whether it is worth while.

    They are at the most similar angle, and a third of a turn away from it: a blurred T is a blob with three arms, and
    a fit can settle on the wrong one.
    """
    count, side = patches.shares.shape[:2]
    overlap = patches.shares.reshape(count, -1) @ _turned_tees(side, patches.softness).T
    angles = (overlap.argmax(axis=1) + np.array(THIRDS)[:, None]) % NUM_ANGLES
    similarity = np.take_along_axis(overlap.T, angles, axis=0)
    poses = np.empty((len(THIRDS), count, 3), np.float32)
    poses[..., :2], poses[..., 2] = centers, angles * (2 * np.pi / NUM_ANGLES)
    return poses, similarity >= WORTH_WHILE * similarity[0]


@cache
def _turned_tees(side: int, softness: float) -> np.ndarray:
    """Return a T in the middle of a patch at every angle, each of length 1: (36, P * P)."""
    line = (np.arange(side, dtype=np.float32) - side // 2) * (2 * softness)
    lines = np.broadcast_to(line, (NUM_ANGLES, side))
    poses = np.zeros((NUM_ANGLES, 3), np.float32)
    poses[:, 2] = np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES)
    tees = _draw(poses, Patches(np.zeros((NUM_ANGLES, side, side), np.float32), lines, lines, softness))[0]
    tees = tees.reshape(NUM_ANGLES, -1)
    return tees / np.linalg.norm(tees, axis=1, keepdims=True)


def _refine(poses: np.ndarray, patches: Patches) -> np.ndarray:
    """Improve poses (K, 3) by damped Gauss-Newton steps on the squared difference between patch and drawn T."""
    count = len(poses)
    damping, floor = 1 + 0.01 * np.eye(3, dtype=np.float32), 1e-6 * np.eye(3, dtype=np.float32)
    for _ in range(FIT_STEPS):
        tee, slopes = _draw(poses, patches)
        jacobian = slopes.reshape(count, 3, -1) * UNIT[:, None]
        normal = jacobian @ jacobian.transpose(0, 2, 1) * damping + floor
        missing = (patches.shares - tee).reshape(count, -1, 1)
        change = np.linalg.solve(normal, jacobian @ missing)[..., 0]
        poses = poses + change.clip(-LARGEST_CHANGE, LARGEST_CHANGE) * UNIT
    return poses


def _draw(poses: np.ndarray, patches: Patches) -> tuple[np.ndarray, np.ndarray]:
    """Return a T with soft edges at poses (K, 3): (K, P, P), and its derivatives (K, 3, P, P) by x, y and angle."""
    x, y = patches.x - poses[:, :1], patches.y - poses[:, 1:2]
    cos, sin = np.cos(poses[:, 2:]), np.sin(poses[:, 2:])
    own_x = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    own_y = (cos * y)[:, :, None] - (sin * x)[:, None, :]  # from the center of the T
    outside, slope_x, slope_y = _distance(own_x, own_y + np.float32(TEE_CENTER_OFFSET))
    tee = 1 / (1 + np.exp(np.minimum((outside - np.float32(TEE_EDGE)) / np.float32(patches.softness), 80)))
    # A place moves against the pose, and a larger distance makes the T fainter: the signs cancel.
    steepness = tee * (1 - tee) / np.float32(patches.softness)
    slope_x *= steepness
    slope_y *= steepness
    cos, sin = cos[..., None], sin[..., None]
    slopes = np.empty((len(poses), 3, *tee.shape[1:]), np.float32)
    np.subtract(cos * slope_x, sin * slope_y, out=slopes[:, 0])
    np.add(sin * slope_x, cos * slope_y, out=slopes[:, 1])
    np.subtract(slope_y * own_x, slope_x * own_y, out=slopes[:, 2])
    return tee, slopes


def _distance(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distance of places from the T in its coordinates (inside: negative), and the derivatives by x, y."""
    away = np.abs(x)
    (_, bar_y, *bar), (_, stem_y, *stem) = TEE_BOXES
    bar_x, bar_y = away - np.float32(bar[0]), y - np.float32(bar_y)
    stem_x, stem_y = away - np.float32(stem[0]), y - np.float32(stem_y)
    bar_across, stem_across = np.abs(bar_y) - np.float32(bar[1]), np.abs(stem_y) - np.float32(stem[1])
    to_bar, to_stem = np.maximum(bar_x, bar_across), np.maximum(stem_x, stem_across)
    is_bar = to_bar < to_stem
    sideways = np.where(is_bar, bar_x > bar_across, stem_x > stem_across)
    slope_x = np.copysign(sideways, x)
    slope_y = np.copysign(~sideways, np.where(is_bar, bar_y, stem_y))
    return np.minimum(to_bar, to_stem), slope_x, slope_y


__all__ = ["TEE_BOXES", "Patches", "fit_tee"]

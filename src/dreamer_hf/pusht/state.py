"""Where the agent is and how the block lies in frames of PushT, found from the pixels only.

A dream has no other state than its frames, so this is how its errors are measured in pixels of the simulator. Each
pixel is separated into shares of the known background, agent and block. The agent is the center of the brightest disc
of its color; the block is the pose at which a drawn T matches its share best. Both are therefore found to a fraction
of a pixel, and in blurred frames, too.

Units: pixels of the simulator, [0, 512], y points down; radians. Shapes: F frames, S side of a frame, P side of a
patch.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from torch import nn

from .task import GOAL_POSE, TEE_CENTER_OFFSET, WORLD_SIZE

WHITE, WALL, GOAL = (255, 255, 255), (211, 211, 211), (144, 238, 144)
AGENT = (73, 117, 213)
"""Mean of the two blues of the disc (gym_pusht draws the inside 1.2 times as bright as the edge)."""
BLOCK = (137, 157, 176)
"""Mean of the two slate grays of the T."""
AGENT_RADIUS = 15.0
TEE_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))
"""Center x, y and half sizes of bar and stem in the coordinates of the block."""
TEE_EDGE = 2.0
"""The drawn outline extends this far beyond the shape."""
AGENT_SHARE, AGENT_LIKENESS = 0.4, 0.7
"""The agent counts as not found if it shows a smaller share of its color, or is less similar to a disc (cosine)."""
BLOCK_SHARE, BLOCK_LIKENESS = 0.5, 0.75
"""The block counts as not found if it covers a smaller share of its area, or is less similar to a T (cosine)."""
PATCH = 176.0
"""Width of the patch in which a T is fitted."""
NUM_ANGLES = 36
THIRDS = (0.0, 2 * np.pi / 3, -2 * np.pi / 3)
FIT_STEPS = 6
CHUNK = 512
"""Frames processed at a time."""


@dataclass(frozen=True)
class PushTState:
    """What was found in F frames; NaN where nothing was found.

    Attributes:
        agent: (F, 2) x, y of the agent's center.
        block: (F, 2) x, y of the center of the T (`tee_center` of its pose).
        angle: (F,) angle of the block, in [-pi, pi).
    """

    agent: torch.Tensor
    block: torch.Tensor
    angle: torch.Tensor


@torch.no_grad()
def find_pusht_state(frames: torch.Tensor) -> PushTState:
    """Find agent and block.

    Args:
        frames: (F, 3, S, S) float RGB in [0, 1], of at least 32 pixels, drawn by gym_pusht or generated.
    """
    found = [_find(chunk.float().cpu()) for chunk in frames.split(CHUNK)]
    return PushTState(*(torch.cat(parts) for parts in zip(*found)))


@torch.no_grad()
def find_pusht_agent(frames: torch.Tensor) -> torch.Tensor:
    """Find the agent only, which takes a small part of the time; return what `PushTState.agent` is."""
    found = [_find_disc(_unmix(chunk.float().cpu())[0]) for chunk in frames.split(CHUNK)]
    nothing = torch.tensor(torch.nan)
    return torch.cat([torch.where(is_agent[:, None], agent, nothing) for agent, is_agent in found])


def _find(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    agent_share, block_share = _unmix(frames)
    agent, is_agent = _find_disc(agent_share)
    block, angle, is_block = _fit_tee(block_share)
    nothing = torch.tensor(torch.nan)
    return (
        torch.where(is_agent[:, None], agent, nothing),
        torch.where(is_block[:, None], block, nothing),
        torch.where(is_block, angle, nothing),
    )


def _unmix(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shares (F, S, S) in [0, 1] of agent and block in each pixel.

    They are a least-squares fit over the three colors in which neither share is negative. Otherwise a goal that has
    faded to white would count as additional block and negative agent.
    """
    background = _background(frames.shape[-1])
    colors = torch.stack([torch.tensor(color).div(255).view(3, 1, 1) - background for color in (AGENT, BLOCK)], dim=-1)
    colors = colors.permute(1, 2, 0, 3)  # (S, S, 3, 2): from the background to either color
    difference = (frames - background).permute(0, 2, 3, 1)[..., None]
    together = (torch.linalg.pinv(colors) @ difference).squeeze(-1)
    alone = (colors.mT @ difference).squeeze(-1) / colors.square().sum(dim=-2)
    agent, block = (
        torch.where(together[..., other] < 0, alone[..., one], together[..., one]).clamp(0, 1)
        for one, other in ((0, 1), (1, 0))
    )
    return agent, block


@cache
def _background(size: int) -> torch.Tensor:
    """Return the scene without agent and block: (3, S, S) in [0, 1]."""
    image = np.full((int(WORLD_SIZE), int(WORLD_SIZE), 3), WHITE, np.uint8)
    cv2.rectangle(image, (5, 5), (506, 506), WALL, thickness=4)
    x, y, angle = GOAL_POSE
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for center_x, center_y, half_x, half_y in TEE_BOXES:
        corners = np.array([[-half_x, -half_y], [half_x, -half_y], [half_x, half_y], [-half_x, half_y]])
        corners = (corners + np.array([center_x, center_y])) @ turn.T + np.array([x, y])
        cv2.fillPoly(image, [corners.round().astype(np.int32)], GOAL)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def _find_disc(share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the disc with the largest share: return its center (F, 2) and (F,) whether it is an agent.

    An agent is blue enough, and a disc, not a part of something larger.
    """
    scale = WORLD_SIZE / share.shape[-1]
    reach = AGENT_RADIUS + 1.5 * scale
    center = _brightest(share, AGENT_RADIUS + scale)
    patch, places = _cut_out(share, center, 2 * (reach + 2 * scale))
    for _ in range(3):
        is_near = (places - center[:, None, None]).norm(dim=-1) < reach
        center, total = _centroid(patch * is_near, places)
    distance = (places - center[:, None, None]).norm(dim=-1)
    disc = torch.sigmoid((AGENT_RADIUS - distance) / (scale / 2))
    area = torch.pi * (AGENT_RADIUS / scale) ** 2
    return center, (total > AGENT_SHARE * area) & (_likeness(disc, patch) > AGENT_LIKENESS)


def _centroid(weight: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (F, 2) of places (F, P, P, 2), weighted by (F, P, P), and the sum of the weights (F,)."""
    total = weight.sum(dim=(1, 2))
    return torch.einsum("fpq,fpqx->fx", weight, places) / total.clamp_min(1e-6)[:, None], total


def _brightest(share: torch.Tensor, radius: float) -> torch.Tensor:
    """Return the center (F, 2) of the disc of `radius` that contains the largest share."""
    size = share.shape[-1]
    radius = radius * size / WORLD_SIZE
    reach = int(np.ceil(radius))
    offsets = torch.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).float()
    sums = nn.functional.conv2d(share[:, None], disc[None, None], padding=reach).flatten(1)
    row, column = sums.argmax(dim=1) // size, sums.argmax(dim=1) % size
    return torch.stack([_place(column, size), _place(row, size)], dim=-1)


def _place(index: torch.Tensor, size: int) -> torch.Tensor:
    """Return the y or x of the middle of a row or column of a frame."""
    return (index + 0.5) * (WORLD_SIZE / size)


def _cut_out(share: torch.Tensor, center: torch.Tensor, width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patch (F, P, P) of `width` around the pixel at `center` (F, 2), and the places (F, P, P, 2) of its
    pixels. Pixels outside of the frame are empty."""
    size = share.shape[-1]
    reach = int(np.ceil(width / 2 * size / WORLD_SIZE))
    middle = (center * size / WORLD_SIZE).floor().long().clamp(0, size - 1)
    columns, rows = (middle[:, axis, None] + torch.arange(-reach, reach + 1) for axis in (0, 1))
    padded = nn.functional.pad(share, [reach] * 4)
    frame = torch.arange(len(share))[:, None, None]
    patch = padded[frame, rows[:, :, None] + reach, columns[:, None, :] + reach]
    x, y = _place(columns, size)[:, None, :], _place(rows, size)[:, :, None]
    return patch, torch.stack(torch.broadcast_tensors(x, y), dim=-1)


def _fit_tee(share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return center (F, 2) and angle (F,) of the T that matches the share best, and (F,) whether it is a block."""
    softness = WORLD_SIZE / share.shape[-1] / 2
    center, _ = _centroid(*_cut_out(share, _brightest(share, 60), PATCH))
    patch, places = _cut_out(share, center, PATCH)
    poses = torch.stack([_refine(start, patch, places, softness) for start in _starts(center, patch, softness)])
    likeness = torch.stack([_likeness(_draw_tee(pose, places, softness)[0], patch) for pose in poses])
    best, index = likeness.max(dim=0)
    pose = poses[index, torch.arange(len(index))]
    tee, _ = _draw_tee(pose, places, softness)
    shown = (tee * patch).sum(dim=(1, 2)) / tee.square().sum(dim=(1, 2))
    is_block = (shown > BLOCK_SHARE) & (best > BLOCK_LIKENESS)
    return pose[:, :2], (pose[:, 2] + torch.pi) % (2 * torch.pi) - torch.pi, is_block


def _likeness(tee: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Return the cosine, in [0, 1], between patches (F, P, P)."""
    return nn.functional.cosine_similarity(tee.flatten(1), patch.flatten(1), dim=1)


def _starts(center: torch.Tensor, patch: torch.Tensor, softness: float) -> torch.Tensor:
    """Return poses (3, F, 3) to start from: at the most similar angle, and a third of a turn away from it.

    A blurred T is a blob with three arms, and a fit can settle on the wrong one.
    """
    reach = patch.shape[-1] // 2
    line = torch.arange(-reach, reach + 1) * (2 * softness)
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).expand(NUM_ANGLES, -1, -1, -1)
    angles = torch.arange(NUM_ANGLES) * (2 * torch.pi / NUM_ANGLES)
    poses = torch.stack([torch.zeros(NUM_ANGLES), torch.zeros(NUM_ANGLES), angles], dim=1)
    tees, _ = _draw_tee(poses, places, softness)
    overlap = patch.flatten(1) @ nn.functional.normalize(tees.flatten(1), dim=1).T
    best = angles[overlap.argmax(dim=1)]
    return torch.stack([torch.cat([center, (best + turn)[:, None]], dim=1) for turn in THIRDS])


def _draw_tee(pose: torch.Tensor, places: torch.Tensor, softness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a T with soft edges, (F, P, P), and its derivatives (F, P, P, 3) by x, y and angle.

    Args:
        pose: (F, 3) center and angle.
        places: (F, P, P, 2) where to draw.
        softness: width of the edges.
    """
    x, y = (places - pose[:, None, None, :2]).unbind(-1)
    cos, sin = pose[:, 2].cos()[:, None, None], pose[:, 2].sin()[:, None, None]
    own_x, own_y = cos * x + sin * y, cos * y - sin * x + TEE_CENTER_OFFSET
    outside, slope_x, slope_y = _distance_to_tee(own_x, own_y)
    tee = torch.sigmoid((TEE_EDGE - outside) / softness)
    # A place moves against the pose, and a larger distance makes the T fainter: the signs cancel.
    steepness = tee * (1 - tee) / softness
    along_x = steepness * (cos * slope_x - sin * slope_y)
    along_y = steepness * (sin * slope_x + cos * slope_y)
    turning = steepness * (slope_y * own_x - slope_x * (own_y - TEE_CENTER_OFFSET))
    return tee, torch.stack([along_x, along_y, turning], dim=-1)


def _distance_to_tee(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the distance of places from the T in its coordinates (inside: negative), and the derivatives by x, y."""
    nearest = None
    for center_x, center_y, half_x, half_y in TEE_BOXES:
        outside_x, outside_y = (x - center_x).abs() - half_x, (y - center_y).abs() - half_y
        is_x = outside_x > outside_y
        slope_x = torch.where(is_x, (x - center_x).sign(), 0)
        slope_y = torch.where(is_x, 0, (y - center_y).sign())
        box = torch.maximum(outside_x, outside_y), slope_x, slope_y
        if nearest is not None:
            is_nearer = box[0] < nearest[0]
            box = tuple(torch.where(is_nearer, ours, theirs) for ours, theirs in zip(box, nearest))
        nearest = box
    return nearest


def _refine(pose: torch.Tensor, patch: torch.Tensor, places: torch.Tensor, softness: float) -> torch.Tensor:
    """Improve a pose (F, 3) by damped Gauss-Newton steps on the squared difference between patch and drawn T."""
    unit = torch.tensor([1.0, 1.0, 1 / 50])  # This angle moves the ends of the T by about one pixel.
    for _ in range(FIT_STEPS):
        tee, slopes = _draw_tee(pose, places, softness)
        jacobian = slopes.flatten(1, 2) * unit
        normal = jacobian.mT @ jacobian
        normal += 0.01 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2)) + 1e-6 * torch.eye(3)
        change = torch.linalg.solve(normal, jacobian.mT @ (patch - tee).flatten(1)[..., None]).squeeze(-1)
        pose = pose + change.clamp(-8, 8) * unit
    return pose


__all__ = ["PushTState", "find_pusht_agent", "find_pusht_state"]

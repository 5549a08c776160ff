"""Where the agent is and how the block lies in pictures of PushT, read off the pixels alone.

A dream has no state but its picture; this is how far off it is measured in pixels of the simulator. Every pixel is
unmixed into the known background, agent and block; the agent is the center of the brightest disc of agent color, the
block the pose at which a drawn T covers its share best. So both are finer than a pixel, and survive some blur.

Units: pixels of the simulator, [0, 512], y downwards; radians. Shapes: F frames, S side of a frame, P side of a patch.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from .player import GOAL_POSE, TEE_CENTER_OFFSET, WORLD_SIZE

WHITE, WALL, GOAL = (255, 255, 255), (211, 211, 211), (144, 238, 144)
AGENT = (73, 117, 213)
"""Mean of the disc's two blues (gym_pusht draws the inside 1.2 times as bright as the edge)."""
BLOCK = (137, 157, 176)
"""Mean of the T's two slate grays."""
AGENT_RADIUS = 15.0
TEE_BOXES = ((0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0))
"""Center x, y and half sizes of bar and stem in the block's own frame."""
TEE_EDGE = 2.0
"""The drawn outline reaches this far beyond the shape."""
AGENT_SHARE, AGENT_LIKENESS = 0.4, 0.7
"""An agent that shows less than this share of its color, or is less alike to a disc (cosine), counts as not found."""
BLOCK_SHARE, BLOCK_LIKENESS = 0.5, 0.75
"""A block that covers less than this share of its area, or is less alike to a T (cosine), counts as not found."""
PATCH = 176.0
"""Width of the patch that a T is fitted in."""
NUM_ANGLES = 36
THIRDS = (0.0, 2 * np.pi / 3, -2 * np.pi / 3)
FIT_STEPS = 6
CHUNK = 512
"""Frames at a time."""


@dataclass(frozen=True)
class PushTState:
    """What was found in F pictures; entries of what was not found are NaN.

    Attributes:
        agent: (F,2) x, y of the agent's middle.
        block: (F,2) x, y of the T's middle (`data.pusht.tee_center` of its pose).
        angle: (F,) of the block, in [-pi, pi).
    """

    agent: torch.Tensor
    block: torch.Tensor
    angle: torch.Tensor


@torch.no_grad()
def find_pusht_state(frames: torch.Tensor) -> PushTState:
    """Finds agent and block.

    Args:
        frames: (F,3,S,S) float in [0, 1], RGB, drawn by gym_pusht at any size from 32 pixels up, or dreamt.
    """
    found = [_find(chunk.float().cpu()) for chunk in frames.split(CHUNK)]
    return PushTState(*(torch.cat(parts) for parts in zip(*found)))


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
    """The shares (F,S,S) in [0, 1] that agent and block have in every pixel.

    By least squares over the three colors, neither share below zero: else a goal that has faded to white would pass for
    more block than there is and less agent than none.
    """
    background = _background(frames.shape[-1])
    colors = torch.stack([torch.tensor(color).div(255).view(3, 1, 1) - background for color in (AGENT, BLOCK)], dim=-1)
    colors = colors.permute(1, 2, 0, 3)  # (S,S,3,2): from the background to either color
    difference = (frames - background).permute(0, 2, 3, 1)[..., None]
    together = (torch.linalg.pinv(colors) @ difference).squeeze(-1)
    alone = (colors.mT @ difference).squeeze(-1) / colors.square().sum(dim=-2)
    agent, block = (
        torch.where(together[..., other] < 0, alone[..., one], together[..., one]).clamp(0, 1)
        for one, other in ((0, 1), (1, 0))
    )
    return agent, block


def _background(size: int) -> torch.Tensor:
    """The scene without agent and block: (3,S,S) in [0, 1]."""
    picture = np.full((int(WORLD_SIZE), int(WORLD_SIZE), 3), WHITE, np.uint8)
    cv2.rectangle(picture, (5, 5), (506, 506), WALL, thickness=4)
    x, y, angle = GOAL_POSE
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for center_x, center_y, half_x, half_y in TEE_BOXES:
        corners = np.array([[-half_x, -half_y], [half_x, -half_y], [half_x, half_y], [-half_x, half_y]])
        corners = (corners + np.array([center_x, center_y])) @ turn.T + np.array([x, y])
        cv2.fillPoly(picture, [corners.round().astype(np.int32)], GOAL)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def _find_disc(share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(F,S,S) -> center (F,2) of the disc that holds the most, and (F,) whether that is an agent: blue enough, and a
    disc, not a part of something larger."""
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
    """(F,P,P) at places (F,P,P,2) -> weighted mean place (F,2) and summed weight (F,)."""
    total = weight.sum(dim=(1, 2))
    return torch.einsum("fpq,fpqx->fx", weight, places) / total.clamp_min(1e-6)[:, None], total


def _brightest(share: torch.Tensor, radius: float) -> torch.Tensor:
    """(F,S,S) -> (F,2) middle of the disc of `radius` in which the most lies."""
    size = share.shape[-1]
    radius = radius * size / WORLD_SIZE
    reach = int(np.ceil(radius))
    offsets = torch.arange(-reach, reach + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).float()
    sums = nn.functional.conv2d(share[:, None], disc[None, None], padding=reach).flatten(1)
    row, column = sums.argmax(dim=1) // size, sums.argmax(dim=1) % size
    return torch.stack([_place(column, size), _place(row, size)], dim=-1)


def _place(index: torch.Tensor, size: int) -> torch.Tensor:
    """Row or column of a picture -> y or x of its middle."""
    return (index + 0.5) * (WORLD_SIZE / size)


def _cut_out(share: torch.Tensor, center: torch.Tensor, width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The patch (F,P,P) of `width` around the pixel at `center` (F,2), and the places (F,P,P,2) of its pixels; what
    lies beyond the walls is empty."""
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
    """(F,S,S) -> middle (F,2) and angle (F,) of the T that covers it best, and (F,) whether that is a block."""
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
    """Cosine between pictures (F,P,P), in [0, 1]."""
    return nn.functional.cosine_similarity(tee.flatten(1), patch.flatten(1), dim=1)


def _starts(center: torch.Tensor, patch: torch.Tensor, softness: float) -> torch.Tensor:
    """Poses (3,F,3) to start from: the likeliest angle, and those a third of a turn away.

    Blurred, a T is a blob with three arms: a fit can settle on the wrong one.
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
    """A T with soft edges, (F,P,P), and its slopes (F,P,P,3) along x, y and angle.

    Args:
        pose: (F,3) middle and angle.
        places: (F,P,P,2) where to draw.
        softness: width of the edges.
    """
    x, y = (places - pose[:, None, None, :2]).unbind(-1)
    cos, sin = pose[:, 2].cos()[:, None, None], pose[:, 2].sin()[:, None, None]
    own_x, own_y = cos * x + sin * y, cos * y - sin * x + TEE_CENTER_OFFSET
    outside, slope_x, slope_y = _distance_to_tee(own_x, own_y)
    tee = torch.sigmoid((TEE_EDGE - outside) / softness)
    steepness = tee * (1 - tee) / softness  # against the distance; the place moves against the pose
    along_x = steepness * (cos * slope_x - sin * slope_y)
    along_y = steepness * (sin * slope_x + cos * slope_y)
    turning = steepness * (slope_y * own_x - slope_x * (own_y - TEE_CENTER_OFFSET))
    return tee, torch.stack([along_x, along_y, turning], dim=-1)


def _distance_to_tee(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How far outside the T (inside: negative) places in its own frame lie, and the slopes of that along x and y."""
    nearest = None
    for center_x, center_y, half_x, half_y in TEE_BOXES:
        beside_x, beside_y = (x - center_x).abs() - half_x, (y - center_y).abs() - half_y
        is_x = beside_x > beside_y
        slope_x = torch.where(is_x, (x - center_x).sign(), 0)
        slope_y = torch.where(is_x, 0, (y - center_y).sign())
        box = torch.maximum(beside_x, beside_y), slope_x, slope_y
        if nearest is not None:
            is_nearer = box[0] < nearest[0]
            box = tuple(torch.where(is_nearer, ours, theirs) for ours, theirs in zip(box, nearest))
        nearest = box
    return nearest


def _refine(pose: torch.Tensor, patch: torch.Tensor, places: torch.Tensor, softness: float) -> torch.Tensor:
    """Gauss-Newton (damped) on the squared difference between patch and drawn T, from a pose (F,3)."""
    unit = torch.tensor([1.0, 1.0, 1 / 50])  # an angle that moves the T's ends by about one pixel
    for _ in range(FIT_STEPS):
        tee, slopes = _draw_tee(pose, places, softness)
        jacobian = slopes.flatten(1, 2) * unit
        normal = jacobian.mT @ jacobian
        normal += 0.01 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2)) + 1e-6 * torch.eye(3)
        change = torch.linalg.solve(normal, jacobian.mT @ (patch - tee).flatten(1)[..., None]).squeeze(-1)
        pose = pose + change.clamp(-8, 8) * unit
    return pose


__all__ = ["PushTState", "find_pusht_state"]

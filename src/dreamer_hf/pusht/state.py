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

from .task import GOAL_POSE, WORLD_SIZE
from .tee_fit import TEE_BOXES, Patches, fit_tee

WHITE, WALL, GOAL = (255, 255, 255), (211, 211, 211), (144, 238, 144)
AGENT = (73, 117, 213)
"""Mean of the two blues of the disc (gym_pusht draws the inside 1.2 times as bright as the edge)."""
BLOCK = (137, 157, 176)
"""Mean of the two slate grays of the T."""
AGENT_RADIUS = 15.0
AGENT_SHARE, AGENT_LIKENESS = 0.4, 0.7
"""The agent counts as not found if it shows a smaller share of its color, or is less similar to a disc (cosine)."""
BLOCK_SHARE, BLOCK_LIKENESS = 0.5, 0.75
"""The block counts as not found if it covers a smaller share of its area, or is less similar to a T (cosine)."""
PATCH = 176.0
"""Width of the patch in which a T is fitted."""
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
    found = []
    for chunk in frames.split(CHUNK):
        agent_share, block_share = _unmix(chunk.float().cpu())
        found.append((*_find_disc(agent_share), *_fit_tee(block_share)))
    agent, is_agent, block, angle, is_block = (torch.cat(parts) for parts in zip(*found))
    return PushTState(_where(is_agent, agent), _where(is_block, block), _where(is_block, angle))


@torch.no_grad()
def find_pusht_agent(frames: torch.Tensor) -> torch.Tensor:
    """Find the agent only, which takes a small part of the time; return what `PushTState.agent` is."""
    found = [_find_disc(*_unmix(chunk.float().cpu(), (0,))) for chunk in frames.split(CHUNK)]
    agent, is_agent = (torch.cat(parts) for parts in zip(*found))
    return _where(is_agent, agent)


@torch.no_grad()
def find_pusht_block(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the block only; return what `PushTState.block` and `PushTState.angle` are."""
    found = [_fit_tee(*_unmix(chunk.float().cpu(), (1,))) for chunk in frames.split(CHUNK)]
    block, angle, is_block = (torch.cat(parts) for parts in zip(*found))
    return _where(is_block, block), _where(is_block, angle)


def _where(is_found: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return values (F, ...), NaN where nothing was found."""
    return torch.where(is_found.view(-1, *[1] * (values.ndim - 1)), values, torch.tensor(torch.nan))


def _unmix(frames: torch.Tensor, shares: tuple[int, ...] = (0, 1)) -> list[torch.Tensor]:
    """Return the shares (F, S, S) in [0, 1] of the agent (0) and the block (1) in each pixel, or one of the two.

    They are a least-squares fit over the three colors in which neither share is negative. Otherwise a goal that has
    faded to white would count as additional block and negative agent.
    """
    weights, rests = _unmixing(frames.shape[-1])
    colors = [channel.contiguous() for channel in frames.unbind(dim=1)]

    @cache
    def fit(index: int) -> torch.Tensor:
        share = torch.addcmul(rests[index], colors[0], weights[index, 0])
        return share.addcmul_(colors[1], weights[index, 1]).addcmul_(colors[2], weights[index, 2])

    return [torch.where(fit(1 - one) < 0, fit(2 + one), fit(one)).clamp_(0, 1) for one in shares]


@cache
def _unmixing(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights (4, 3, S, S) of the three colors, and constants (4, S, S), that give four shares.

    The first two are those of agent and block if both are there; the other two, of either if the other one is not.
    """
    background = _background(size).double()
    colors = torch.stack([torch.tensor(color).div(255).view(3, 1, 1) - background for color in (AGENT, BLOCK)], dim=-1)
    colors = colors.permute(1, 2, 0, 3)  # (S, S, 3, 2): from the background to either color
    together = torch.linalg.pinv(colors)
    alone = (colors / colors.square().sum(dim=-2, keepdim=True)).mT
    weights = torch.cat([together, alone], dim=-2).permute(2, 3, 0, 1)
    return weights.float(), -(weights * background).sum(dim=1).float()


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
    # Sums over the rows of the disc: PyTorch has no fast convolution for a single channel.
    along = nn.functional.pad(share, [reach + 1, reach, reach, reach]).cumsum(dim=2)
    sums = torch.zeros_like(share)
    for offset in range(-reach, reach + 1):
        if abs(offset) > radius:
            continue
        half = int(np.sqrt(radius**2 - offset**2))
        rows = along[:, reach + offset : reach + offset + size]
        sums += rows[:, :, reach + 1 + half : reach + 1 + half + size]
        sums -= rows[:, :, reach - half : reach - half + size]
    brightest = sums.flatten(1).argmax(dim=1)
    row, column = brightest // size, brightest % size
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
    x, y = places[:, 0, :, 0], places[:, :, 0, 1]
    found = fit_tee(Patches(patch.numpy(), x.numpy(), y.numpy(), softness), center.numpy())
    pose, likeness, shown = map(torch.from_numpy, found)
    is_block = (shown > BLOCK_SHARE) & (likeness > BLOCK_LIKENESS)
    return pose[:, :2], (pose[:, 2] + torch.pi) % (2 * torch.pi) - torch.pi, is_block


def _likeness(disc: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Return the cosine, in [0, 1], between patches (F, P, P)."""
    return nn.functional.cosine_similarity(disc.flatten(1), patch.flatten(1), dim=1)


__all__ = ["PushTState", "find_pusht_agent", "find_pusht_block", "find_pusht_state"]

"""Planning in a dream of PushT: moving the agent, or the block, to a target, measured on the dream's frames only.

Shapes: N candidates, H, W pixels. Positions are in pixels of the simulator's 512.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..action_space import ActionSpace
from ..dreams import Dreams
from ..loading import load_world
from ..media import VideoWriter
from ..modeling_dreamer_world import DreamerWorldModel
from ..planning import CrossEntropyPlanner
from ..start_frames import StartFrames, load_start_frames
from .compare import RealPushT
from .pusht_options import ReachOptions
from .state_errors import is_pusht
from .task import WORLD_SIZE, tee_center

AGENT_AREA, BLOCK_AREA = 700 / WORLD_SIZE**2, 8000 / WORLD_SIZE**2
"""About which fraction of a frame the agent and the block cover."""
VIDEO_SIDE = 256

Frames = Iterator[tuple[np.ndarray, float]]
"""Frames, uint8 (H, W, 3), each with the distance of what is moved from its target."""


def reach(options: ReachOptions) -> str:
    """Move the agent or the block of PushT to a target, by planning in dreams, and return how close it came.

    The planner (cross-entropy method) tries many futures as rows of one rollout. Its first action is executed in the
    dream or, with `options.real`, in the gym-pusht simulator, from whose frames the next plan starts.

    Raises:
        ValueError, OSError: the world cannot be loaded or is not one of PushT, or as in `CrossEntropyPlanner`.
    """
    world = load_world(options.model)
    space = ActionSpace.from_config(world.config.dynamics_config)
    if space.size != 2:
        raise ValueError(f"PushT has 2 actions but this world has {space.size}: choose a world of PushT.")
    planner = CrossEntropyPlanner(
        space,
        distance_to(options.to, COLORS[options.move]),
        options.horizon,
        options.candidates,
        options.elites,
        options.rounds,
        seed=options.seed,
    )
    episode = _real_episode(world, planner, options) if options.real else _dream_episode(world, planner, options)
    video = VideoWriter(options.record, world.config.dynamics_config.fps) if options.record else None
    distances = []
    for frame, distance in tqdm(episode, total=options.steps + 1, desc="planning", unit="step"):
        distances.append(distance)
        if video is not None:
            video.write(_with_target(frame, options.to))
    if video is not None:
        video.close()
    where = "in the simulator" if options.real else "in the dream, by its frames"
    return (
        f"{options.move} to {options.to[0]:g} {options.to[1]:g}, {where}: {distances[0]:.0f} pixels away at the "
        f"start, {distances[-1]:.0f} at the end, {min(distances):.0f} at the closest."
    )


def _dream_episode(world: DreamerWorldModel, planner: CrossEntropyPlanner, options: ReachOptions) -> Frames:
    """Act in a dream. The distances are measured on its frames."""
    starts = load_start_frames(options.model)
    if not is_pusht(starts.pixel_values_videos[:, -1]):
        raise ValueError(f"the start frames of {options.model} do not show PushT: choose a world of PushT.")
    dreams = Dreams(world, starts)
    (dream,) = dreams.begin([options.seed % len(starts)], seeds=[options.seed])
    yield dream.frame, _cost(planner, dream.frame)
    for _ in range(options.steps):
        dreams.step([dream], [planner.plan(dreams.rollout([dream])).actions[0]])
        yield dream.frame, _cost(planner, dream.frame)


def _real_episode(world: DreamerWorldModel, planner: CrossEntropyPlanner, options: ReachOptions) -> Frames:
    """Act in the simulator. Each plan starts from its last frames; its state is used for the distances only."""
    relative = None if options.actions == "auto" else options.actions == "relative"
    real = RealPushT(world.config, relative, options.seed, num_starts=1)
    dreams, past = Dreams(world), real.starts
    yield real.frame, _true_distance(real, options)
    for step in range(options.steps):
        (dream,) = dreams.begin(past, seeds=[options.seed + step])
        action = planner.plan(dreams.rollout([dream])).actions[0]
        real.simulator.step(action)
        frame = real.simulator.render()
        past = _appended(past, frame, action, world.config.dynamics_config.context_length)
        yield frame, _true_distance(real, options)


def _appended(past: StartFrames, frame: np.ndarray, action: np.ndarray, length: int) -> StartFrames:
    """Return the last `length` frames of a start of one row and one more frame, with their actions."""
    frames = torch.cat([past.pixel_values_videos, torch.from_numpy(frame).permute(2, 0, 1)[None, None]], dim=1)
    actions = torch.cat([past.actions, torch.from_numpy(action)[None, None]], dim=1)
    mask = torch.cat([past.action_mask, torch.ones(1, 1, dtype=torch.bool)], dim=1)
    return StartFrames(frames[:, -length:], actions[:, -length:], mask[:, -length:])


def _true_distance(real: RealPushT, options: ReachOptions) -> float:
    here = real.simulator.agent if options.move == "agent" else tee_center(real.simulator.block_pose)
    return float(np.linalg.norm(here - options.to))


def _cost(planner: CrossEntropyPlanner, frame: np.ndarray) -> float:
    return float(planner.cost(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255))


def agent_color(frames: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return how blue each pixel of frames (N, 3, H, W) in [0, 1] is, and the agent's fraction of a frame."""
    return (frames[:, 2] - frames[:, :2].amax(dim=1) - 0.1).clamp_min(0), AGENT_AREA


def block_color(frames: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return how gray each pixel is, neither white nor the goal's green, and the block's fraction of a frame."""
    return (0.8 - frames.amax(dim=1)).clamp_min(0), BLOCK_AREA


COLORS = {"agent": agent_color, "block": block_color}


def distance_to(target: tuple[float, float], color: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the cost of frames (N, 3, H, W): the distance (N,) of a colored thing's center from a target.

    If a dream has lost the thing, the cost is the distance to the other side of the table.
    """

    def cost(frames: torch.Tensor) -> torch.Tensor:
        weight, area = color(frames.float())
        total = weight.sum(dim=(1, 2))
        height, width = weight.shape[1:]
        y, x = ((torch.arange(size, device=weight.device) + 0.5) * WORLD_SIZE / size for size in (height, width))
        center_x = (weight * x).sum(dim=(1, 2)) / total.clamp_min(1e-6)
        center_y = (weight * y[:, None]).sum(dim=(1, 2)) / total.clamp_min(1e-6)
        distance = torch.hypot(center_x - target[0], center_y - target[1])
        # A quarter of the full color over a quarter of the usual area counts as visible.
        visible = (total / (0.25 * 0.25 * area * height * width)).clamp_max(1)
        return distance * visible + WORLD_SIZE * (1 - visible)

    return cost


def _with_target(frame: np.ndarray, target: tuple[float, float]) -> np.ndarray:
    """Return an enlarged frame with a red cross at the target."""
    image = cv2.resize(frame, (VIDEO_SIDE, VIDEO_SIDE), interpolation=cv2.INTER_NEAREST)
    x, y = (round(value / WORLD_SIZE * VIDEO_SIDE) for value in target)
    return cv2.drawMarker(image, (x, y), (220, 30, 30), cv2.MARKER_CROSS, 16, 2)


__all__ = ["agent_color", "block_color", "distance_to", "reach"]

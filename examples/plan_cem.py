"""Plans in a dream of PushT: moves the agent, or the block, to a place, measured on dreamt frames alone.

    python examples/plan_cem.py --model pusht-tiny --move agent --to 400 120
    python examples/plan_cem.py --model pusht-tiny --move block --to 256 256 --real --record plan.mp4

The planner (cross-entropy method) tries many futures as rows of one rollout. Its first action is done in the dream, or with
--real in the gym-pusht simulator, whose pictures the next plan starts from. Positions are pixels of the simulator's 512.
"""

import argparse
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from tqdm import tqdm

from dreamer_hf import DreamerWorldModel
from dreamer_hf.action_space import ActionSpace
from dreamer_hf.cli import run_script
from dreamer_hf.envs.world import DreamerWorldEnv
from dreamer_hf.loading import load_world
from dreamer_hf.media import VideoWriter
from dreamer_hf.planning import CrossEntropyPlanner
from dreamer_hf.play.play_options import ACTION_FORMS
from dreamer_hf.pusht.compare import RealPushT
from dreamer_hf.pusht.player import WORLD_SIZE, tee_center
from dreamer_hf.start_frames import load_start_frames

AGENT_SHARE, BLOCK_SHARE = 700 / WORLD_SIZE**2, 8000 / WORLD_SIZE**2
"""About how much of the picture the agent and the block cover."""


def main() -> None:
    args = parse_arguments()
    world = load_world(args.model)
    space = ActionSpace.from_config(world.config.dynamics_config)
    if space.size != 2:
        raise ValueError(f"PushT has 2 actions but this world has {space.size}: plan in a world of PushT.")
    look = LOOKS[args.move]
    planner = CrossEntropyPlanner(
        space, distance_to(args.to, look), args.horizon, args.candidates, args.elites, args.rounds, seed=args.seed
    )
    episode = real_episode(world, planner, args) if args.real else dreamt_episode(world, planner, args)
    recorder = VideoWriter(args.record, world.config.dynamics_config.fps or 10) if args.record else None
    distances = []
    for frame, distance in tqdm(episode, total=args.steps + 1, desc="planning", unit="step"):
        distances.append(distance)
        if recorder is not None:
            recorder.write(with_target(frame, args.to))
    if recorder is not None:
        recorder.close()
    where = "in the simulator" if args.real else "in the dream, by its frames"
    print(
        f"{args.move} to {args.to}, {where}: {distances[0]:.0f} pixels away at first, {distances[-1]:.0f} at the end,"
    )
    print(f"{min(distances):.0f} at its nearest.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="world of PushT: a folder or a Hub repository")
    parser.add_argument("--move", choices=LOOKS, default="agent", help="what to move (default %(default)s)")
    parser.add_argument("--to", type=float, nargs=2, default=(400.0, 120.0), metavar=("X", "Y"), help="where to")
    parser.add_argument("--real", action="store_true", help="act in the simulator instead of the dream")
    parser.add_argument(
        "--actions", choices=ACTION_FORMS, default="auto", help="with --real: what the world's actions are"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps to act (default %(default)s)")
    parser.add_argument("--horizon", type=int, default=6, help="steps to look ahead (default %(default)s)")
    parser.add_argument("--candidates", type=int, default=32, help="futures of a round (default %(default)s)")
    parser.add_argument("--elites", type=int, default=5, help="of these, how many are kept (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of a plan (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of start, noise and planner (default %(default)s)")
    parser.add_argument("--record", metavar="FILE.mp4", help="film what happened")
    args = parser.parse_args()
    if args.steps < 1 or not all(0 <= value <= WORLD_SIZE for value in args.to):
        raise ValueError(f"--steps {args.steps} --to {args.to}: give at least 1 step and a place in 0 to 512.")
    args.to = tuple(args.to)
    return args


def dreamt_episode(world: DreamerWorldModel, planner: CrossEntropyPlanner, args) -> Iterator[tuple[np.ndarray, float]]:
    """Acts in a dream: each frame, and how far what is moved seems to be from the target."""
    env = DreamerWorldEnv(world, start=load_start_frames(args.model))
    frame, _ = env.reset(seed=args.seed)
    yield frame, float(planner.cost(as_batch(frame)))
    for _ in range(args.steps):
        frame, *_ = env.step(planner.plan(env.rollout).actions[0])
        yield frame, float(planner.cost(as_batch(frame)))


def real_episode(world: DreamerWorldModel, planner: CrossEntropyPlanner, args) -> Iterator[tuple[np.ndarray, float]]:
    """Acts in the simulator: each picture, and how far what is moved is from the target.

    Each plan dreams on from the last pictures; the simulator's own state is used for the printed distances alone.
    """
    relative = None if args.actions == "auto" else args.actions == "relative"
    real = RealPushT(world.config, relative, args.seed, num_starts=1)
    frames, actions, mask = (values[0].unbind() for values in vars(real.starts).values())
    frames, actions, mask, reach = [*frames], [*actions], [*mask], world.config.dynamics_config.context_length
    yield real.frame, true_distance(real, args)
    for _ in range(args.steps):
        recent = (torch.stack(values[-reach:])[None].to(world.device) for values in (frames, actions, mask))
        pixels, *steering = recent
        rollout = world.start_rollout((pixels / 255).to(world.dtype), *steering)
        action = planner.plan(rollout).actions[0]
        real.simulator.step(action)
        picture = real.simulator.picture()
        frames.append(torch.from_numpy(picture).permute(2, 0, 1))
        actions.append(torch.from_numpy(action))
        mask.append(torch.tensor(True))
        yield picture, true_distance(real, args)


def true_distance(real: RealPushT, args) -> float:
    here = real.simulator.agent if args.move == "agent" else tee_center(real.simulator.block_pose)
    return float(np.linalg.norm(here - args.to))


def agent_look(frames: torch.Tensor) -> tuple[torch.Tensor, float]:
    """How blue each pixel is, (N,H,W), for frames (N,3,H,W) in [0, 1]; and the agent's share of the picture."""
    return (frames[:, 2] - frames[:, :2].amax(dim=1) - 0.1).clamp_min(0), AGENT_SHARE


def block_look(frames: torch.Tensor) -> tuple[torch.Tensor, float]:
    """How gray each pixel is, neither white nor the goal's green; and the block's share of the picture."""
    return (0.8 - frames.amax(dim=1)).clamp_min(0), BLOCK_SHARE


LOOKS = {"agent": agent_look, "block": block_look}


def distance_to(target: tuple[float, float], look: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """The cost of frames (N,3,H,W): how far the middle of what is looked for is from a target, in simulator pixels.

    Where a dream has lost sight of it, the cost is that of the other side of the table.
    """

    def cost(frames: torch.Tensor) -> torch.Tensor:
        weight, share = look(frames.float())
        total = weight.sum(dim=(1, 2))
        height, width = weight.shape[1:]
        y, x = ((torch.arange(size, device=weight.device) + 0.5) * WORLD_SIZE / size for size in (height, width))
        middle_x = (weight * x).sum(dim=(1, 2)) / total.clamp_min(1e-6)
        middle_y = (weight * y[:, None]).sum(dim=(1, 2)) / total.clamp_min(1e-6)
        distance = torch.hypot(middle_x - target[0], middle_y - target[1])
        # A quarter of the full color over the usual area counts as seen.
        seen = (total / (0.25 * 0.25 * share * height * width)).clamp_max(1)
        return distance * seen + WORLD_SIZE * (1 - seen)

    return cost


def as_batch(frame: np.ndarray) -> torch.Tensor:
    """uint8 (H,W,3) -> float (1,3,H,W) in [0, 1]."""
    return torch.from_numpy(frame).permute(2, 0, 1)[None] / 255


def with_target(frame: np.ndarray, target: tuple[float, float], side: int = 256) -> np.ndarray:
    """An enlarged frame with a red cross at the target."""
    picture = cv2.resize(frame, (side, side), interpolation=cv2.INTER_NEAREST)
    x, y = (round(value / WORLD_SIZE * side) for value in target)
    return cv2.drawMarker(picture, (x, y), (220, 30, 30), cv2.MARKER_CROSS, 16, 2)


if __name__ == "__main__":
    run_script(main)

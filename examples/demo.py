"""Loads the world that ships with this repository and steers four dreams from one start: what `make demo` runs.

    python examples/demo.py

Writes dream.mp4 and dream.gif (the same past, then right, down, left and up) and prints how good the world is on
held-out episodes, as examples/evaluate.py measured it. Seconds on a CPU, nothing is downloaded.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from dreamer_hf import DreamerWorldModel
from dreamer_hf.cli import run_script
from dreamer_hf.evaluation import markdown_table, read_evaluation, save_videos
from dreamer_hf.loading import load_world
from dreamer_hf.start_frames import StartFrames, load_start_frames
from dreamer_hf.worlds import resolve_model

DIRECTIONS = {"right": (1.0, 0.0), "down": (0.0, 1.0), "left": (-1.0, 0.0), "up": (0.0, -1.0)}
SPEED = 9.0
"""Of the target, in the simulator's pixels (512 across) a frame."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="pusht-tiny", help="world of relative 2-D actions (default %(default)s)")
    add("--output_dir", type=Path, default=Path("outputs/demo"), help="default: %(default)s")
    add("--start", type=int, default=7, help="which of the start frames kept with the world (default %(default)s)")
    add("--num_dreamt_frames", type=int, default=20, help="frames that are dreamt (default %(default)s)")
    add("--seed", type=int, default=0, help="of the dreams' noise (default %(default)s)")
    return parser.parse_args()


def steer(world: DreamerWorldModel, start: StartFrames, num_frames: int, seed: int) -> torch.Tensor:
    """Dreams on from one start in every direction at once: (4,T,3,H,W) in [0, 1], the given frames first."""
    batch = len(DIRECTIONS)
    given = start.pixel_values_videos.repeat(batch, 1, 1, 1, 1) / 255
    actions, mask = start.actions.repeat(batch, 1, 1), start.action_mask.repeat(batch, 1)
    rollout = world.start_rollout(given, actions, mask, generator=torch.Generator().manual_seed(seed))
    command = SPEED * torch.tensor(list(DIRECTIONS.values()))
    dreamt = [rollout.step(command).pixel_values.cpu() for _ in tqdm(range(num_frames), "dreaming", unit="frame")]
    return torch.cat([given, torch.stack(dreamt, dim=1)], dim=1)


def main() -> None:
    arguments = parse_arguments()
    world = load_world(arguments.model, device="cpu")
    starts = load_start_frames(arguments.model)
    if world.config.dynamics_config.action_dim != len(DIRECTIONS["right"]):
        raise ValueError(f"{arguments.model} does not take 2-D actions: dream with examples/dream.py instead.")
    if not 0 <= arguments.start < len(starts):
        raise ValueError(f"--start {arguments.start} does not exist: give 0 to {len(starts) - 1}.")
    start = starts[arguments.start]
    films = dict(zip(DIRECTIONS, steer(world, start, arguments.num_dreamt_frames, arguments.seed)))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    fps = world.config.dynamics_config.fps or 10
    save_videos(arguments.output_dir, [films], start.pixel_values_videos.shape[1], fps, first_is_real=False)
    figures = Path(resolve_model(arguments.model)) / "evaluation.json"
    if figures.is_file():
        print(markdown_table(read_evaluation(figures)))
    print(f"films: {arguments.output_dir}/dream.gif and dream.mp4; play the world live with `make play`")


if __name__ == "__main__":
    run_script(main)

"""Dreams held-out episodes of a shard folder under their own actions and compares the dream with what really happened.

    python examples/dream.py --model outputs/world --data_dir data/pusht --output_dir outputs/dream

Writes dream.mp4 and dream.gif (real and dreamt frames side by side) and metrics.json, and prints PSNR by step against
two floors: repeating the last frame, and dreaming under the same actions in a random order.
"""

import argparse
import json
from pathlib import Path

import torch

from dreamer_hf import DreamerWorldModel
from dreamer_hf.adapters import load_adapter
from dreamer_hf.cli import new_output_folder, run_script
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import DreamComparison, compare_dreams
from dreamer_hf.pictures import save_gif, side_by_side
from dreamer_hf.play.recorder import VideoRecorder

PRINTED_STEPS = (1, 2, 4, 8, 16, 32, 64, 128)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="world: a folder or a Hub repository")
    parser.add_argument("--adapter", help="folder or Hub repository of an adapter for the world; see docs/adapting.md")
    parser.add_argument("--data_dir", required=True, help="shard folder whose held-out episodes are dreamt")
    parser.add_argument("--output_dir", required=True, help="new or empty folder for the films and figures")
    parser.add_argument(
        "--num_context_frames", type=int, default=8, help="frames that are given (default %(default)s)"
    )
    parser.add_argument(
        "--num_dreamt_frames", type=int, default=32, help="frames that are dreamt (default %(default)s)"
    )
    parser.add_argument("--num_episodes", type=int, default=16, help="held-out episodes at most (default %(default)s)")
    parser.add_argument("--num_filmed", type=int, default=3, help="of these, how many are shown (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the dreams' noise (default %(default)s)")
    return parser.parse_args()


def print_table(curves: dict[str, torch.Tensor]) -> None:
    steps = [step for step in PRINTED_STEPS if step <= len(curves["dream"])]
    print(f"{'PSNR in dB at step':26}" + "".join(f"{step:>8}" for step in steps))
    for name, curve in curves.items():
        print(f"{name:26}" + "".join(f"{curve[step - 1]:8.2f}" for step in steps))


def film(comparison: DreamComparison, num_filmed: int, folder: Path, fps: float) -> None:
    """Writes the first episodes, one after the other, as MP4 and GIF."""
    pictures, num_context = [], comparison.context.shape[1]
    for context, real, dreamt in list(zip(comparison.context, comparison.real, comparison.dreamt))[:num_filmed]:
        columns = {"real": torch.cat([context, real]), "dream": torch.cat([context, dreamt])}
        pictures += side_by_side(columns, num_context)
    recorder = VideoRecorder(folder / "dream.mp4", fps)
    for picture in pictures:
        recorder.add_picture(picture)
    recorder.close()
    save_gif(folder / "dream.gif", pictures, fps)


def main() -> None:
    arguments = parse_arguments()
    world = DreamerWorldModel.from_pretrained(arguments.model).eval()
    if arguments.adapter:
        load_adapter(world, arguments.adapter)
    config = world.config.dynamics_config
    data = ShardDataset(arguments.data_dir, None, split="validation", action_offset=config.action_offset)
    with new_output_folder(arguments.output_dir) as folder:
        comparison = compare_dreams(
            world,
            data,
            arguments.num_context_frames,
            arguments.num_dreamt_frames,
            arguments.num_episodes,
            arguments.seed,
        )
        curves = comparison.psnr_by_step()
        film(comparison, arguments.num_filmed, folder, config.fps or 10)
        figures = {name: [round(value, 3) for value in curve.tolist()] for name, curve in curves.items()}
        figures["num_episodes"] = len(comparison.real)
        (folder / "metrics.json").write_text(json.dumps(figures, indent=1) + "\n")
    print_table(curves)
    print(f"films: {arguments.output_dir}/dream.gif and dream.mp4, over {len(comparison.real)} held-out episodes")


if __name__ == "__main__":
    run_script(main)

"""Films dreams: held-out episodes of a shard folder, dreamt under their own actions, beside what really happened.

    python examples/dream.py --model outputs/world --data_dir data/pusht --output_dir outputs/dream

Writes dream.mp4 and dream.gif. How good the dreams are, and against what: examples/evaluate.py.
"""

import argparse

import torch
from tqdm import tqdm

from dreamer_hf import DreamerWorldModel
from dreamer_hf.adapters import load_adapter
from dreamer_hf.cli import new_output_folder, run_script
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import DREAM, REAL, decode_latents, dream, held_out_clips, save_videos
from dreamer_hf.worlds import resolve_model


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="world: a folder or a Hub repository")
    add("--adapter", help="folder or Hub repository of an adapter for the world; see docs/adapting.md")
    add("--data_dir", required=True, help="shard folder whose held-out episodes are dreamt")
    add("--output_dir", required=True, help="new or empty folder for the films")
    add("--num_context_frames", type=int, default=8, help="frames that are given (default %(default)s)")
    add("--num_dreamt_frames", type=int, default=32, help="frames that are dreamt (default %(default)s)")
    add("--num_episodes", type=int, default=3, help="held-out episodes at most (default %(default)s)")
    add("--seed", type=int, default=0, help="of the dreams' noise (default %(default)s)")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    arguments = parse_arguments()
    world = DreamerWorldModel.from_pretrained(resolve_model(arguments.model)).eval()
    if arguments.adapter:
        load_adapter(world, arguments.adapter)
    config = world.config.dynamics_config
    data = ShardDataset(arguments.data_dir, None, split="validation", action_offset=config.action_offset)
    num_given, num_dreamt = arguments.num_context_frames, arguments.num_dreamt_frames
    with new_output_folder(arguments.output_dir) as folder:
        frames, clips = held_out_clips(world, data, num_given, num_dreamt, arguments.num_episodes)
        with tqdm(total=num_dreamt, desc="dreaming", unit="frame") as progress:
            dreamt = dream(world.dynamics, clips, torch.Generator().manual_seed(arguments.seed), progress.update)
        dreams = decode_latents(world.tokenizer, torch.cat([clips.latents[:, :num_given], dreamt.cpu()], dim=1))
        films = [{REAL: real.float() / 255, DREAM: dreamt} for real, dreamt in zip(frames, dreams)]
        save_videos(folder, films, num_given, config.fps or 10)
    print(f"films: {arguments.output_dir}/dream.gif and dream.mp4, of {len(films)} held-out episodes")


if __name__ == "__main__":
    run_script(main)

"""Encodes a folder of shards with a frozen tokenizer, once: dynamics training then reads latents and sees no pixels.

    accelerate launch examples/encode_latents.py --tokenizer outputs/tokenizer --data_dir data/pusht \\
        --output_dir data/pusht-latents
    accelerate launch examples/train_dynamics.py --tokenizer outputs/tokenizer --data_dir data/pusht-latents ...

The latents carry the tokenizer's fingerprint; training refuses them with any other tokenizer.
"""

import argparse

from accelerate import Accelerator

from dreamer_hf.cli import run_script
from dreamer_hf.training.finetune import TOKENIZER, load_model
from dreamer_hf.training.latents import encode_shards


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="tokenizer or world: a folder or a Hub repository")
    parser.add_argument("--data_dir", required=True, help="shard folder of frames")
    parser.add_argument("--output_dir", required=True, help="new or empty folder for the latents")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; finished shards stay")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    accelerator = Accelerator()
    tokenizer = load_model(arguments.tokenizer, TOKENIZER).eval().to(accelerator.device)
    folder = encode_shards(accelerator, tokenizer, arguments.data_dir, arguments.output_dir, arguments.resume)
    accelerator.print(f"wrote latents to {folder}")


if __name__ == "__main__":
    run_script(main)

"""The whole chain on real data, from nothing to a dream: what `make demo-train` runs, and what you would do with your data.

    record PushT episodes in the real simulator as a LeRobotDataset
    -> convert them to HDF5 shards -> train a tokenizer, then a dynamics model -> save one DreamerWorldModel folder
    -> load it with from_pretrained -> dream held-out episodes under their own actions -> outputs/demo-train/dream/

Every stage is one of the project's own scripts, and its command is printed. Run again, it goes on where it stopped.

Minutes of CPU are too few to learn how a block is pushed, from nothing. So both models start from the small weights in
the shipped world pusht-tiny, which the same scripts made on other episodes, and are fine-tuned on what was just recorded.
--from_scratch leaves the weights out.
"""

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dreamer_hf.cli import run_script

ROOT = Path(__file__).parents[1]
CHECKPOINT = "pusht-tiny"
# A tenth of the preset's rates: enough to adapt, not enough to forget.
FINE_TUNING = "--learning_rate 1e-4 --muon_learning_rate 4e-4"


@dataclass(frozen=True)
class Stage:
    """One script of the chain: what to say, how to start it, and the file that shows that it has finished."""

    title: str
    command: tuple[str, ...]
    proof: Path


def stages(arguments: argparse.Namespace, output_dir: Path) -> list[Stage]:
    """The chain; everything that it writes is below `output_dir`."""
    episodes, shards, tokenizer, world, dream = (
        output_dir / name for name in ("episodes", "shards", "tokenizer", "world", "dream")
    )
    record = f"examples/record_pusht.py --repo_id demo/pusht --episodes {arguments.episodes} --frames_per_episode 60"
    convert = "conversion/lerobot_to_hdf5.py --repo_id demo/pusht --width 64 --height 64 --relative_actions"
    training = "--preset pusht-tiny --resume_from_checkpoint latest"
    frozen = size = ""
    if not arguments.from_scratch:
        training += f" --pretrained {CHECKPOINT} {FINE_TUNING}"
        frozen = "--freeze_encoder"  # the shipped dynamics model knows this encoder's latents
        # Of the shipped dynamics model; all else is as in the preset.
        size = "--hidden_size 256 --num_attention_heads 8"
    tokenizer_run = (
        f"examples/train_tokenizer.py {training} {frozen} --max_train_minutes {arguments.tokenizer_minutes}"
    )
    dynamics_run = f"examples/train_dynamics.py {training} {size} --max_train_minutes {arguments.dynamics_minutes}"
    return [
        Stage(
            "record play in gym-pusht as a LeRobotDataset",
            (*record.split(), "--seed", str(arguments.seed), "--root", str(episodes)),
            episodes / "meta/info.json",
        ),
        Stage(
            "convert it to HDF5 shards of 64 pixels",
            (*convert.split(), "--local_dir", str(episodes), "--output_dir", str(shards)),
            shards / "metadata.json",
        ),
        Stage(
            "train a tokenizer",
            (*tokenizer_run.split(), "--data_dir", str(shards), "--output_dir", str(tokenizer)),
            tokenizer / "model.safetensors",
        ),
        Stage(
            "train a dynamics model on its latents",
            (
                *(*dynamics_run.split(), "--data_dir", str(shards), "--output_dir", str(world)),
                *("--tokenizer", str(tokenizer)),
            ),
            world / "model.safetensors",
        ),
        Stage(
            "load the world, dream held-out episodes, and measure how good the dreams are",
            (
                *("examples/evaluate.py", "--model", str(world), "--data_dir", str(shards)),
                *("--output_dir", str(dream), "--num_dream_frames", "32"),
            ),
            dream / "evaluation.json",
        ),
    ]


def run_stage(number: int, count: int, stage: Stage) -> None:
    print(f"\n[{number}/{count}] {stage.title}", flush=True)
    if stage.proof.exists():
        print(f"already there: {stage.proof.parent}", flush=True)
        return
    print(f"$ python {shlex.join(stage.command)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run((sys.executable, *stage.command), cwd=ROOT)
    if done.returncode:
        raise ValueError(
            f"stage {number} ({stage.title}) failed: its message stands above; run the demo again to go on."
        )
    print(f"took {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("outputs/demo-train"), help="default: %(default)s")
    add("--episodes", type=int, default=80, help="episodes of 60 frames to record (default %(default)s)")
    add("--seed", type=int, default=7, help="of the recorded play (default %(default)s)")
    add("--tokenizer_minutes", type=float, default=2.5, help="of training (default %(default)s)")
    add("--dynamics_minutes", type=float, default=4, help="of training (default %(default)s)")
    add("--from_scratch", action="store_true", help="start from new weights, not from the shipped ones")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    output_dir = arguments.output_dir.absolute()
    output_dir.mkdir(parents=True, exist_ok=True)
    chain = stages(arguments, output_dir)
    for number, stage in enumerate(chain, start=1):
        run_stage(number, len(chain), stage)
    print(
        f"\nlook at {arguments.output_dir}/dream/dream.gif, and play the world with "
        f"`make play WORLD={arguments.output_dir}/world`"
    )


if __name__ == "__main__":
    run_script(main)

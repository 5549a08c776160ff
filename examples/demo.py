"""The whole chain on real data, from nothing to a dream: what `make demo` runs, and what you would do with your data.

    record PushT episodes in the real simulator as a LeRobotDataset
    -> convert them to HDF5 shards -> train a tokenizer, then a dynamics model -> save one DreamerWorldModel folder
    -> load it with from_pretrained -> dream held-out episodes under their own actions -> outputs/demo/dream/

Every stage is one of the project's own scripts, and its command is printed. Run again, it goes on where it stopped.
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


@dataclass(frozen=True)
class Stage:
    """One script of the chain: what to say, how to start it, and the file that shows that it has finished."""

    title: str
    command: tuple[str, ...]
    proof: Path


def stages(output_dir: Path, episodes: int, tokenizer_minutes: float, dynamics_minutes: float) -> list[Stage]:
    """The chain; every path is below `output_dir`."""
    episodes_dir, shards, tokenizer, world, dream = (
        output_dir / name for name in ("episodes", "shards", "tokenizer", "world", "dream")
    )
    training = ("--preset", "pusht-tiny", "--data_dir", str(shards), "--resume_from_checkpoint", "latest")
    return [
        Stage(
            "record play in gym-pusht as a LeRobotDataset",
            (
                "examples/record_pusht.py",
                "--repo_id",
                "demo/pusht",
                "--root",
                str(episodes_dir),
                "--episodes",
                str(episodes),
            ),
            episodes_dir / "meta/info.json",
        ),
        Stage(
            "convert it to HDF5 shards of 64 pixels",
            (
                *("conversion/lerobot_to_hdf5.py", "--repo_id", "demo/pusht", "--local_dir", str(episodes_dir)),
                *("--output_dir", str(shards), "--width", "64", "--height", "64"),
            ),
            shards / "metadata.json",
        ),
        Stage(
            "train a tokenizer",
            (
                *("examples/train_tokenizer.py", *training, "--output_dir", str(tokenizer)),
                *("--max_train_minutes", str(tokenizer_minutes)),
            ),
            tokenizer / "model.safetensors",
        ),
        Stage(
            "train a dynamics model on its latents",
            (
                *("examples/train_dynamics.py", *training, "--output_dir", str(world)),
                *("--tokenizer", str(tokenizer), "--max_train_minutes", str(dynamics_minutes)),
            ),
            world / "model.safetensors",
        ),
        Stage(
            "load the world and dream held-out episodes",
            ("examples/dream.py", "--model", str(world), "--data_dir", str(shards), "--output_dir", str(dream)),
            dream / "metrics.json",
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
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="default: %(default)s")
    parser.add_argument(
        "--episodes", type=int, default=160, help="episodes of 100 frames to record (default %(default)s)"
    )
    parser.add_argument("--tokenizer_minutes", type=float, default=5, help="of training (default %(default)s)")
    parser.add_argument("--dynamics_minutes", type=float, default=4, help="of training (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    output_dir = arguments.output_dir.absolute()
    output_dir.mkdir(parents=True, exist_ok=True)
    chain = stages(output_dir, arguments.episodes, arguments.tokenizer_minutes, arguments.dynamics_minutes)
    for number, stage in enumerate(chain, start=1):
        run_stage(number, len(chain), stage)
    print(f"\nlook at {arguments.output_dir}/dream/dream.gif, and play the world with `make play`")


if __name__ == "__main__":
    run_script(main)

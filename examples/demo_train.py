"""The whole chain on real data, from recording to a dream, as `make demo-train` runs it.

    record PushT episodes in the simulator as a LeRobotDataset
    -> convert them to HDF5 shards -> train a tokenizer, then a dynamics model -> save one DreamerWorldModel folder
    -> load it with from_pretrained -> dream held-out episodes under their own actions -> outputs/demo-train/dream/

Every stage is one of the project's own scripts, and its command is printed. If interrupted, run it again: it continues
where it stopped.

A few minutes on a CPU are too short to learn from random weights how a block is pushed. Therefore both models start
from the shipped world pusht-tiny, which the same scripts trained on other episodes, and are fine-tuned on the
recording. With --from_scratch they start from random weights.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dreamer_hf.cli import run_with_options
from dreamer_hf.options import option

ROOT = Path(__file__).parents[1]
CHECKPOINT = "pusht-tiny"
# A tenth of the preset's rates, at which the models adapt without forgetting.
FINE_TUNING = "--learning_rate 1e-4 --muon_learning_rate 4e-4"


@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """The options of this script."""

    output_dir: str = option("outputs/demo-train", help="Folder for everything that is written.")
    episodes: int = option(80, help="Episodes of 60 frames to record.")
    seed: int = option(7, help="Seed of the recorded play.")
    tokenizer_minutes: float = option(2.5, help="Minutes of tokenizer training.")
    dynamics_minutes: float = option(4.0, help="Minutes of dynamics training.")
    from_scratch: bool = option(False, help="Start from random weights instead of the shipped world.")


@dataclass(frozen=True)
class Stage:
    """One script of the chain.

    Attributes:
        title: what it does.
        command: script and options.
        proof: file that exists once it has finished.
    """

    title: str
    command: tuple[str, ...]
    proof: Path


def stages(options: ChainOptions, output_dir: Path) -> Iterable[Stage]:
    """Return the stages of the chain, which write to `output_dir`."""
    episodes, shards, tokenizer, world, dream = (
        output_dir / name for name in ("episodes", "shards", "tokenizer", "world", "dream")
    )
    record = f"examples/record_pusht.py --repo_id demo/pusht --episodes {options.episodes} --frames_per_episode 60"
    convert = "conversion/lerobot_to_hdf5.py --repo_id demo/pusht --width 64 --height 64 --relative_actions"
    training = "--preset pusht-tiny --resume_from_checkpoint latest"
    frozen = size = ""
    if not options.from_scratch:
        training += f" --pretrained {CHECKPOINT} {FINE_TUNING}"
        frozen = "--freeze_encoder"  # The shipped dynamics model was trained on the latents of this encoder.
        # The shipped dynamics model has these sizes; everything else is as in the preset.
        size = "--hidden_size 256 --num_attention_heads 8"
    tokenizer_run = f"examples/train_tokenizer.py {training} {frozen} --max_train_minutes {options.tokenizer_minutes}"
    dynamics_run = f"examples/train_dynamics.py {training} {size} --max_train_minutes {options.dynamics_minutes}"
    return [
        Stage(
            "record play in gym-pusht as a LeRobotDataset",
            (*record.split(), "--seed", str(options.seed), "--root", str(episodes)),
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


def run_stage(number: int, stage: Stage) -> None:
    print(f"\n[{number}] {stage.title}", flush=True)
    if stage.proof.exists():
        print(f"already done: {stage.proof.parent}", flush=True)
        return
    print(f"$ python {shlex.join(stage.command)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run((sys.executable, *stage.command), cwd=ROOT)
    if done.returncode:
        raise ValueError(
            f"stage {number} ({stage.title}) failed; its message is above. Run the demo again to continue."
        )
    print(f"took {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)


def run_stages(options, stages: Callable[..., Iterable[Stage]]) -> Path:
    """Run those of `stages(options, output_dir)` that have not finished yet, and return the folder.

    A stage has run before the next one is asked for, which can depend on what it has found.
    """
    output_dir = Path(options.output_dir).absolute()
    output_dir.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(stages(options, output_dir), start=1):
        run_stage(number, stage)
    return output_dir


def run_chain(options: ChainOptions) -> str:
    """Run the stages that have not finished yet; return where the results are."""
    run_stages(options, stages)
    return (
        f"\nThe dreams are in {options.output_dir}/dream/dream.gif. To play the world: "
        f"make play WORLD={options.output_dir}/world"
    )


if __name__ == "__main__":
    run_with_options(ChainOptions, run_chain, __doc__)

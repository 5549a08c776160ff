"""Real little data, and the real scripts: as subprocesses, or in this process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from accelerate.state import AcceleratorState

from dreamer_hf.data.shard_format import ShardMetadata, shard_name
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.training.arguments import DynamicsArguments, TokenizerArguments, parse_arguments
from dreamer_hf.training.dynamics_objective import DynamicsObjective
from dreamer_hf.training.running import run_training
from dreamer_hf.training.tokenizer_objective import TokenizerObjective

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY_TOKENIZER = """
hidden_size: 16
num_attention_heads: 2
num_encoder_layers: 4
num_decoder_layers: 4
patch_size: 8
num_latent_tokens: 4
latent_dim: 4
context_length: 4
sequence_length: 4
per_device_batch_size: 4
lr_warmup_steps: 2
max_train_steps: 16
logging_steps: 1
checkpointing_steps: 5
eval_steps: 8
eval_windows: 4
learning_rate: 3e-3
ema_decay: 0.9
max_latent_noise: 0.1
"""
TINY_DYNAMICS = """
hidden_size: 16
num_attention_heads: 2
num_hidden_layers: 4
num_register_tokens: 1
num_signal_levels: 8
context_length: 4
sequence_length: 6
per_device_batch_size: 4
lr_warmup_steps: 2
max_train_steps: 8
logging_steps: 1
checkpointing_steps: 3
eval_steps: 5
eval_windows: 4
learning_rate: 3e-3
"""


def write_moving_square(
    folder: Path, episodes: int = 6, length: int = 20, size: int = 16, width: int | None = None
) -> Path:
    """Episodes of a bright square that each action moves by whole pixels, in frames of `size` x `width` (`size`)."""
    sides = np.array([size, width or size])
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with write_shard(folder / shard_name(0), action_dim=2) as shard:
        for episode in range(episodes):
            shard.begin_episode(episode)
            actions = rng.integers(-2, 3, (length, 2)).astype(np.float32)
            corner = rng.integers(0, sides - 4)
            for action in actions:
                frame = np.full((*sides, 3), 30, np.uint8)
                frame[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = (250, 200, 40)
                shard.add_frame(frame)
                corner = np.clip(corner + action.astype(int), 0, sides - 4)
            shard.end_episode(actions)
    stats = {"mean": [0.0, 0.0], "std": [1.4, 1.4], "min": [-2.0, -2.0], "max": [2.0, 2.0], "count": episodes * length}
    labels = {"action_names": ["dy", "dx"], "action_units": ["px", "px"]}
    metadata = ShardMetadata(
        1, episodes, (int(sides[0]), int(sides[1]), 3), (2,), fps=10.0, color_order="rgb", action_stats=stats, **labels
    )
    metadata.write(folder)
    return folder


def script_environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}


def script_command(name: str, *argv) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"train_{name}.py"), *map(str, argv)]


def run_script(name: str, *argv, status: int = 0) -> subprocess.CompletedProcess:
    """Runs examples/train_<name>.py to its end and checks its exit status."""
    result = subprocess.run(script_command(name, *argv), capture_output=True, text=True, env=script_environment())
    assert result.returncode == status, result.stdout + result.stderr
    return result


def train(name: str, *argv) -> None:
    """What the script does, in this process: an import of torch less. Errors come out as exceptions."""
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments_class, objective = {
        "tokenizer": (TokenizerArguments, TokenizerObjective),
        "dynamics": (DynamicsArguments, DynamicsObjective),
    }[name]
    run_training(parse_arguments(arguments_class, name, EXAMPLES / "configs", "", list(map(str, argv))), objective)


def read_metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def loss_curve(folder: Path) -> list[dict]:
    """What must not depend on when and how often a run was stopped: everything but the speed."""
    return [{k: v for k, v in line.items() if k != "frames_per_second"} for line in read_metrics(folder)]

"""What training leaves besides models, to be damaged: checkpoints and adapters."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from dreamer_hf.adapters import add_lora, load_adapter, replace_action_encoder, save_adapter
from dreamer_hf.training.checkpoints import check_checkpoint
from dreamer_hf.training.runs import make_accelerator
from dreamer_hf.training.tokenizer_objective import TokenizerObjective
from dreamer_hf.training.trainer import Trainer
from tiny import arguments_of, make_world, train, write_moving_square

CHECKPOINT = "checkpoint-2"
RUN = {
    **{"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 4, "num_decoder_layers": 4, "patch_size": 8},
    **{"num_latent_tokens": 4, "latent_dim": 4, "context_length": 4, "sequence_length": 4, "per_device_batch_size": 4},
    **{"max_train_steps": 2, "checkpointing_steps": 2, "eval_windows": 2, "ema_decay": 0.9, "threads": 1},
}
"""Options of a tokenizer run with averaged weights."""
ACTIONS = {"action_dim": 3, "action_names": ["a", "b", "c"], "fps": 20.0}


def write_run(folder: Path) -> None:
    """Train a tokenizer for two steps; the data are in the folder, too."""
    write_moving_square(folder / "data")
    flags = [word for name, value in RUN.items() for word in (f"--{name}", value)]
    train("tokenizer", "--data_dir", folder / "data", "--output_dir", folder / "run", *flags)


@cache
def _trainer(data_dir: Path) -> Trainer:
    """Return a trainer for the run, which reads one checkpoint after another; each replaces what the last one set."""
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = arguments_of("tokenizer", data_dir=str(data_dir), **RUN)
    accelerator = make_accelerator(arguments)
    return Trainer(accelerator, arguments, TokenizerObjective(arguments, 0, 1, accelerator.device))


def read_checkpoint(checkpoint: Path, data_dir: Path) -> Iterator:
    """Resume from a checkpoint, as a run does. Yield all that it sets: numbers, and tensors by their place."""
    check_checkpoint(checkpoint)
    trainer = _trainer(data_dir)
    trainer._resume(checkpoint)
    yield torch.tensor([trainer.step, trainer.seconds], dtype=torch.float64)
    yield from trainer.model.state_dict().values()
    yield from trainer.average.state_dict().values()
    for optimizer in trainer.optimizers:
        state = optimizer.state_dict()
        yield from (value for entry in state["state"].values() for value in entry.values())
        yield repr(state["param_groups"])
    yield repr(trainer.normalizer.state_dict())


def write_adapter(folder: Path) -> None:
    """Save a LoRA adapter of the world with a new action encoder."""
    dynamics = make_world().dynamics
    replace_action_encoder(dynamics, ACTIONS)
    add_lora(dynamics, 2, 4, "world", train_action_encoder=True)
    folder.mkdir()
    save_adapter(dynamics, folder, dynamics.state_dict())


def read_adapter(folder: Path) -> Iterator[torch.Tensor]:
    """Load an adapter onto the world; yield its weights."""
    world = make_world()
    load_adapter(world, folder)
    yield from world.dynamics.state_dict().values()

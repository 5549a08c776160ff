"""One training run, from its options to the final folder."""

import importlib.util
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, set_seed

from .agent_arguments import AgentArguments, DreamsArguments
from .agent_objective import AgentObjective
from .argument_parsing import AUTO, parse_arguments
from .arguments import DynamicsArguments, TokenizerArguments, TrainingArguments
from .auto_facts import describe_auto_preset
from .batches import readable_worker_errors
from .checkpoints import claim_output_dir
from .dynamics_objective import DynamicsObjective
from .imagination_objective import ImaginationObjective
from .objective import Objective
from .publish import open_repository, upload
from .tokenizer_objective import TokenizerObjective
from .trainer import Trainer

KINDS = {
    "tokenizer": (TokenizerArguments, TokenizerObjective, "Train a tokenizer on a folder of HDF5 shards."),
    "dynamics": (
        DynamicsArguments,
        DynamicsObjective,
        "Train a dynamics model on the latents of a tokenizer, and save a world that joins the two.",
    ),
    "agent": (
        AgentArguments,
        AgentObjective,
        "Give a world an agent, which learns to act and to predict rewards from labeled episodes.",
    ),
    "dreams": (DreamsArguments, ImaginationObjective, "Improve an agent in the dreams of its world."),
}


def main(kind: str, argv: list[str] | None = None, prog: str | None = None) -> None:
    """Train a model as the command line says.

    Args:
        kind: "tokenizer", "dynamics", "agent" or "dreams".
        argv: the options; `sys.argv[1:]` if not given.
        prog: the command's name in `--help`.

    Raises:
        ValueError, OSError: see `run_training`.
    """
    arguments_class, objective, description = KINDS[kind]
    run_training(parse_arguments(arguments_class, argv, prog, description), objective)


def run_training(
    arguments: TrainingArguments,
    make_objective: Callable[[TrainingArguments, int, int, torch.device], Objective],
) -> None:
    """Train what `make_objective(arguments, process, num_processes, device)` returns, and upload it if asked to.

    Raises:
        ValueError, OSError: options, data, checkpoints or an output folder that cannot be used; the message is one
            sentence for the user.
    """
    accelerator = make_accelerator(arguments)
    with ExitStack() as stack:
        checkpoint = None
        if accelerator.is_main_process:
            claim = claim_output_dir(Path(arguments.run.output_dir), arguments.run.resume_from_checkpoint)
            checkpoint = stack.enter_context(claim)
            if arguments.run.push_to_hub:
                open_repository(arguments.run.hub_model_id)
        (checkpoint,) = broadcast_object_list([checkpoint])
        if arguments.run.preset == AUTO and checkpoint is None:
            accelerator.print(describe_auto_preset(arguments))
        if arguments.run.resume_from_checkpoint and checkpoint is None:
            accelerator.print(f"no checkpoint in {arguments.run.output_dir} yet: starting a new run")
        set_seed(arguments.run.seed)  # for the initial weights; every later draw has its own generator
        objective = make_objective(arguments, accelerator.process_index, accelerator.num_processes, accelerator.device)
        with readable_worker_errors():
            names = Trainer(accelerator, arguments, objective).train(checkpoint)
        if arguments.run.push_to_hub and accelerator.is_main_process:
            print(f"uploaded: {upload(arguments, names)}")


def make_accelerator(arguments: TrainingArguments) -> Accelerator:
    """Build the Accelerator that the options and the launcher ask for.

    Raises:
        ValueError: the tracker is not installed, or the processes do not know of each other.
    """
    tracker = None if arguments.run.report_to == "none" else arguments.run.report_to
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        raise ValueError(f"--report_to {tracker} needs its package: pip install {tracker}.")
    accelerator = Accelerator(
        mixed_precision=arguments.run.mixed_precision,
        gradient_accumulation_steps=arguments.optimizer.gradient_accumulation_steps,
        log_with=tracker,
        project_dir=arguments.run.output_dir,
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ValueError(
            f"{started} processes were started but Accelerate sees {accelerator.num_processes}, so each would train "
            "alone: on a CPU set ACCELERATE_USE_CPU=true and start them with torchrun --nproc_per_node."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_sharding(accelerator, arguments)
    return accelerator


def _check_sharding(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Refuse what needs whole parameters if every process holds only a part of each."""
    if not accelerator.is_fsdp2:
        raise ValueError("only version 2 of FSDP is supported: set fsdp_version: 2 in the Accelerate config.")
    if arguments.kind in ("agent", "dreams"):
        raise ValueError("agents need whole weights, which FSDP cuts up: train them with DDP.")
    if arguments.optimizer.optimizer == "muon":
        raise ValueError("--optimizer muon needs whole matrices, which FSDP cuts up: choose adamw, or DDP.")
    if arguments.adaptation_values().get("lora_rank"):
        raise ValueError("--lora_rank saves checkpoints of the adapters alone, which FSDP cuts up: choose DDP.")
    if arguments.optimizer.ema_decay:
        raise ValueError(
            "--ema_decay keeps a whole copy of the weights, which FSDP cuts up: leave it out, or use DDP."
        )

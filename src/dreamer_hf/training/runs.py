"""One training run, from its arguments to the final folder."""

import importlib.util
import os
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed

from .arguments import TrainerArguments
from .batches import readable_worker_errors
from .checkpoints import claim_output_dir
from .publish import open_repository, upload
from .trainer import Objective, Trainer


def run_training(
    arguments: TrainerArguments,
    make_objective: Callable[[TrainerArguments, int, int, torch.device], Objective],
) -> None:
    """Trains what `make_objective(arguments, process, num_processes, device)` gives, and uploads it if asked to.

    Raises:
        ValueError, OSError: keys, data, checkpoints or an output folder that cannot be used; the message is one
            sentence for the user.
    """
    accelerator = make_accelerator(arguments)
    checkpoint = claim_output_dir(arguments)
    if arguments.push_to_hub and accelerator.is_main_process:
        open_repository(arguments.hub_model_id)
    accelerator.wait_for_everyone()  # nobody writes before everybody has looked
    if arguments.resume_from_checkpoint and checkpoint is None:
        accelerator.print(f"no checkpoint in {arguments.output_dir} yet: starting from the beginning")
    set_seed(arguments.seed)  # the initial weights; every later draw has its own generator
    objective = make_objective(arguments, accelerator.process_index, accelerator.num_processes, accelerator.device)
    with readable_worker_errors():
        names = Trainer(accelerator, arguments, objective).train(checkpoint)
    if arguments.push_to_hub and accelerator.is_main_process:
        print(f"uploaded: {upload(arguments, names)}")


def make_accelerator(arguments: TrainerArguments) -> Accelerator:
    """Builds the Accelerator that the arguments and the launcher ask for.

    Raises:
        ValueError: the tracker is not installed, or the processes do not know of each other.
    """
    tracker = None if arguments.report_to == "none" else arguments.report_to
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        raise ValueError(f"--report_to {tracker} needs its package: pip install {tracker}.")
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with=tracker,
        project_dir=arguments.output_dir,
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


def _check_sharding(accelerator: Accelerator, arguments: TrainerArguments) -> None:
    """Refuses what needs whole parameters where every process holds only a part of each."""
    if not accelerator.is_fsdp2:
        raise ValueError("only version 2 of FSDP is supported: set fsdp_version: 2 in the Accelerate config.")
    if arguments.optimizer == "muon":
        raise ValueError("--optimizer muon needs whole matrices, which FSDP cuts up: choose adamw, or DDP.")
    if arguments.adaptation_values().get("lora_rank"):
        raise ValueError("--lora_rank keeps checkpoints of the adapters alone, which FSDP cuts up: choose DDP.")
    if arguments.ema_decay:
        raise ValueError(
            "--ema_decay keeps a whole copy of the weights, which FSDP cuts up: leave it out, or use DDP."
        )

"""The output folder of a run: who owns it, its resumable checkpoints, and the model that it ends with.

A checkpoint is written under a temporary name and renamed when it is whole, so `checkpoint-<step>` is never half of one.
Its `trainer_state.json`, written last, is what makes a folder a checkpoint.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from .arguments import TrainerArguments

STATE_FILE = "trainer_state.json"
ARGUMENTS_FILE = "training_arguments.json"
PATHS_FILE = "training_paths.json"
"""The keys that `ARGUMENTS_FILE`, which may be uploaded, leaves out."""


@dataclass(frozen=True)
class TrainerState:
    """What a checkpoint says about itself.

    Attributes:
        step: optimizer steps finished.
        seconds: time trained so far.
        seed: of the run.
        rows_per_step: rows of one optimizer step, over all batches and processes.
        model_config: the trained model's config, as a dict.
        run: what else must stay as it is, by the words that name it; a key that is missing is younger than the checkpoint.
    """

    step: int
    seconds: float
    seed: int
    rows_per_step: int
    model_config: dict
    run: dict = field(default_factory=dict)


def claim_output_dir(arguments: TrainerArguments) -> Path | None:
    """Checks that the run may write into its output folder, and finds the checkpoint to go on from, if any.

    Raises:
        FileExistsError: the folder holds something and the run does not resume.
        FileNotFoundError: the checkpoint to resume from does not exist.
        ValueError: the folder is not one of a training run, or holds later checkpoints than the one to resume from.
    """
    output_dir, resume = Path(arguments.output_dir), arguments.resume_from_checkpoint
    is_empty = not output_dir.exists() or not any(output_dir.iterdir())
    if resume is None:
        if not is_empty:
            raise FileExistsError(
                f"{output_dir} is not empty: choose another --output_dir, or continue the run in it with "
                "--resume_from_checkpoint latest."
            )
        return None
    if not is_empty and not (output_dir / ARGUMENTS_FILE).exists():
        raise ValueError(f"{output_dir} is not the folder of a training run: choose another --output_dir.")
    if resume == "latest":
        checkpoints = list_checkpoints(output_dir)
        return checkpoints[-1] if checkpoints else None
    return _check_chosen(Path(resume), output_dir)


def _check_chosen(checkpoint: Path, output_dir: Path) -> Path:
    if not (checkpoint / STATE_FILE).exists():
        raise FileNotFoundError(
            f"{checkpoint} is not a complete checkpoint: give a checkpoint-<step> folder that holds {STATE_FILE}, "
            "or `latest`."
        )
    step = read_state(checkpoint).step
    later = [path.name for path in list_checkpoints(output_dir) if read_state(path).step > step]
    if later:
        raise ValueError(
            f"{output_dir} holds later checkpoints than {checkpoint.name} ({', '.join(later)}): "
            "move them away, or choose another --output_dir."
        )
    return checkpoint


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    return sorted((p for p in folders if (p / STATE_FILE).exists()), key=lambda path: int(path.name.split("-")[1]))


def read_state(checkpoint: Path) -> TrainerState:
    """Reads what a checkpoint says about itself."""
    return TrainerState(**json.loads((checkpoint / STATE_FILE).read_text()))


def check_same_run(saved: TrainerState, now: TrainerState, checkpoint: Path, defaults: dict) -> None:
    """Refuses to go on with another model, data, optimizer, seed or number of rows a step: it would not be the same run.

    Args:
        saved, now: what the checkpoint says about itself, and what would be said of this run.
        checkpoint: its folder.
        defaults: values of the model's config class: a key that the checkpoint lacks is younger than it.

    Raises:
        ValueError: names what differs.
    """
    names = sorted(saved.model_config.keys() | now.model_config.keys())
    pairs = {name: (saved.model_config.get(name, defaults.get(name)), now.model_config.get(name)) for name in names}
    pairs |= {name: (value, now.run.get(name)) for name, value in saved.run.items()}
    for name, (before, after) in pairs.items():
        if before != after:
            raise ValueError(f"{checkpoint} was trained with {name}={before}, not {after}: give that value to resume.")
    if saved.seed != now.seed:
        raise ValueError(f"{checkpoint} was trained with seed={saved.seed}, not {now.seed}: give that seed to resume.")
    if saved.rows_per_step != now.rows_per_step:
        raise ValueError(
            f"{checkpoint} was trained on {saved.rows_per_step} rows a step, not {now.rows_per_step}: choose "
            "--per_device_batch_size and --gradient_accumulation_steps so that, times the number of processes, they "
            f"give {saved.rows_per_step}."
        )


def leave_out_what_is_frozen(accelerator: Accelerator) -> None:
    """From now on, checkpoints hold the trained weights alone: adapters without the model under them."""

    def keep_trained(models: list[nn.Module], states: list[dict], folder: str) -> None:
        for model, state in zip(models, states):
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            for name in state.keys() - trained:
                del state[name]

    accelerator.register_save_state_pre_hook(keep_trained)


def save_checkpoint(accelerator: Accelerator, output_dir: Path, state: TrainerState, total_limit: int | None) -> Path:
    """Saves everything that a resumed run needs; all processes call it together.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final, temporary = output_dir / f"checkpoint-{state.step}", output_dir / f"tmp-checkpoint-{state.step}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with _disk_errors(temporary):
        accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with _disk_errors(temporary):
            (temporary / STATE_FILE).write_text(json.dumps(dataclasses.asdict(state), indent=2))
            _flush(temporary)
        os.replace(temporary, final)
        _prune(output_dir, total_limit)
    accelerator.wait_for_everyone()
    return final


@contextmanager
def _disk_errors(temporary: Path) -> Iterator[None]:
    """Turns what PyTorch and safetensors raise on a full disk into an `OSError`, and clears away the half-written."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(temporary).free
        shutil.rmtree(temporary, ignore_errors=True)
        detail = str(error).splitlines()[0]
        raise OSError(
            f"writing to {temporary.parent} failed with {free / 1e6:.0f} MB free ({detail}): free some space, then go "
            "on with --resume_from_checkpoint latest; earlier checkpoints are intact."
        ) from error


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _prune(output_dir: Path, total_limit: int | None) -> None:
    if total_limit is not None:
        for path in list_checkpoints(output_dir)[: -max(1, total_limit)]:
            shutil.rmtree(path)
    for path in output_dir.glob("tmp-checkpoint-*"):  # what a killed run was writing
        shutil.rmtree(path)


def publish(output_dir: Path, write: Callable[[Path], None]) -> list[str]:
    """Lets `write` fill a temporary folder, then moves its entries into the output folder and returns their names.

    Raises:
        OSError: the disk is full or not writable; the output folder is as it was.
    """
    temporary = output_dir / "tmp-final"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with _disk_errors(temporary):
        write(temporary)
        _flush(temporary)
    entries = sorted(temporary.iterdir())
    for path in entries:
        target = output_dir / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    temporary.rmdir()
    return [path.name for path in entries]

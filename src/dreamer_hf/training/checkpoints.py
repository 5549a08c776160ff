"""The output folder of a run: who writes to it, its resumable checkpoints, and the model that it ends with.

A checkpoint is written under a temporary name and renamed when it is complete, so `checkpoint-<step>` is never
partial. Its `trainer_state.json` records the size and the CRC-32 of all other files. Resuming runs no code from a
checkpoint: weights and their average are safetensors, the state of the loss normalizer is JSON, and Accelerate's files
(optimizers, random generators) are read with `weights_only=True`. Accelerate's own rotation of checkpoints is not
used, because it deletes the oldest one before the new one is complete.
"""

import dataclasses
import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..data.files import first_line, flush_to_disk, lock_folder, read_json, replacing, write_json
from .argument_parsing import ARGUMENTS_FILE, PATHS_FILE
from .arguments import TrainingArguments
from .checkpoint_integrity import file_record, find_damage, refuse_code

logger = logging.getLogger(__name__)
STATE_FILE = "trainer_state.json"
AVERAGE_FILE = "average.safetensors"
FINAL_FOLDER = "tmp-final"
"""Where the files of the final model are until all of them are complete."""
UNREADABLE = (
    *(OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError),
    *(KeyError, IndexError, TypeError, AttributeError),
)
"""What PyTorch, Accelerate and safetensors raise for files that hold other values than those of this run."""
FORMAT_VERSION = 2
"""Of checkpoints. Version 1 had no checksums and kept its states in pickles."""


@dataclass(frozen=True)
class TrainerState:
    """What a checkpoint says about itself.

    Attributes:
        step: number of finished optimizer steps.
        seconds: time trained so far.
        seed: seed of the run.
        rows_per_step: number of rows in one optimizer step, over all batches and processes.
        model_config: config of the trained model.
        run: what else must be the same in a resumed run, by its name in messages; a name that is missing is newer than
            the checkpoint.
        normalizer: state of the loss normalizer.
    """

    step: int
    seconds: float
    seed: int
    rows_per_step: int
    model_config: dict
    run: dict = field(default_factory=dict)
    normalizer: dict = field(default_factory=dict)


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not as it was written, or not of this version."""


@contextmanager
def claim_output_dir(output_dir: Path, resume: str | None) -> Iterator[Path | None]:
    """Lock the output folder of a run and yield the checkpoint to resume from, if any.

    Only the main process calls it. A new folder disappears if nothing was written to it.

    Args:
        output_dir: the folder, which may not exist yet.
        resume: None for a new run, "latest", or the path of a checkpoint.

    Raises:
        BlockingIOError: another running process writes to the folder.
        FileExistsError: the folder is not empty and the run does not resume.
        FileNotFoundError: the checkpoint to resume from does not exist.
        ValueError: the folder does not belong to a training run, it holds later checkpoints than the one to resume
            from, or that one is damaged.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{output_dir} cannot be a folder ({error.strerror}): choose another --output_dir.") from error
    with lock_folder(output_dir):
        try:
            yield _checkpoint_to_resume(output_dir, resume)
        finally:
            with suppress(OSError):  # It is not empty: the usual case.
                output_dir.rmdir()


def _checkpoint_to_resume(output_dir: Path, resume: str | None) -> Path | None:
    is_empty = not any(output_dir.iterdir())
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
        return _latest_intact(output_dir)
    checkpoint = Path(resume)
    if not (checkpoint / STATE_FILE).exists():
        raise FileNotFoundError(
            f"{checkpoint} is not a complete checkpoint: give a checkpoint-<step> folder that holds {STATE_FILE}, "
            "or `latest`."
        )
    step = check_checkpoint(checkpoint).step
    later = [path.name for path in list_checkpoints(output_dir) if _step_of(path) > step]
    if later:
        raise ValueError(
            f"{output_dir} holds later checkpoints than {checkpoint.name} ({', '.join(later)}): "
            "move them away, or choose another --output_dir."
        )
    return checkpoint


def _latest_intact(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that is not damaged, None if there is none at all."""
    damage = []
    for checkpoint in reversed(list_checkpoints(output_dir)):
        try:
            check_checkpoint(checkpoint)
        except DamagedCheckpoint as error:
            damage.append(error)
            continue
        for error in damage:
            logger.warning(f"{error} Resuming from {checkpoint.name} instead.")
        return checkpoint
    if damage:
        raise ValueError(f"no checkpoint in {output_dir} can be resumed. {damage[0]}")
    return None


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    folders = [path for path in output_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{1,18}", path.name)]
    return sorted((path for path in folders if (path / STATE_FILE).exists()), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def check_checkpoint(checkpoint: Path) -> TrainerState:
    """Return what a checkpoint says about itself, if all of it is as it was written.

    Raises:
        DamagedCheckpoint: it is not, or another version of this package wrote it.
    """
    state, files = _read_state(checkpoint)
    damage = find_damage(checkpoint, files)
    if damage:
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {damage}.")
    refuse_code(checkpoint)
    return state


def read_state(checkpoint: Path) -> TrainerState:
    """Return what a checkpoint says about itself, without a look at its other files.

    Raises:
        DamagedCheckpoint: it cannot be read, or another version of this package wrote it.
    """
    return _read_state(checkpoint)[0]


def _read_state(checkpoint: Path) -> tuple[TrainerState, dict[str, list[int]]]:
    try:
        content = read_json(checkpoint / STATE_FILE)
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {STATE_FILE} cannot be read.") from error
    version = content.pop("format_version", 1)
    if version != FORMAT_VERSION:
        age = "an earlier" if version == 1 else "a newer"
        raise DamagedCheckpoint(
            f"{checkpoint} was written by {age} version of dreamer_hf: resume the run with that one."
        )
    types = {
        known.name: int | float if known.type is float else known.type for known in dataclasses.fields(TrainerState)
    }
    files = content.pop("files", None)
    if content.keys() != types.keys() or not all(isinstance(content[name], kind) for name, kind in types.items()):
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {STATE_FILE} is not one of a checkpoint.")
    if not isinstance(files, dict) or not all(isinstance(r, list) and len(r) == 2 for r in files.values()):
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {STATE_FILE} does not list its files.")
    state = TrainerState(**content)
    if re.fullmatch(r"checkpoint-\d+", checkpoint.name) and _step_of(checkpoint) != state.step:
        raise DamagedCheckpoint(f"{checkpoint} is damaged: its {STATE_FILE} belongs to step {state.step}.")
    return state, files


def write_state(folder: Path, state: TrainerState) -> None:
    """Write the state of a checkpoint, with a record of all files that are in its folder by now."""
    files = {name: record for name, record in file_record(folder).items() if name != STATE_FILE}
    write_json(folder / STATE_FILE, {"format_version": FORMAT_VERSION, **dataclasses.asdict(state), "files": files})


def check_same_run(saved: TrainerState, now: TrainerState, checkpoint: Path, defaults: dict) -> None:
    """Refuse to resume with another model, data, optimizer, seed or number of rows per step.

    Args:
        saved, now: state of the checkpoint, and the state that this run would have.
        checkpoint: folder of the checkpoint.
        defaults: values of the model's config class: a field that the checkpoint lacks is newer than the checkpoint.

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
            f"{checkpoint} was trained on {saved.rows_per_step} rows per step, not {now.rows_per_step}: choose "
            "--per_device_batch_size and --gradient_accumulation_steps so that, times the number of processes, they "
            f"give {saved.rows_per_step}."
        )


def save_arguments(output_dir: Path, arguments: TrainingArguments) -> None:
    """Write the options of a run; those that may hold private paths go to a separate file."""
    public = arguments.public_values()
    private = {name: value for name, value in arguments.values().items() if name not in public}
    for name, values in ((ARGUMENTS_FILE, public), (PATHS_FILE, private)):
        with replacing(output_dir / name) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def save_trainable_only(accelerator: Accelerator) -> None:
    """From now on, leave frozen weights out of checkpoints: adapters are saved without the model under them."""

    def keep_trained(models: list[nn.Module], states: list[dict], folder: str) -> None:
        for model, state in zip(models, states):
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            for name in state.keys() - trained:
                del state[name]

    accelerator.register_save_state_pre_hook(keep_trained)


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: Path,
    state: TrainerState,
    average: nn.Module | None = None,
    total_limit: int | None = None,
) -> Path:
    """Save everything that a resumed run needs; all processes call it together.

    Args:
        accelerator: holds model and optimizers.
        output_dir: folder of the run.
        state: what the checkpoint says about itself.
        average: averaged weights, if the run has any.
        total_limit: number of checkpoints to keep; all of them if None.

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
            if average is not None:
                save_file({k: v.contiguous() for k, v in average.state_dict().items()}, temporary / AVERAGE_FILE)
            write_state(temporary, state)
            _flush_tree(temporary)
        shutil.rmtree(final, ignore_errors=True)  # A damaged one, or one without its state, may be there.
        os.replace(temporary, final)
        flush_to_disk(output_dir)
        _prune(output_dir, total_limit)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(
    accelerator: Accelerator, checkpoint: Path, average: nn.Module | None = None, strict: bool = True
) -> None:
    """Load model, optimizers and averaged weights; all processes call it together, after `check_checkpoint`.

    Raises:
        ValueError: a file is not one of this run, or holds anything else than tensors and plain values.
    """
    try:
        accelerator.load_state(str(checkpoint), strict=strict)
        if average is not None:
            average.load_state_dict(load_file(checkpoint / AVERAGE_FILE))
    except UNREADABLE as error:
        raise ValueError(
            f"{checkpoint} cannot be loaded ({first_line(error)}): move it away to resume from an earlier one."
        ) from error


@contextmanager
def _disk_errors(temporary: Path) -> Iterator[None]:
    """Turn what PyTorch and safetensors raise on a full disk into `OSError`, and delete what was written so far."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(temporary).free
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"writing to {temporary.parent} failed with {free / 1e6:.0f} MB free ({first_line(error)}): free some "
            "space, then continue with --resume_from_checkpoint latest; earlier checkpoints are intact."
        ) from error


def _flush_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        flush_to_disk(path)


def _prune(output_dir: Path, total_limit: int | None) -> None:
    if total_limit is not None:
        for path in list_checkpoints(output_dir)[: -max(1, total_limit)]:
            shutil.rmtree(path)
    for path in output_dir.glob("tmp-checkpoint-*"):  # A killed run was writing it.
        shutil.rmtree(path)


def publish_files(output_dir: Path, write: Callable[[Path], None]) -> list[str]:
    """Let `write` fill a temporary folder, then move its entries into the output folder and return their names.

    Raises:
        OSError: the disk is full or not writable; the output folder is unchanged.
    """
    temporary = output_dir / FINAL_FOLDER
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    with _disk_errors(temporary):
        write(temporary)
        _flush_tree(temporary)
    entries = sorted(temporary.iterdir())
    for path in entries:
        target = output_dir / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    temporary.rmdir()
    flush_to_disk(output_dir)
    return [path.name for path in entries]


def is_finished(output_dir: Path) -> bool:
    """Return whether a run has written its final model to this folder."""
    return any(output_dir.glob("model*.safetensors")) and not (output_dir / FINAL_FOLDER).exists()

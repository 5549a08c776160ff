"""Facts about a data set and this machine for `--preset auto`, and the table that shows what was chosen."""

from functools import lru_cache

import numpy as np
import torch
from accelerate.utils import parse_flag_from_env

from ..data import ShardDataset
from .arguments import TrainingArguments
from .auto_preset import BASE, TOKENIZER_SHARE, Choice, DataFacts, Machine, choose_options

DEFAULT_MINUTES = 30.0
"""For both models together, if no minutes are given."""
SHARES = {"tokenizer": TOKENIZER_SHARE, "dynamics": 1 - TOKENIZER_SHARE}


def read_data_facts(data_dir: str, train_fraction: float) -> DataFacts:
    """Read the metadata and the index of a folder of shards.

    Raises:
        ValueError, FileNotFoundError: as `ShardDataset`, or the folder holds latents.
    """
    train, test = (
        ShardDataset(data_dir, 1, split=split, train_fraction=train_fraction) for split in ("train", "validation")
    )
    if train.image_size is None:
        raise ValueError(
            f"--preset auto needs the size of the frames, but {data_dir} holds latents: give the folder that they "
            "were made from."
        )
    usual = int(np.percentile(train.episode_lengths, 25))
    return DataFacts(
        frame_size=tuple(train.image_size),
        num_cameras=train.metadata.num_cameras,
        action_dim=train.action_dim,
        state_dim=train.state_dim,
        num_frames=int(train.episode_lengths.sum()),
        episode_length=min(usual, int(test.episode_lengths.max())),
    )


def read_machine() -> Machine:
    """Return what PyTorch can train on here."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return Machine()
    return Machine(gpu_memory=torch.cuda.get_device_properties(0).total_memory / 2**30)


@lru_cache(maxsize=4)
def read_facts(data_dir: str, train_fraction: float) -> tuple[DataFacts, Machine]:
    """Return the facts about a folder of shards and about this machine; see `read_data_facts`."""
    return read_data_facts(data_dir, train_fraction), read_machine()


def auto_choices(kind: str, data_dir: str, train_fraction: float, minutes: float | None) -> list[Choice]:
    """Return what `--preset auto` chooses for one model.

    Args:
        kind: "tokenizer" or "dynamics".
        data_dir: folder of shards.
        train_fraction: share of the episodes that is trained on.
        minutes: for this model alone; None for its share of `DEFAULT_MINUTES`.

    Raises:
        ValueError, FileNotFoundError: see `read_data_facts` and `choose_options`.
    """
    data, machine = read_facts(data_dir, train_fraction)
    total = DEFAULT_MINUTES if minutes is None else minutes / SHARES[kind]
    return choose_options(data, machine, total)[kind]


def describe_auto_preset(arguments: TrainingArguments) -> str:
    """Return a table of what `--preset auto` chose for a run, and why; what a flag or a file changed is marked."""
    run, data = arguments.run, arguments.data
    facts, machine = read_facts(data.data_dir, data.train_fraction)
    cameras = "1 camera" if facts.num_cameras == 1 else f"{facts.num_cameras} cameras"
    height, width = facts.frame_size
    lines = [
        f"--preset auto for the {arguments.kind}: {facts.num_frames:,} frames of {width} x {height} from {cameras}, "
        f"actions of {facts.action_dim} numbers, states of {facts.state_dim}, {machine.name}"
    ]
    values = arguments.values()
    rows = []
    for choice in auto_choices(arguments.kind, data.data_dir, data.train_fraction, run.max_train_minutes):
        given = values[choice.option]
        is_ours = given == choice.value
        rows.append((choice.option, str(given), choice.reason if is_ours else f"yours, instead of {choice.value}"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += [f"  {name:{widths[0]}}  {value:{widths[1]}}  {reason}" for name, value, reason in rows]
    return "\n".join([*lines, f"  everything else as in the preset {BASE}; every flag overrides its row"])


__all__ = ["DEFAULT_MINUTES", "auto_choices", "describe_auto_preset", "read_data_facts"]

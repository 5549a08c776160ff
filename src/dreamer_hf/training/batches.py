"""Batches of windows: the endless stream to train on, and the fixed windows to evaluate on.

Shapes: B windows, T frames, H, W pixels.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data import AlternatingBatchSampler, ShardDataset, collate_windows
from ..data.files import first_line
from ..data.sampler import WindowBatch
from ..data.windows import EpisodeWindows
from .arguments import DataArguments, TrainingArguments
from .randomness import RowNumbers

Batch = dict[str, torch.Tensor]

OUT_OF_MEMORY = re.compile("memory|mmap|to resize file|Too many open files|No space left")
"""What PyTorch says when a process cannot get the memory that it passes tensors through."""


def open_splits(arguments: TrainingArguments, action_offset: int = 1) -> tuple[ShardDataset, ShardDataset]:
    """Open the training and the held-out episodes, with actions aligned by `action_offset`.

    Raises:
        ValueError, FileNotFoundError: as `ShardDataset`.
    """
    data = arguments.data
    options = {"stride": data.stride, "train_fraction": data.train_fraction, "action_offset": action_offset}
    train, test = (
        ShardDataset(data.data_dir, data.sequence_length, split=split, **options) for split in ("train", "validation")
    )
    return train, test


@dataclass(frozen=True)
class BatchKind:
    """One shape of batches: `batch_size` windows of `window_size` frames, in a `share` of all batches."""

    window_size: int
    batch_size: int
    share: float


def batch_kinds(data: DataArguments) -> list[BatchKind]:
    """Return the kinds of batches: short windows, and long ones and images if asked for.

    All have about the same number of frames (arXiv 2509.24527, section 3.4).
    """
    length, size = data.sequence_length, data.per_device_batch_size
    images = BatchKind(1, length * size, data.image_fraction)
    kinds = [images] if images.share > 0 else []
    long_share = 0.0
    if data.long_sequence_length is not None:
        long_share = (1 - images.share) * data.long_fraction
        long_size = max(1, length * size // data.long_sequence_length)
        kinds.append(BatchKind(data.long_sequence_length, long_size, long_share))
    return [BatchKind(length, size, 1 - images.share - long_share), *kinds]


class _BatchDataset(Dataset):
    """Maps a `WindowBatch` to itself and the windows that it names."""

    def __init__(self, kinds: list[EpisodeWindows]):
        self.kinds = kinds

    def __getitem__(self, batch: WindowBatch) -> tuple[WindowBatch, list[Batch]]:
        return batch, [self.kinds[batch.kind][index] for index in batch.indices]


class BatchStream:
    """The training batches of one process.

    The kind of a batch and its windows depend only on the seed and the batch's number; the kind is the same on all
    processes. The random draws of a row are numbered within its kind by its position in that kind's stream of windows.
    The stream can start at any optimizer step.

    Args:
        dataset: the windows.
        arguments: options of the run.
        process, num_processes: number of this process and number of all processes.
        device: where batches go.
    """

    def __init__(
        self,
        dataset: EpisodeWindows,
        arguments: TrainingArguments,
        process: int,
        num_processes: int,
        device: torch.device,
    ):
        self.arguments, self.device = arguments, device
        self.kinds = batch_kinds(arguments.data)
        self.datasets = [dataset.with_window(kind.window_size, arguments.data.stride) for kind in self.kinds]
        self.sampler = AlternatingBatchSampler(
            sizes=[len(dataset) for dataset in self.datasets],
            weights=[kind.share for kind in self.kinds],
            batch_sizes=[kind.batch_size for kind in self.kinds],
            seed=arguments.run.seed,
            rank=process,
            world_size=num_processes,
        )

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """Yield batches on the device with the numbers of their rows, without end, from an optimizer step on."""
        first_batch = start_step * self.arguments.optimizer.gradient_accumulation_steps
        for drawn, batch in receive(self._loader(first_batch)):
            yield self._on_device(drawn, batch)

    def trial_batch(self) -> tuple[Batch, RowNumbers]:
        """Return the first batch of the run, loaded in this process, for measurements."""
        return self._on_device(*_collate(_BatchDataset(self.datasets)[self.sampler.batch(0)]))

    def _on_device(self, drawn: WindowBatch, batch: Batch) -> tuple[Batch, RowNumbers]:
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if self.kinds[drawn.kind].window_size == 1:  # An image counts as a first frame, which no command led to.
            batch["action_mask"] = torch.zeros_like(batch["action_mask"])
        step = drawn.step // self.arguments.optimizer.gradient_accumulation_steps
        return batch, RowNumbers(self.arguments.run.seed, step, drawn.kind, drawn.first_row, len(drawn.indices))

    def episodes(self, step: int) -> list[int]:
        """Return the episodes, numbered over all splits, that this process sees in an optimizer step."""
        accumulated = self.arguments.optimizer.gradient_accumulation_steps
        drawn = map(self.sampler.batch, range(step * accumulated, (step + 1) * accumulated))
        return sorted({self.datasets[batch.kind].episode_of(index) for batch in drawn for index in batch.indices})

    def _loader(self, first_batch: int) -> DataLoader:
        sampler = copy.copy(self.sampler)
        sampler.start_step = first_batch
        return DataLoader(
            _BatchDataset(self.datasets),
            batch_size=None,  # what the sampler yields is a batch already
            sampler=sampler,
            collate_fn=_collate,
            num_workers=self.arguments.data.dataloader_num_workers,
            pin_memory=self.device.type == "cuda",
        )


def _collate(drawn: tuple[WindowBatch, list[Batch]]) -> tuple[WindowBatch, Batch]:
    """Stack the windows of a batch; in a worker, into the memory that it shares with the main process.

    PyTorch would move them there in a thread of the worker, whose failures the main process never hears of: it would
    wait forever.
    """
    batch = collate_windows(drawn[1])
    return drawn[0], batch if get_worker_info() is None else {n: value.share_memory_() for n, value in batch.items()}


class WorkerDied(OSError):
    """A data-loading process died or ran out of memory."""

    def __init__(self, error: BaseException):
        super().__init__(
            f"a data-loading process died ({first_line(error)}), probably because memory ran out: lower "
            "--dataloader_num_workers, then continue with --resume_from_checkpoint latest; "
            "earlier checkpoints are intact."
        )


def receive(loader: DataLoader) -> Iterator:
    """Yield what a loader gives, with readable errors.

    With worker processes, all that happens here is that they are started and their batches are received. An error that
    no worker reported therefore means that one of them died, whichever form it takes: RuntimeError, EOFError, a
    connection that was reset, a socket that is missing, a truncated pickle.

    Raises:
        ValueError: a worker cannot read the data; the sentence is the reader's.
        WorkerDied: a worker died or ran out of memory.
    """
    try:
        yield from loader
    except Exception as error:
        if loader.num_workers == 0:
            raise
        if "in DataLoader worker process" not in str(error):
            raise WorkerDied(error) from error
        reason = str(error).strip().splitlines()[-1]
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(reason)):
            raise WorkerDied(RuntimeError(reason)) from error
        if isinstance(error, ValueError | OSError):
            raise ValueError(reason.partition(": ")[2]) from error
        raise


def batch_states(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the normalized states (B,T,S) of a batch for a model that has a state, and which frames have one.

    Data without states give zeros, and no frame that has one.
    """
    if "states" in batch:
        return model.normalize_states(batch["states"]).masked_fill(~batch["state_mask"][..., None], 0), batch[
            "state_mask"
        ]
    mask = torch.zeros_like(batch["action_mask"])
    return torch.zeros(*mask.shape, model.config.state_dim, device=mask.device), mask


@contextmanager
def readable_worker_errors() -> Iterator[None]:
    """Turn the death of a data-loading process, which PyTorch raises in any line of the main process, into
    `WorkerDied`.

    PyTorch learns of the death by a signal and raises in the handler, so that other code may already have wrapped the
    error in another one.
    """
    try:
        yield
    except WorkerDied:
        raise
    except Exception as error:
        cause = error
        while cause is not None:
            if "DataLoader worker (pid" in str(cause):
                raise WorkerDied(cause) from error
            cause = cause.__cause__ or cause.__context__
        raise


def fixed_windows(dataset: Dataset, count: int, batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Return batches of up to `count` windows, evenly spread over the dataset."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    items = [dataset[int(index)] for index in indices]
    return [collate_windows(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]


def sample_frames(dataset: ShardDataset, count: int) -> torch.Tensor:
    """Return up to `count` frames, evenly spread over the dataset's windows: uint8 (count,3,H,W)."""
    windows = dataset.with_window(1)
    batches = fixed_windows(windows, count, batch_size=count)
    return batches[0]["pixel_values_videos"].flatten(0, 1)

"""Batches of windows: the endless stream that is trained on, and the fixed windows that are evaluated on.

Shapes: B windows, T frames, H, W pixels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..data import ShardDataset, WindowBatchSampler, collate_windows
from .arguments import TrainerArguments
from .randomness import RowNumbers


def open_splits(arguments: TrainerArguments) -> tuple[ShardDataset, ShardDataset]:
    """Opens the training and the held-out episodes.

    Raises:
        ValueError, FileNotFoundError: as `ShardDataset`; also frames that are not square.
    """
    splits = [
        ShardDataset(
            arguments.data_dir,
            arguments.sequence_length,
            stride=arguments.stride,
            split=split,
            train_fraction=arguments.train_fraction,
            split_seed=arguments.split_seed,
        )
        for split in ("train", "validation")
    ]
    frame_shape = splits[0].image_size
    if frame_shape is not None and frame_shape[0] != frame_shape[1]:
        raise ValueError(
            f"the frames in {arguments.data_dir} are {frame_shape[0]}x{frame_shape[1]} pixels, but models take square "
            "ones: convert the data with --pad_to_square, or with equal --width and --height."
        )
    return splits[0], splits[1]


class BatchStream:
    """The training batches of one process.

    The stream of windows is shuffled by the seed and cut into batches by `WindowBatchSampler`; its positions are the
    row numbers of `randomness`. It can begin at any optimizer step.

    Args:
        dataset: windows.
        arguments: keys of the run.
        process, num_processes: which of how many processes this is.
        device: where batches go.
    """

    def __init__(
        self, dataset: Dataset, arguments: TrainerArguments, process: int, num_processes: int, device: torch.device
    ):
        self.dataset, self.arguments, self.device = dataset, arguments, device
        self.process, self.num_processes = process, num_processes

    def batches(self, start_step: int) -> Iterator[tuple[dict[str, torch.Tensor], RowNumbers]]:
        """Yields batches on the device with the numbers of their rows, for ever, from `start_step` on."""
        arguments, size = self.arguments, self.arguments.per_device_batch_size
        accumulated = arguments.gradient_accumulation_steps
        first_batch = start_step * accumulated
        for number, batch in enumerate(self._loader(first_batch), start=first_batch):
            first_row = (number * self.num_processes + self.process) * size
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            yield batch, RowNumbers(arguments.seed, number // accumulated, first_row, size)

    def _loader(self, first_batch: int) -> DataLoader:
        sampler = WindowBatchSampler(
            len(self.dataset),
            self.arguments.per_device_batch_size,
            self.arguments.seed,
            self.process,
            self.num_processes,
            start_step=first_batch,
        )
        return DataLoader(
            self.dataset,
            batch_sampler=sampler,
            collate_fn=collate_windows,
            num_workers=self.arguments.dataloader_num_workers,
            pin_memory=self.device.type == "cuda",
        )


def fixed_windows(dataset: Dataset, count: int, batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Batches of up to `count` windows, evenly spread over the dataset."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    items = [dataset[int(index)] for index in indices]
    return [collate_windows(items[start : start + batch_size]) for start in range(0, len(items), batch_size)]


def sample_frames(dataset: ShardDataset, count: int) -> torch.Tensor:
    """Up to `count` frames, evenly spread over the dataset's windows: uint8 (count,3,H,W)."""
    windows = dataset.with_window(1)
    batches = fixed_windows(windows, count, batch_size=count)
    return batches[0]["pixel_values_videos"].flatten(0, 1)


def as_pixels(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames -> float32 in [0, 1]."""
    return frames.contiguous().float() / 255

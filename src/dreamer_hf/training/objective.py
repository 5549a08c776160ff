"""What the trainer and the objectives, tokenizer and dynamics, know of each other."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from ..data import ShardDataset
from .batches import Batch, BatchStream
from .randomness import RowNumbers
from .verdicts import History

Scalars = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out data.

    Attributes:
        values: metrics, by the names that they are logged under.
        images: uint8 (height, width, 3) RGB, by name.
        video: frames of one size; empty if there is nothing that moves.
    """

    values: dict[str, float]
    images: dict[str, np.ndarray]
    video: list[np.ndarray] = field(default_factory=list)


class Objective(Protocol):
    """What is trained, and on what. `Trainer` knows nothing else about it.

    Attributes:
        model: the model to train, a `PreTrainedModel`.
        loss_weights: weight of every loss term.
        normalizes_losses: whether each term is also divided by its running RMS.
        stream: source of its batches.
        train_data, test_data: the episodes to train on, and the held-out ones.
        identity: what must be the same in a resumed run in addition to its data, by its name in messages.
        autocast: opens the run's precision for computations outside the model; set by the trainer.
    """

    model: nn.Module
    loss_weights: dict[str, float]
    normalizes_losses: bool
    stream: BatchStream
    train_data: ShardDataset
    test_data: ShardDataset
    identity: dict[str, str]
    autocast: Callable[[], AbstractContextManager]

    def batches(self, start_step: int) -> Iterator[tuple[Batch, RowNumbers]]:
        """Yield batches of this process on its device, without end, from the first batch of an optimizer step on."""

    def losses(self, model: nn.Module, batch: Batch, rows: RowNumbers) -> tuple[Scalars, Scalars]:
        """Return loss terms and other values to log (NaN if the batch has none of the kind), means over the batch."""

    def flops(self, num_rows: int, num_frames: int, step: int) -> float:
        """Return the expected operations of forward and backward passes for a batch, see `flops`."""

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure the model on held-out data. Every process calls it."""

    def save(self, folder: Path, model: nn.Module, state_dict: Batch) -> None:
        """Write the final model, ready for `from_pretrained`. Only the main process calls it."""

    def verdict(self, values: dict[str, float], history: History) -> str:
        """Return what the metrics of the last evaluation mean for the user, given all lines of metrics.jsonl."""

"""Samplers whose batch at step s is a pure function of s, so that a run can resume at any step.

Every sampler yields the batches of one process without end (or `num_steps` of them). The batch of a step depends only
on the sampler's arguments and the step: to resume, pass the step as `start_step`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

SCHEDULE_BLOCK = 1000


class ShuffledStream:
    """An endless stream of the numbers 0 to size - 1, reshuffled each epoch from (seed, epoch)."""

    def __init__(self, size: int, seed: int | Sequence[int]):
        if size < 1:
            raise ValueError("there are no windows to draw from: choose a shorter window or another split.")
        self.size = size
        self._seed = list(np.atleast_1d(seed))
        self._order: tuple[int, np.ndarray] | None = None

    def at(self, position: int) -> int:
        """Return the number at `position` of the stream."""
        epoch, offset = divmod(position, self.size)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([*self._seed, epoch]).permutation(self.size)
        return int(self._order[1][offset])


class WeightedSchedule:
    """An endless stream of choices between components, in which every block has exactly the same shares.

    Args:
        weights: relative, positive; rounded to thousandths of their sum, each at least one.
        seed: seed of the order within the blocks.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        weights = np.asarray(weights, np.float64)
        if weights.ndim != 1 or not len(weights) or not np.all(weights > 0) or not np.isfinite(weights.sum()):
            raise ValueError(
                f"weights {weights.tolist()} must be positive numbers: leave out components without weight."
            )
        self._seed = seed
        self._counts = np.maximum(1, np.round(weights / weights.sum() * SCHEDULE_BLOCK)).astype(int)
        self._block: tuple[int, np.ndarray] | None = None

    def at(self, position: int) -> tuple[int, int]:
        """Return the component chosen at `position`, and how often it was chosen before."""
        number, offset = divmod(position, int(self._counts.sum()))
        if self._block is None or self._block[0] != number:
            choices = np.repeat(np.arange(len(self._counts)), self._counts)
            self._block = number, np.random.default_rng([self._seed, number]).permutation(choices)
        choices = self._block[1]
        component = int(choices[offset])
        before = number * self._counts[component] + np.count_nonzero(choices[:offset] == component)
        return component, int(before)


class StepSampler(Sampler):
    """Base class of the samplers, which differ in `batch`.

    Args:
        rank, world_size: number of this process and number of all processes.
        start_step: the first step to yield.
        num_steps: how many steps to yield; None: no end.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, start_step: int = 0, num_steps: int | None = None):
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank from 0 to {world_size - 1}, got {rank}.")
        if start_step < 0:
            raise ValueError(f"expected a start_step of 0 or more, got {start_step}.")
        self.rank, self.world_size = rank, world_size
        self.start_step, self.num_steps = start_step, num_steps

    def batch(self, step: int) -> "list[int] | WindowBatch":
        """Return the windows of this process at `step`."""
        raise NotImplementedError

    def positions(self, step: int, batch_size: int) -> range:
        """Return the part of a common stream that this process takes at `step`; no two processes or steps overlap."""
        first = (step * self.world_size + self.rank) * batch_size
        return range(first, first + batch_size)

    def __iter__(self) -> "Iterator[list[int] | WindowBatch]":
        step = self.start_step
        while self.num_steps is None or step < self.start_step + self.num_steps:
            yield self.batch(step)
            step += 1

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("this sampler has no end: pass num_steps to get one that ends.")
        return self.num_steps


class WindowBatchSampler(StepSampler):
    """Shuffles the windows of one dataset: an epoch shows every window once, across all processes.

    A batch may extend across the end of an epoch.

    Args:
        num_windows: length of the dataset.
        batch_size: windows that a process takes in a step.
        seed: seed of the shuffling.
        rank, world_size, start_step, num_steps: see `StepSampler`.
    """

    def __init__(
        self,
        num_windows: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        num_steps: int | None = None,
    ):
        super().__init__(rank, world_size, start_step, num_steps)
        _check_batch_sizes([batch_size])
        self.batch_size = batch_size
        self._stream = ShuffledStream(num_windows, seed)

    def batch(self, step: int) -> list[int]:
        return [self._stream.at(position) for position in self.positions(step, self.batch_size)]

    def epoch(self, step: int) -> float:
        """Return how often the data have been seen before `step`."""
        return step * self.world_size * self.batch_size / self._stream.size


class MixtureBatchSampler(StepSampler):
    """Draws the windows of each batch from several datasets in the proportion of `weights`, for `MixtureDataset`.

    Each dataset is shuffled on its own and has its own epochs.

    Args:
        sizes: windows of each dataset, in the order of the mixture.
        weights: share of each in the windows drawn.
        batch_size, seed: as in `WindowBatchSampler`.
        rank, world_size, start_step, num_steps: see `StepSampler`.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], batch_size: int, seed: int = 0, **process_and_steps
    ):
        super().__init__(**process_and_steps)
        _check_batch_sizes([batch_size])
        _check_lengths(sizes, weights)
        self.batch_size = batch_size
        self._schedule = WeightedSchedule(weights, seed)
        self._streams = [ShuffledStream(size, (seed, number)) for number, size in enumerate(sizes)]
        self._offsets = np.cumsum([0, *sizes])

    def batch(self, step: int) -> list[int]:
        indices = []
        for position in self.positions(step, self.batch_size):
            component, before = self._schedule.at(position)
            indices.append(int(self._offsets[component]) + self._streams[component].at(before))
        return indices


class WindowBatch(NamedTuple):
    """The windows of one process at one step of `AlternatingBatchSampler`.

    Attributes:
        step: the step.
        kind: number of the dataset that all its windows come from.
        first_row: number of its first window in the stream of this kind, over all steps and processes.
        indices: the windows, as the dataset counts them.
    """

    step: int
    kind: int
    first_row: int
    indices: list[int]


class AlternatingBatchSampler(StepSampler):
    """Yields `WindowBatch`es, each from one of several datasets: short and long windows in the proportion of
    `weights`.

    All processes take from the same dataset in the same step, so that their shapes and their work agree.

    Args:
        sizes: windows of each dataset.
        weights: share of each in the steps.
        batch_sizes: windows that a process takes from each in a step.
        seed: as in `WindowBatchSampler`.
        rank, world_size, start_step, num_steps: see `StepSampler`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        batch_sizes: Sequence[int],
        seed: int = 0,
        **process_and_steps,
    ):
        super().__init__(**process_and_steps)
        _check_batch_sizes(batch_sizes)
        _check_lengths(sizes, weights, batch_sizes)
        self.batch_sizes = list(batch_sizes)
        self._schedule = WeightedSchedule(weights, seed)
        self._streams = [ShuffledStream(size, (seed, number)) for number, size in enumerate(sizes)]

    def batch(self, step: int) -> WindowBatch:
        """Return the windows of this process at `step`."""
        kind, before = self._schedule.at(step)
        rows = self.positions(before, self.batch_sizes[kind])
        return WindowBatch(step, kind, rows.start, [self._streams[kind].at(row) for row in rows])


def _check_batch_sizes(batch_sizes: Sequence[int]) -> None:
    if min(batch_sizes) < 1:
        raise ValueError(f"expected at least 1 window in a batch, got {min(batch_sizes)}.")


def _check_lengths(*lists: Sequence) -> None:
    if len({len(values) for values in lists}) > 1:
        raise ValueError(
            f"the lists of the datasets differ in length ({[len(values) for values in lists]}): give one entry each."
        )

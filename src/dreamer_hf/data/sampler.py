"""Which windows make up step s of training: pure functions, so that any run can go on at any step.

Every sampler here yields the batches of one process without end (or `num_steps` of them). The batch of a step depends
on the sampler's arguments and the step alone: to resume, give the step as `start_step`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

SCHEDULE_BLOCK = 1000


class ShuffledStream:
    """The numbers 0 to size - 1, shuffled anew each epoch from (seed, epoch), as one endless stream."""

    def __init__(self, size: int, seed: int | Sequence[int]):
        if size < 1:
            raise ValueError("there are no windows to draw from: choose a shorter window or another split.")
        self.size = size
        self._seed = list(np.atleast_1d(seed))
        self._order: tuple[int, np.ndarray] | None = None

    def at(self, position: int) -> int:
        """The number at `position` of the stream."""
        epoch, offset = divmod(position, self.size)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([*self._seed, epoch]).permutation(self.size)
        return int(self._order[1][offset])


class WeightedSchedule:
    """An endless stream of choices between components, in which every block has the same, exact shares.

    Args:
        weights: relative, positive; rounded to thousandths of their sum, each at least one.
        seed: seed of the order within the blocks.
    """

    def __init__(self, weights: Sequence[float], seed: int):
        weights = np.asarray(weights, np.float64)
        if weights.ndim != 1 or not len(weights) or not np.all(weights > 0) or not np.isfinite(weights.sum()):
            raise ValueError(f"weights {weights.tolist()} must be positive numbers: leave out what has none.")
        self._seed = seed
        self._counts = np.maximum(1, np.round(weights / weights.sum() * SCHEDULE_BLOCK)).astype(int)
        self._block: tuple[int, np.ndarray] | None = None

    def at(self, position: int) -> tuple[int, int]:
        """The component chosen at `position`, and how often it was chosen before."""
        number, offset = divmod(position, int(self._counts.sum()))
        if self._block is None or self._block[0] != number:
            choices = np.repeat(np.arange(len(self._counts)), self._counts)
            self._block = number, np.random.default_rng([self._seed, number]).permutation(choices)
        choices = self._block[1]
        component = int(choices[offset])
        before = number * self._counts[component] + np.count_nonzero(choices[:offset] == component)
        return component, int(before)


class StepSampler(Sampler[list[int]]):
    """What the samplers share; `batch` makes the difference.

    Args:
        rank, world_size: which process this is, of how many.
        start_step: the first step to yield.
        num_steps: how many to yield; None: no end.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, start_step: int = 0, num_steps: int | None = None):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of 0 to {world_size - 1}.")
        if start_step < 0:
            raise ValueError(f"start_step {start_step} is negative.")
        self.rank, self.world_size = rank, world_size
        self.start_step, self.num_steps = start_step, num_steps

    def batch(self, step: int) -> list[int]:
        """The window indices of this process at `step`."""
        raise NotImplementedError

    def positions(self, step: int, batch_size: int) -> range:
        """The part of a common stream that this process takes at `step`: no two processes or steps share any."""
        first = (step * self.world_size + self.rank) * batch_size
        return range(first, first + batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while self.num_steps is None or step < self.start_step + self.num_steps:
            yield self.batch(step)
            step += 1

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("this sampler has no end: give num_steps for one that has.")
        return self.num_steps


class WindowBatchSampler(StepSampler):
    """Shuffled windows of one dataset: an epoch shows every window once, across all processes.

    A batch may reach across the end of an epoch.

    Args:
        num_windows: length of the dataset.
        batch_size: windows a process takes in a step.
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
        """How often the data have been seen before `step`."""
        return step * self.world_size * self.batch_size / self._stream.size


class MixtureBatchSampler(StepSampler):
    """Batches whose windows come from several datasets in the proportion of `weights`, for `MixtureDataset`.

    Each dataset is shuffled and seen through on its own; small ones simply begin anew earlier.

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


class AlternatingBatchSampler(StepSampler):
    """Whole batches now from one dataset, now from another: short and long windows in the proportion of `weights`.

    All processes take from the same dataset in the same step, so that their shapes and their work agree.

    Args:
        sizes: windows of each dataset, in the order of the mixture.
        weights: share of each in the steps.
        batch_sizes: windows a process takes from each in a step.
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
        self._offsets = np.cumsum([0, *sizes])

    def batch(self, step: int) -> list[int]:
        component, before = self._schedule.at(step)
        positions = self.positions(before, self.batch_sizes[component])
        return [int(self._offsets[component]) + self._streams[component].at(position) for position in positions]


def _check_batch_sizes(batch_sizes: Sequence[int]) -> None:
    if min(batch_sizes) < 1:
        raise ValueError(f"a batch of {min(batch_sizes)} windows is too small: give at least 1.")


def _check_lengths(*lists: Sequence) -> None:
    if len({len(values) for values in lists}) > 1:
        raise ValueError(
            f"the datasets' lists differ in length ({[len(values) for values in lists]}): give one of each."
        )

"""Which windows make up step s of training: a pure function, so that any run can go on at any step."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class WindowBatchSampler(Sampler[list[int]]):
    """Endless batches of window indices for one process.

    The windows, shuffled anew each epoch from (seed, epoch), form one endless stream. Step s takes the next
    `batch_size * world_size` of it, of which each rank has its own part: ranks never share a position, an epoch shows
    every window once, and a batch may reach across the end of an epoch. The batch of a step depends on the arguments
    alone: to resume, give the step as `start_step`.

    Args:
        num_windows: length of the dataset.
        batch_size: windows a process takes in a step.
        seed: seed of the shuffling.
        rank, world_size: which process this is, of how many.
        start_step: the first step to yield.
        num_steps: how many to yield; None: no end.
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
        if num_windows < 1 or batch_size < 1 or start_step < 0:
            raise ValueError("num_windows and batch_size must be at least 1, start_step at least 0.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is none of 0 to {world_size - 1}.")
        self.num_windows, self.batch_size, self.seed = num_windows, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.start_step, self.num_steps = start_step, num_steps
        self._order: tuple[int, np.ndarray] | None = None

    def batch(self, step: int) -> list[int]:
        """The window indices of this process at `step`."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return [self._at(position) for position in range(first, first + self.batch_size)]

    def epoch(self, step: int) -> float:
        """How often the data have been seen before `step`."""
        return step * self.world_size * self.batch_size / self.num_windows

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_windows)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_windows)
        return int(self._order[1][offset])

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_step
        while self.num_steps is None or step < self.start_step + self.num_steps:
            yield self.batch(step)
            step += 1

    def __len__(self) -> int:
        if self.num_steps is None:
            raise TypeError("this sampler has no end: give num_steps for one that has.")
        return self.num_steps

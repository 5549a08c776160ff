"""Random draws that belong to a row of the data stream, not to a process or to the moment.

Rows (windows of frames) are numbered through the whole run, over all batches and all processes, each kind of batch by
itself. A draw depends on the seed, the kind and that number alone. So a resumed run, and one on another number of
processes, makes the very same draws, and there is no generator state to save.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class RowNumbers:
    """Numbers of the rows of one batch on one process.

    Args:
        seed: of the run.
        step: optimizer steps finished before this batch.
        kind: the kind of batch; rows of different kinds have nothing in common.
        first_row: number of the batch's first row.
        num_rows: rows of the batch.
    """

    seed: int
    step: int
    kind: int
    first_row: int
    num_rows: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first_row, self.first_row + self.num_rows))

    def generators(self, device: torch.device | str) -> Iterator[tuple[int, torch.Generator]]:
        """Yields `(row number, generator on the device)`."""
        for row in self:
            yield row, seeded_generator(device, self.seed, self.kind, row)


def seeded_generator(device: torch.device | str, *seeds: int) -> torch.Generator:
    """A generator whose draws depend on these numbers alone."""
    mixed = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed) >> 1)  # torch takes 63 bits without sign trouble

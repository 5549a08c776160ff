"""Random draws that belong to a row of the data stream, not to a process or to the moment.

Rows (windows of frames) are numbered through the whole run: row `i` of step `s` is `s * rows_per_step + i`, over all
accumulated batches and all processes. A draw depends on the seed and that number alone. So a resumed run, and one on
another number of processes, makes the very same draws, and there is no generator state to save.
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
        first_row: number of the batch's first row.
        num_rows: rows of the batch.
    """

    seed: int
    step: int
    first_row: int
    num_rows: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first_row, self.first_row + self.num_rows))

    def generators(self, device: torch.device | str, stream: int = 0) -> Iterator[tuple[int, torch.Generator]]:
        """Yields `(row number, generator on the device)`; another `stream` gives independent draws."""
        for row in self:
            yield row, row_generator(self.seed, row, device, stream)


def row_generator(seed: int, row: int, device: torch.device | str, stream: int = 0) -> torch.Generator:
    """A generator for the draws of one row."""
    mixed = np.random.SeedSequence([seed, stream, row]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed) >> 1)  # torch takes 63 bits without sign trouble

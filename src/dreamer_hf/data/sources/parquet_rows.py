"""Rows of parquet files: those of some episodes, a few at a time, and columns of numbers as matrices."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..files import check_not_lfs_pointer, first_line
from .lerobot_info import AGAIN

STREAMING_READ = {"buffer_size": 1 << 20, "pre_buffer": False}
"""Otherwise Arrow reads all images of a row group, a whole episode, before it returns the first."""


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def rows_of(path: Path, numbers: Sequence[int], columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of these episodes in the order of the file, a few at a time: `columns`, `episode_index` and, if
    there is one, `frame_index`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {AGAIN}.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, **STREAMING_READ) as file:
            names = file.schema_arrow.names
            for column in (*columns, "episode_index"):
                if column not in names:
                    raise KeyError(f"there is no column {column}")
            wanted = [*columns, "episode_index", *(name for name in names if name == "frame_index")]
            groups = _row_groups_of(file, numbers)
            for batch in file.iter_batches(batch_size, groups, wanted, use_threads=False):
                yield batch.filter(pc.is_in(batch["episode_index"], pa.array(numbers, pa.int64())))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): {AGAIN}.") from error


def frame_indices(batch: pa.RecordBatch) -> np.ndarray:
    """Return the `frame_index` of every row; -1 if the dataset has none, and its rows are in order."""
    if "frame_index" not in batch.schema.names:
        return np.full(len(batch), -1, np.int64)
    return batch["frame_index"].to_numpy(zero_copy_only=False).astype(np.int64)


def _row_groups_of(file: pq.ParquetFile, numbers: Sequence[int]) -> list[int]:
    """Return the row groups that can hold rows of these (increasing) episodes, as far as their statistics tell."""
    metadata, chosen = file.metadata, []
    position = [metadata.schema.column(i).path for i in range(metadata.num_columns)].index("episode_index")
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(position).statistics
        known = statistics is not None and statistics.has_min_max
        if not known or (statistics.min <= numbers[-1] and statistics.max >= numbers[0]):
            chosen.append(group)
    return chosen


def matrix(column: pa.Array, width: int, path: Path, kind: str = "action") -> tuple[int | None, np.ndarray]:
    """Return a column of numbers, or of (nested) lists of them, as (rows, width) in their own type.

    The first value is the first row with a missing value, None if there is none; the matrix is not to be used then.
    """
    rows = len(column)
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if column.null_count:
            missing = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            return missing * rows // len(column), np.zeros((rows, width))
        if not pa.types.is_nested(column.type) or not hasattr(column, "flatten") or pa.types.is_struct(column.type):
            break
        lengths = pc.list_value_length(column)
        if len(lengths) and pc.min(lengths).as_py() != pc.max(lengths).as_py():
            break
        column = column.flatten()
    if not is_number(column.type) or len(column) != rows * width:
        raise ValueError(f"{path} holds {kind}s that are not {width} numbers wide: {AGAIN}.")
    return None, column.to_numpy(zero_copy_only=False).reshape(rows, width)


def read_parquet(path: Path, columns: list[str]) -> pa.Table:
    check_not_lfs_pointer(path)
    try:
        return pq.read_table(
            path, columns=columns, partitioning=None, use_threads=False, page_checksum_verification=True
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)}): {AGAIN}.") from error

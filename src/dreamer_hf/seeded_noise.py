"""Normal noise from a seed, the same numbers in NumPy, PyTorch and JavaScript.

The generator is Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), which computes
each block of four 32-bit numbers from a key and a counter. The key is the seed. The counter is (block, draw, 0, 0):
every draw has a number, so the state of a dream's noise is one integer. Pairs of numbers become pairs of normal
numbers by the Box-Muller transform in double precision. `static/noise.js` computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_SEED = 2**63 - 1
ROUNDS = 10
MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
LOW_HALF, HALF_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)


class SeededNoise:
    """A source of standard normal noise that a seed determines, on every device and in every engine.

    Args:
        seed: integer from 0 to 2**63 - 1.

    Attributes:
        seed: as given.
        num_draws: number of draws so far; set it to draw the same numbers again.

    Raises:
        ValueError: the seed is out of range.

    ```python
    rollout = world.start_rollout(frames, generator=[SeededNoise(7)])
    ```
    """

    def __init__(self, seed: int):
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"expected a seed from 0 to {MAX_SEED}, got {seed}.")
        self.seed, self.num_draws = int(seed), 0

    def __repr__(self) -> str:
        return f"SeededNoise(seed={self.seed}, num_draws={self.num_draws})"

    def normal(self, shape: Sequence[int]) -> np.ndarray:
        """Return the next draw, standard normal noise of a shape, float32."""
        return draw_normal([self], shape)[0]

    def get_state(self) -> int:
        """Return what `set_state` takes to draw the same numbers again."""
        return self.num_draws

    def set_state(self, state: int) -> None:
        """Return to an earlier state."""
        self.num_draws = state

    def copy(self) -> SeededNoise:
        """Return a source that draws the same numbers from here on."""
        twin = SeededNoise(self.seed)
        twin.num_draws = self.num_draws
        return twin


def draw_normal(sources: Sequence[SeededNoise], shape: Sequence[int]) -> np.ndarray:
    """Return the next draw of each of R sources, float32 (R, *shape)."""
    return draw_normals(sources, shape, 1)[0]


def draw_normals(sources: Sequence[SeededNoise], shape: Sequence[int], num_draws: int) -> np.ndarray:
    """Return the next draws of each of R sources, float32 (num_draws, R, *shape): faster than one after another."""
    seeds = np.array([source.seed for source in sources] * num_draws, np.uint64)
    draws = [source.num_draws + number for number in range(num_draws) for source in sources]
    for source in sources:
        source.num_draws += num_draws
    count = int(np.prod(shape))
    normal = _normal(_random_words(seeds, np.array(draws, np.uint32), -(-count // 4)))
    return normal[:, :count].reshape(num_draws, len(sources), *shape)


def _random_words(seeds: np.ndarray, draws: np.ndarray, num_blocks: int) -> np.ndarray:
    """Return uint32 (R, num_blocks, 4) for seeds (R,) and numbers of draws (R,)."""
    shape = (len(seeds), num_blocks)
    blocks = np.broadcast_to(np.arange(num_blocks, dtype=np.uint32), shape)
    zeros = np.zeros(shape, np.uint32)
    return philox([blocks, np.broadcast_to(draws[:, None], shape), zeros, zeros], seeds[:, None])


def philox(counter: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Return the block of Philox4x32-10 for each counter.

    Args:
        counter: four uint32 arrays of one shape.
        keys: uint64, of a shape that broadcasts to it.

    Returns:
        uint32 (*shape, 4).
    """
    first, second, third, fourth = counter
    low_key, high_key = (keys & LOW_HALF).astype(np.uint32), (keys >> HALF_BITS).astype(np.uint32)
    for _ in range(ROUNDS):
        product, other = first.astype(np.uint64) * MULTIPLIERS[0], third.astype(np.uint64) * MULTIPLIERS[1]
        first = (other >> HALF_BITS).astype(np.uint32) ^ second ^ low_key
        third = (product >> HALF_BITS).astype(np.uint32) ^ fourth ^ high_key
        second, fourth = (other & LOW_HALF).astype(np.uint32), (product & LOW_HALF).astype(np.uint32)
        low_key, high_key = low_key + KEY_STEPS[0], high_key + KEY_STEPS[1]
    return np.stack([first, second, third, fourth], axis=-1)


def _normal(words: np.ndarray) -> np.ndarray:
    """Return float32 (R, 4 * num_blocks) for uint32 (R, num_blocks, 4): two pairs a block, cosine before sine."""
    uniform = (words.reshape(len(words), -1, 2) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(uniform[..., 0])), 2 * np.pi * uniform[..., 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(len(words), -1).astype(np.float32)


__all__ = ["MAX_SEED", "SeededNoise", "draw_normal", "draw_normals"]

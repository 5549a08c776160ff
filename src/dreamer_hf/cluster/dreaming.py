"""Dreaming with many engines: each dreams its share of the seeds.

    with DreamEngines(WorldOptions(model="pusht-tiny"), "auto") as engines:
        dreamed = engines.dream(starts, seeds, actions)

A seed determines the noise of its dream (see `seeded_noise`), so that the result is that of one engine, to rounding.

Shapes: R dreams, T frames, A action components, S state components, H, W pixels.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..dreams import Dreams
from ..engines.opening import open_world
from ..options import WorldOptions
from .connection import connected
from .worker import Stage, Work
from .worker_pool import WorkerPool


@dataclass(frozen=True)
class DreamedRows:
    """What was dreamed.

    Attributes:
        frames: uint8 (R, T, H, W, 3) RGB.
        states: float32 (R, T, S) in the units of the data; None if the world has no state.
    """

    frames: np.ndarray
    states: np.ndarray | None = None


def dream_rows(dreams: Dreams, starts: Sequence[int], seeds: Sequence[int], actions: np.ndarray) -> DreamedRows:
    """Dream R rows together with one engine.

    Args:
        dreams: of the world.
        starts: R indices of its start frames.
        seeds: R seeds of the noise.
        actions: raw actions (R, T, A).
    """
    rows = dreams.begin(list(starts), list(seeds))
    frames, states = [], []
    for step in range(actions.shape[1]):
        dreams.step(rows, list(actions[:, step]))
        frames.append([row.frame for row in rows])
        states.append([row.state for row in rows])
    has_state = len(dreams.state_space) > 0
    return DreamedRows(
        np.array(frames, np.uint8).swapaxes(0, 1),
        np.array(states, np.float32).swapaxes(0, 1) if has_state else None,
    )


class DreamEngines:
    """Engines on the nodes of a cluster; a context manager that connects, and ends them.

    Args:
        options: which world, and how it runs; its engine, device and threads are those of every engine.
        address: of the cluster, see `connected`.
        num_engines: largest number of engines. Defaults to one for each GPU, or for each core without any.
        rows: largest number of dreams that an engine steps together.

    Raises:
        ValueError, OSError: there is no such cluster, or it cannot do the work.
    """

    def __init__(self, options: WorldOptions, address: str, num_engines: int | None = None, rows: int = 64):
        self._stage = Stage(prepare_dreams, (options,), uses_gpu=options.device != "cpu")
        self._address, self._num_engines, self._rows = address, num_engines, rows
        self._stack = ExitStack()

    def __enter__(self) -> "DreamEngines":
        self._stack.enter_context(connected(self._address))
        self._pool = self._stack.enter_context(WorkerPool(self._stage, self._num_engines))
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def dream(self, starts: Sequence[int], seeds: Sequence[int], actions: np.ndarray) -> DreamedRows:
        """Return what `dream_rows` returns.

        Raises:
            ValueError, OSError: actions that do not fit the world, or engines that cannot be started.
        """
        share = self._share(len(seeds))
        shares = [slice(first, first + share) for first in range(0, len(seeds), share)]
        units = ((number, starts[rows], seeds[rows], actions[rows]) for number, rows in enumerate(shares))
        parts = {unit[0]: dreamed for unit, dreamed in self._pool.run(units)}
        ordered = [parts[number] for number in range(len(shares))]
        has_state = ordered[0].states is not None
        return DreamedRows(
            np.concatenate([part.frames for part in ordered]),
            np.concatenate([part.states for part in ordered]) if has_state else None,
        )

    def _share(self, num_rows: int) -> int:
        """Return how many rows an engine gets at a time."""
        engines = self._num_engines or self._pool.room()
        return max(1, min(self._rows, -(-num_rows // max(1, engines))))


def prepare_dreams(options: WorldOptions) -> Work:
    """Return the work of a unit (number, starts, seeds, actions): `dream_rows` of it."""
    world, starts, _ = open_world(options.model, options)
    dreams = Dreams(world, starts, options.num_inference_steps)

    def work(unit):
        _, indices, seeds, actions = unit
        dreamed = dream_rows(dreams, indices, seeds, actions)
        yield dreamed.frames.shape[0] * dreamed.frames.shape[1], len(seeds)
        return dreamed

    return work


__all__ = ["DreamEngines", "DreamedRows", "dream_rows", "prepare_dreams"]

"""Calling a function for many units on the nodes of a cluster: how `dreamer rank` and programs use one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from .connection import connected
from .worker import Stage, Work
from .worker_pool import WorkerPool


def spread(function: Callable[[Any], Any], units: Sequence, address: str, **options) -> list:
    """Return `[function(unit) for unit in units]`, computed on a cluster; see `spread_in_order`."""
    return list(spread_in_order(function, units, address, **options))


def spread_in_order(
    function: Callable[[Any], Any],
    units: Sequence,
    address: str,
    *,
    needs: Sequence[str] = (),
    uses_gpu: bool = False,
    max_workers: int | None = None,
    description: str = "working",
) -> Iterator:
    """Yield `function(unit)` for every unit, computed on a cluster, in the order of the units.

    Units whose node dies are done again on another one.

    Args:
        function: at the top level of a module that every node can import; takes and returns plain data.
        units: plain data.
        address: of the cluster, see `connected`.
        needs: modules that the function imports, which are looked for on every node first.
        uses_gpu: whether every worker gets a GPU if the cluster has any.
        max_workers: largest number of workers. Defaults to what the cluster has room for.
        description: of the progress bar.

    Raises:
        ValueError, OSError: what the function raises, with the name of the node; or there is no such cluster, or it
            cannot do the work.
    """
    stage = Stage(prepare_call, (function,), tuple(needs), uses_gpu)
    most, early, expected = min(max_workers or len(units), len(units)), {}, 0
    with connected(address), WorkerPool(stage, most) as pool, tqdm(total=len(units), desc=description) as bar:

        def show(status) -> None:
            bar.set_postfix_str(str(status), refresh=False)
            bar.update(status.episodes - bar.n)

        for (position, _), result in pool.run(enumerate(units), show):
            early[position] = result
            while expected in early:
                yield early.pop(expected)
                expected += 1


def prepare_call(function: Callable[[Any], Any]) -> Work:
    """Return the work of a unit (position, argument): what the function returns for the argument."""

    def work(unit: tuple[int, Any]):
        result = function(unit[1])
        yield 0, 1
        return result

    return work


__all__ = ["prepare_call", "spread", "spread_in_order"]

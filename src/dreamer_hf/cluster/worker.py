"""What runs in a worker process of a cluster."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from ..data.terminal_logs import log_to_terminal

REPORT_SECONDS = 1.0
Counts = tuple[int, int]
"""Frames and episodes that were done since the last time."""
Work = Callable[[Any], Generator[Counts, None, Any]]
"""Does one unit: yields what was done since the last time, and returns the result."""


@dataclass(frozen=True)
class Stage:
    """Work that is done unit by unit.

    Attributes:
        prepare: function at the top level of a module; called once in every worker with `arguments`, it returns the
            `Work`. What takes long, such as loading a model, belongs there.
        arguments: of `prepare`; sent once.
        needs: modules that the work imports.
        uses_gpu: whether every worker gets a GPU if the cluster has any.
        num_cpus: cores of a worker that has no GPU.
    """

    prepare: Callable[..., Work]
    arguments: tuple = ()
    needs: tuple[str, ...] = ()
    uses_gpu: bool = False
    num_cpus: float = 1.0


class Report(NamedTuple):
    """What a worker sends while it is at a unit.

    Attributes:
        counts: done since the last report.
        is_last: whether the unit is done.
        result: of the unit, in the last report.
    """

    counts: Counts
    is_last: bool = False
    result: Any = None


def enter_folder(folder: str) -> None:
    """Work in a folder if this node has it: what users name with a relative path is relative to that."""
    with suppress(OSError):
        os.chdir(folder)


class Worker:
    """An actor: prepares once, then does one unit after another.

    Args:
        log_level: of this process.
        folder: the working folder of the process that started it.
    """

    def __init__(self, log_level: int, folder: str):
        log_to_terminal(log_level)
        enter_folder(folder)
        self._work: Work | None = None

    def prepare(self, prepare: Callable[..., Work], *arguments) -> str:
        """Call `Stage.prepare`; return Ray's number of the node."""
        self._work = prepare(*arguments)
        return ray.get_runtime_context().get_node_id()

    def run(self, unit) -> Iterator[Report]:
        """Do a unit; yield a report about every second, and a last one with the result."""
        work, frames, episodes, reported = self._work(unit), 0, 0, time.monotonic()
        while True:
            try:
                more = next(work)
            except StopIteration as done:
                yield Report((frames, episodes), True, done.value)
                return
            frames, episodes = frames + more[0], episodes + more[1]
            if time.monotonic() - reported > REPORT_SECONDS:
                yield Report((frames, episodes))
                frames, episodes, reported = 0, 0, time.monotonic()


__all__ = ["Counts", "Report", "Stage", "Work", "Worker", "enter_folder"]

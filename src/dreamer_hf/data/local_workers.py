"""Converts shards on this machine: in this process, or in several."""

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from .conversion_progress import ConversionProgress
from .files import temporary_path
from .shard_summary import ShardSummary, summarize_shard
from .shard_task import Conversion, ShardTask
from .terminal_logs import log_to_terminal

logger = logging.getLogger(__name__)
WORKER_DIED = (
    "a worker process died, probably because memory ran out: run again with --resume and fewer --num_workers."
)


@dataclass(frozen=True)
class LocalWorkers:
    """The processes of this machine; a `ShardWorkers`.

    Args:
        num_workers: their number; 1 works in this process.
    """

    num_workers: int = 1

    def convert(self, tasks: Sequence[ShardTask], progress: ConversionProgress) -> None:
        """See `ShardWorkers.convert`."""
        if min(self.num_workers, len(tasks)) > 1:
            _convert_in_processes(tasks, min(self.num_workers, len(tasks)), progress)
            return
        for task in tasks:
            for frames, episodes in task.work():
                progress.add(frames, episodes)
            task.publish()

    def summarize(self, conversion: Conversion, shards: Sequence[int]) -> Iterator[ShardSummary]:
        """See `ShardWorkers.summarize`."""
        return (summarize_shard(conversion.folder, shard, conversion.summary_kinds) for shard in shards)


_done = None
"""In worker processes: frames stored and episodes finished so far by all of them."""


def _convert_in_processes(tasks: Sequence[ShardTask], num_workers: int, progress: ConversionProgress) -> None:
    # Spawned, not forked: the threads of OpenCV, Arrow and HDF5 do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counters = context.Array("q", 2)
    settings = (counters, logger.getEffectiveLevel())
    with ProcessPoolExecutor(num_workers, context, _set_up_worker, settings) as pool:
        pending = _submit(pool, tasks)
        try:
            while pending:
                done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                # Without the lock: a worker that was killed may hold it.
                progress.show(*counters.get_obj())
                for future in done:
                    _publish(pending.pop(future), future.result())
        except (BrokenProcessPool, MemoryError) as error:
            raise OSError(WORKER_DIED) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, task in pending.items():  # After a failure, what is complete stays for --resume.
                if not future.cancelled() and future.exception() is None:
                    _publish(task, future.result())


def _publish(task: ShardTask, prepared: Path | None) -> None:
    if prepared is not None:
        task.conversion.folder.publish(task.name, prepared)


def _submit(pool: ProcessPoolExecutor, tasks: Sequence[ShardTask]) -> dict[Future, ShardTask]:
    """Start the workers and queue all tasks.

    Raises:
        OSError: a worker died while it started, which surfaces as a broken pool or pipe, or there is no memory for
            one.
    """
    try:
        return {pool.submit(_convert_shard_in_worker, task): task for task in tasks}
    except (BrokenProcessPool, OSError, EOFError) as error:
        raise OSError(WORKER_DIED) from error


def _set_up_worker(counters, log_level: int) -> None:
    global _done
    _done = counters
    cv2.setNumThreads(1)
    log_to_terminal(log_level)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker with its parent, however that dies: otherwise it would wait for work forever, and write next to
    a conversion that was started again."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _convert_shard_in_worker(task: ShardTask) -> Path | None:
    """Return the file to publish: the parent waits for the disk, while this worker continues converting. Uploads take
    longer, so every worker does its own; then the result is None."""
    for frames, episodes in task.work():
        with _done.get_lock():
            _done[0] += frames
            _done[1] += episodes
    if task.conversion.folder.is_remote:
        task.publish()
        return None
    return temporary_path(task.conversion.folder.place(task.name))


__all__ = ["WORKER_DIED", "LocalWorkers"]

"""Converting on a cluster: the same shards as on one machine, spread over its workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from ..data.command_options import ConverterOptions
from ..data.conversion_progress import ConversionProgress
from ..data.convert_command import run_converter
from ..data.local_workers import LocalWorkers
from ..data.output_folder import output_folder
from ..data.shard_summary import ShardSummary, summarize_shard
from ..data.shard_task import Conversion, ShardTask
from .connection import connected
from .node_checks import check_nodes, folder_probe, nodes_with_cores
from .worker import Stage, Work
from .worker_pool import WorkerPool

STORAGE_MODULES = ("h5py", "hdf5plugin", "cv2", "pyarrow", "xxhash")
SOURCE_MODULES = {
    "LeRobotOptions": ("av",),
    "RldsOptions": ("tensorflow_datasets", "google_crc32c", "array_record"),
    "TableOptions": ("datasets",),
    "VideoOptions": ("av",),
}
"""What the workers import, by the options of the source."""


def convert_on_cluster(options: ConverterOptions) -> Path | str:
    """Do what `dreamer convert` does on the cluster `options.ray`.

    Raises:
        OSError, ValueError: as `run_converter`; or there is no such cluster, or one on which the work cannot be done.
    """
    needs = (
        STORAGE_MODULES + SOURCE_MODULES.get(type(options).__name__, ()) + output_folder(options.output_dir).modules
    )
    with connected(options.ray):
        check_nodes(nodes_with_cores(), needs)
        return run_converter(options, RayWorkers(options.num_workers, needs))


@dataclass(frozen=True)
class RayWorkers:
    """The workers of the cluster that this process is connected to; a `ShardWorkers`.

    Args:
        max_workers: their largest number. Defaults to one for each core.
        needs: modules that they import.
    """

    max_workers: int | None = None
    needs: tuple[str, ...] = STORAGE_MODULES

    def convert(self, tasks: Sequence[ShardTask], progress: ConversionProgress) -> None:
        """See `ShardWorkers.convert`."""
        conversion = tasks[0].conversion

        def show(status) -> None:
            progress.note(str(status))
            progress.show(status.frames, status.episodes)

        stage = Stage(prepare_conversion, (conversion,), self.needs)
        most = min(self.max_workers or len(tasks), len(tasks))
        with folder_probe(conversion.folder) as probe, WorkerPool(stage, most, probe) as pool:
            for _ in pool.run(((task.shard, task.numbers) for task in tasks), show):
                pass

    def summarize(self, conversion: Conversion, shards: Sequence[int]) -> Iterator[ShardSummary]:
        """See `ShardWorkers.summarize`: this process does it, unless every look into a shard is a download."""
        if not conversion.folder.is_remote:
            yield from LocalWorkers().summarize(conversion, shards)
            return
        early, wanted = {}, iter(shards)
        expected = next(wanted, None)
        with WorkerPool(Stage(prepare_summaries, (conversion,), self.needs), self.max_workers) as pool:
            for shard, summary in pool.run(shards):
                early[shard] = summary
                while expected in early:
                    yield early.pop(expected)
                    expected = next(wanted, None)


def prepare_conversion(conversion: Conversion) -> Work:
    """Return the work of a unit (shard, episodes): the shard, under its final name."""
    cv2.setNumThreads(1)

    def work(unit: tuple[int, list[int]]):
        task = ShardTask(conversion, *unit)
        yield from task.work()
        task.publish()

    return work


def prepare_summaries(conversion: Conversion) -> Work:
    """Return the work of a unit (a shard): its summary."""

    def work(shard: int):
        yield 0, 0
        return summarize_shard(conversion.folder, shard, conversion.summary_kinds)

    return work


__all__ = ["RayWorkers", "convert_on_cluster"]

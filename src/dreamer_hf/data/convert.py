"""Converts any `EpisodeSource` into a folder of shards: in parallel, resumable, one shard at a time (see
`shard_task`)."""

import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Protocol

from .action_data import ActionStatistics
from .conversion_options import ConversionOptions, JobOptions
from .conversion_progress import ConversionProgress
from .episodes import EpisodeSource
from .files import write_json
from .local_workers import LocalWorkers
from .output_folder import output_folder
from .shard_summary import ShardSummary
from .shard_task import Conversion, ShardTask, write_episodes
from .shards import FORMAT_VERSION, INDEX_NAME, METADATA_NAME, ShardIndex, ShardMetadata, shard_name
from .value_warnings import warn_of_values

logger = logging.getLogger(__name__)
PLAN_NAME = "conversion.json"
RELATIVE_MODE = "difference_of_kept_frames"


class ShardWorkers(Protocol):
    """What converts shards: the processes of this machine, or those of a cluster."""

    def convert(self, tasks: Sequence[ShardTask], progress: ConversionProgress) -> None:
        """Convert shards, each of which appears under its name when it is complete.

        Raises:
            OSError, ValueError: bad input, a full disk, or workers that died; one sentence says which.
        """

    def summarize(self, conversion: Conversion, shards: Sequence[int]) -> Iterator[ShardSummary]:
        """Yield the summaries of complete shards, in order."""


def convert(
    source: EpisodeSource,
    output_dir: str | Path,
    options: ConversionOptions,
    job: JobOptions | None = None,
    workers: ShardWorkers | None = None,
) -> Path | str:
    """Convert `source` into shards under `output_dir` and return that.

    Args:
        source: the episodes.
        output_dir: a folder, or an address of fsspec.
        options: what is made of the episodes.
        job: how the work is done.
        workers: what does it. Defaults to `job.num_workers` processes of this machine.

    Raises:
        FileExistsError: the folder holds something else, or an unfinished conversion and `resume` is not given.
        BlockingIOError: another process is converting into the folder.
        FileNotFoundError, OSError, ValueError: bad input, or the disk is full; finished shards stay for `resume`.
    """
    job = job or JobOptions()
    conversion = Conversion(source, output_folder(output_dir), options)
    options.frame_step(source.fps)
    options.check_actions(source.action_dim)
    if source.numbers is None and workers is not None:
        raise ValueError("a stream cannot be split among workers: leave out --ray, or --streaming.")
    plan = None if source.numbers is None else conversion.plan()
    source.check()
    workers = workers or LocalWorkers(job.num_workers)
    conversion.folder.make()
    with conversion.folder.lock():
        done = _claim_folder(conversion, job.resume)
        if plan is None:
            num_shards = _convert_stream(conversion, done)
        else:
            num_shards = len(plan)
            todo = [shard for shard in range(num_shards) if shard_name(shard) not in done]
            _convert_shards([ShardTask(conversion, shard, plan[shard]) for shard in todo], workers)
        _merge(conversion, workers.summarize(conversion, range(num_shards)))
    return str(output_dir) if conversion.folder.is_remote else Path(output_dir)


def _claim_folder(conversion: Conversion, resume: bool) -> set[str]:
    """Claim an empty folder, or check that the one there belongs to this very conversion; return what it holds."""
    folder, arguments = conversion.folder, conversion.arguments
    names = folder.names()
    if METADATA_NAME in names and resume:
        _tidy_up(conversion)  # It may have been killed after it wrote the last file.
        raise FileExistsError(f"{folder} holds a finished conversion: there is nothing left to do.")
    if names and PLAN_NAME not in names:
        raise FileExistsError(f"{folder} is not empty: choose another --output_dir, or empty it first.")
    # A folder in which no shard was started yet may be taken by another conversion.
    fresh = not names or (not resume and names == {PLAN_NAME} and not folder.leftovers())
    if not fresh and not resume:
        raise FileExistsError(f"{folder} holds an unfinished conversion: continue it with --resume, or empty it.")
    if fresh:
        with folder.writing(PLAN_NAME) as local:
            write_json(local / PLAN_NAME, arguments)
    planned = folder.read_json(PLAN_NAME)
    changed = sorted(key for key in arguments.keys() | planned.keys() if arguments.get(key) != planned.get(key))
    if changed:
        raise ValueError(f"{folder} was started with other values of {', '.join(changed)}: give the same ones.")
    if resume:
        folder.remove_leftovers()
    return names


def _convert_shards(tasks: Sequence[ShardTask], workers: ShardWorkers) -> None:
    if not tasks:
        return
    conversion, numbers = tasks[0].conversion, [number for task in tasks for number in task.numbers]
    with ConversionProgress(conversion.source, numbers, conversion.step) as progress:
        workers.convert(tasks, progress)


def _convert_stream(conversion: Conversion, done: set[str]) -> int:
    """Convert a source of unknown length into one shard after another; return their number."""
    shard = next(number for number in count() if shard_name(number) not in done)
    size = conversion.options.episodes_per_shard
    episodes = conversion.source.read(range(shard * size, sys.maxsize), conversion.step)
    with ConversionProgress(conversion.source, (), conversion.step) as progress:
        while (first := next(episodes, None)) is not None:
            for frames, finished in write_episodes(conversion, shard, chain([first], islice(episodes, size - 1))):
                progress.add(frames, finished)
            conversion.folder.publish(shard_name(shard))
            shard += 1
    return shard


def _tidy_up(conversion: Conversion) -> None:
    """Delete what a finished conversion does not need any more."""
    conversion.folder.remove(PLAN_NAME)
    conversion.folder.remove_leftovers()


def _merge(conversion: Conversion, summaries: Iterator[ShardSummary]) -> None:
    """Write the index, then the metadata, from the summaries of all shards."""
    folder, source = conversion.folder, conversion.source
    parts, frame_shape, state_dim = [], None, 0 if source.state is None else source.state.dim
    statistics = {"action": ActionStatistics.empty(source.action_dim), "state": ActionStatistics.empty(state_dim)}
    for shard, summary in enumerate(summaries):
        parts.append(summary.index)
        shape = summary.frame_shape
        statistics |= {kind: statistics[kind].merge(new) for kind, new in summary.statistics.items()}
        if shape and frame_shape not in (None, shape):
            raise ValueError(
                f"{Path(str(folder), shard_name(shard))} holds frames of {shape}, earlier shards of {frame_shape}: "
                "give --width and --height to bring all frames to one size."
            )
        frame_shape = shape or frame_shape
    index = ShardIndex.join(parts)
    if not len(index.lengths):
        raise ValueError(
            "no episode is left: all are damaged or have fewer than "
            f"{conversion.options.min_episode_length} frames (--min_episode_length)."
        )
    with folder.writing(INDEX_NAME) as local:
        index.write(local)
    with folder.writing(METADATA_NAME) as local:
        _metadata(conversion, parts, frame_shape, statistics).write(local)
    _tidy_up(conversion)
    warn_of_values("action", statistics["action"].to_dict(), source.action_names)
    if source.state is not None:
        warn_of_values("state", statistics["state"].to_dict(), source.state.names)
    planned = "" if source.numbers is None else f" of {len(source.numbers)}"
    logger.info(f"wrote {len(index.lengths)}{planned} episodes, {index.lengths.sum()} frames, to {folder}")


def _metadata(
    conversion: Conversion,
    parts: list[ShardIndex],
    frame_shape: tuple[int, ...],
    statistics: dict[str, ActionStatistics],
) -> ShardMetadata:
    source, options, state = conversion.source, conversion.options, conversion.source.state
    return ShardMetadata(
        num_shards=len(parts),
        total_episodes=sum(len(part.lengths) for part in parts),
        image_shape=frame_shape,
        action_shape=(source.action_dim,),
        relative_actions=options.relative_actions,
        relative_mode=RELATIVE_MODE if options.relative_actions else None,
        format_version=FORMAT_VERSION,
        fps=None if source.fps is None else source.fps / conversion.step,
        color_order="rgb",
        action_names=source.action_names,
        action_units=source.action_units,
        action_stats=statistics["action"].to_dict(),
        image_key=source.image_key,
        action_key=source.action_key,
        source=source.description,
        conversion=conversion.arguments,
        frames_per_shard=[int(part.lengths.sum()) for part in parts],
        camera_names=source.camera_names,
        state_shape=None if state is None else (state.dim,),
        state_names=None if state is None else state.names,
        state_units=None if state is None else state.units,
        state_stats=statistics["state"].to_dict(),
        state_key=None if state is None else state.key,
        reward_names=None if source.rewards is None else source.rewards.task_names,
        reward_key=None if source.rewards is None else source.rewards.key,
    )


__all__ = ["PLAN_NAME", "ShardWorkers", "convert"]

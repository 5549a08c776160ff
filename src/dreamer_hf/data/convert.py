"""Turns any `EpisodeSource` into a folder of shards: in parallel, resumable, a shard at a time.

A shard is the unit of work. Its episodes follow from the plan alone, so a shard that lies there under its final name
needs no second look after a kill, workers and cluster jobs share nothing but the folder, and its files are decoded
once, in order.
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import chain, count, islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .action_data import ActionStatistics
from .conversion_options import ConversionOptions, JobOptions
from .episodes import DamagedEpisode, Episode, EpisodeSource
from .files import is_leftover, lock_folder, publish, read_json, remove_leftovers, temporary_path, write_json
from .frame_transform import FrameTransform
from .shard_writer import ShardWriter, prepare_shard, read_shard_statistics
from .shards import (
    FORMAT_VERSION,
    IMAGES,
    METADATA_NAME,
    ShardIndex,
    ShardMetadata,
    damaged_shard,
    open_shard,
    read_shard_index,
    shard_name,
)

logger = logging.getLogger(__name__)
PLAN_NAME = "conversion.json"
RELATIVE_MODE = "difference_of_kept_frames"
FRAMES_PER_REPORT = 32
WORKER_DIED = (
    "a worker process died, probably because memory ran out: run again with --resume and fewer --num_workers."
)


class ConversionProgress:
    """A bar that is told what has been stored so far; a context manager.

    Args:
        source: what is converted. Where only reading tells how long its episodes are, the total is estimated from the
            ones that are done; a stream has none.
        numbers: the episodes to convert now.
        step: source frames to a stored one.
    """

    def __init__(self, source: EpisodeSource, numbers: Sequence[int], step: int):
        self._step, self._num_episodes, self._estimates = step, len(numbers), False
        total = None
        if source.lengths is not None:
            lengths = dict(zip(source.numbers, source.lengths, strict=True))
            total = sum(lengths[number] for number in numbers)
        elif source.numbers is not None:
            self._estimates = True
        self.bar = tqdm(total=total, desc="converting", unit="frame", unit_scale=True, smoothing=0.05)
        self._frames = self._episodes = 0

    def __enter__(self) -> "ConversionProgress":
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()

    def show(self, frames: int, episodes: int) -> None:
        """Shows that so many frames are stored and so many episodes are done, counted from the start."""
        if self._estimates and episodes:
            self.bar.total = max(frames, round(frames * self._num_episodes / episodes)) * self._step
        self.bar.update(frames * self._step - self.bar.n)

    def add(self, frames: int, episodes: int) -> None:
        """Shows that so many more frames are stored, and so many more episodes done."""
        self._frames, self._episodes = self._frames + frames, self._episodes + episodes
        self.show(self._frames, self._episodes)


def convert(
    source: EpisodeSource, output_dir: str | Path, options: ConversionOptions, job: JobOptions | None = None
) -> Path:
    """Converts `source` into shards under `output_dir` and returns that folder.

    Raises:
        FileExistsError: the folder holds something else, or an unfinished conversion and `resume` is not given.
        FileNotFoundError, OSError, ValueError: bad input, or the disk is full; finished shards stay for `resume`.
    """
    job = job or JobOptions()
    output_dir = Path(output_dir)
    step = options.frame_step(source.fps)
    options.check_actions(source.action_dim)
    if source.numbers is None and (job.num_jobs > 1 or job.merge):
        raise ValueError("a stream cannot be split among jobs: convert it in one, or without streaming.")
    plan = None if source.numbers is None else _plan_shards(source, options, step)
    arguments = _arguments(source, options)
    _make_folder(output_dir)
    with lock_folder(output_dir, shared=job.num_jobs > 1 and not job.merge):
        _claim_folder(output_dir, arguments, job)
        if plan is None:
            num_shards = _convert_stream(source, output_dir, options, step)
        elif not job.merge:
            todo = [
                shard for shard in range(job.job_index, len(plan), job.num_jobs) if not _is_done(output_dir, shard)
            ]
            tasks = [(source, output_dir, options, shard, plan[shard]) for shard in todo]
            _convert_shards(tasks, step, job.num_workers)
        if job.num_jobs == 1 or job.merge:
            _merge(source, output_dir, options, num_shards if plan is None else len(plan), arguments)
    return output_dir


def _plan_shards(source: EpisodeSource, options: ConversionOptions, step: int) -> list[list[int]]:
    numbers = list(source.numbers)
    if source.lengths is not None:
        kept = [-(-length // step) for length in source.lengths]
        numbers = [n for n, length in zip(numbers, kept, strict=True) if length >= options.min_episode_length]
        if len(numbers) < len(kept):
            logger.info(f"leaving out {len(kept) - len(numbers)} episodes shorter than {options.min_episode_length}")
        if not numbers:
            raise ValueError(
                f"no episode has {options.min_episode_length} frames (the longest has {max(kept, default=0)}): "
                "lower --min_episode_length."
            )
    size = options.episodes_per_shard
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _arguments(source: EpisodeSource, options: ConversionOptions) -> dict:
    """Everything that decides what a shard holds; two runs may share a folder only if they agree on it."""
    arguments = asdict(options)
    arguments.update(arguments.pop("transform"), absolute_action_dims=list(options.absolute_action_dims))
    arguments.update(image_key=source.image_key, action_key=source.action_key, source=source.description)
    return arguments | {"episodes": "stream" if source.numbers is None else _compact(source.numbers)}


def _compact(numbers) -> str:
    """Episode numbers as ranges: "0:100,105:110"."""
    numbers = np.asarray(numbers)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{run[0]}:{run[-1] + 1}" for run in runs if len(run))


def _make_folder(output_dir: Path) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{output_dir} cannot be a folder ({error.strerror}): choose another --output_dir.") from error


def _claim_folder(output_dir: Path, arguments: dict, job: JobOptions) -> None:
    """Claims an empty folder, or checks that the one there belongs to this very conversion."""
    found = list(output_dir.iterdir())
    names = {path.name for path in found if not is_leftover(path)}
    shared = job.resume or job.num_jobs > 1 or job.merge
    if METADATA_NAME in names and shared:
        raise FileExistsError(f"{output_dir} holds a finished conversion: there is nothing left to do.")
    plan_path = output_dir / PLAN_NAME
    if names and PLAN_NAME not in names:
        raise FileExistsError(f"{output_dir} is not empty: choose another --output_dir, or empty it first.")
    if not names and job.merge:
        raise FileNotFoundError(f"{plan_path} is missing: run the jobs before --merge.")
    fresh = not names or (not shared and [path.name for path in found] == [PLAN_NAME])  # nothing done yet: begin anew
    if not fresh and not shared:
        raise FileExistsError(f"{output_dir} holds an unfinished conversion: go on with --resume, or empty it first.")
    if fresh:
        write_json(plan_path, arguments)  # Jobs that start together all write the same.
    _check_plan(output_dir, arguments)
    if job.resume and job.num_jobs == 1:
        remove_leftovers(output_dir)


def _check_plan(output_dir: Path, arguments: dict) -> None:
    planned = read_json(output_dir / PLAN_NAME)
    changed = sorted(key for key in arguments.keys() | planned.keys() if arguments.get(key) != planned.get(key))
    if changed:
        raise ValueError(f"{output_dir} was begun with other values of {', '.join(changed)}: give the same ones.")


def _is_done(output_dir: Path, shard: int) -> bool:
    return (output_dir / shard_name(shard)).exists()


def _convert_shards(tasks: list[tuple], step: int, num_workers: int) -> None:
    if not tasks:
        return
    numbers = [number for task in tasks for number in task[-1]]
    with ConversionProgress(tasks[0][0], numbers, step) as progress:
        if min(num_workers, len(tasks)) == 1:
            for task in tasks:
                for frames, episodes in _convert_shard(*task):
                    progress.add(frames, episodes)
                publish(_shard_path(task))
        else:
            _convert_in_processes(tasks, min(num_workers, len(tasks)), progress)


_done = None
"""In worker processes: frames stored and episodes done so far by all of them."""


def _convert_in_processes(tasks: list[tuple], num_workers: int, progress: ConversionProgress) -> None:
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
                    publish(_shard_path(pending.pop(future)), future.result())
        except (BrokenProcessPool, MemoryError) as error:
            raise OSError(WORKER_DIED) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, task in pending.items():  # Left over after a failure: what is complete stays for --resume.
                if not future.cancelled() and future.exception() is None:
                    publish(_shard_path(task), future.result())


def _submit(pool: ProcessPoolExecutor, tasks: list[tuple]) -> dict[Future, tuple]:
    """Start the workers and queue all tasks.

    Raises:
        OSError: a worker died while it started, which surfaces as a broken pool or pipe, or there is no memory for one.
    """
    try:
        return {pool.submit(_convert_shard_in_worker, *task): task for task in tasks}
    except (BrokenProcessPool, OSError, EOFError) as error:
        raise OSError(WORKER_DIED) from error


def _shard_path(task: tuple) -> Path:
    _, output_dir, _, shard, _ = task
    return output_dir / shard_name(shard)


def _set_up_worker(counters, log_level: int) -> None:
    global _done
    _done = counters
    cv2.setNumThreads(1)
    logging.basicConfig(level=log_level, format="%(message)s")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker with its parent, however that dies: a pool's workers would wait for work for ever, and write on
    beside a conversion that was started again."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _convert_shard_in_worker(*task) -> Path:
    """Returns the file to publish: whoever started this worker waits for the disk, while it goes on converting."""
    for frames, episodes in _convert_shard(*task):
        with _done.get_lock():
            _done[0] += frames
            _done[1] += episodes
    return temporary_path(_shard_path(task))


def _convert_stream(source: EpisodeSource, output_dir: Path, options: ConversionOptions, step: int) -> int:
    """Reads a source that has no end in sight into one shard after another; returns their number."""
    shard = next(number for number in count() if not _is_done(output_dir, number))
    size = options.episodes_per_shard
    episodes = source.read(range(shard * size, sys.maxsize), step)
    with ConversionProgress(source, (), step) as progress:
        while (first := next(episodes, None)) is not None:
            group = chain([first], islice(episodes, size - 1))
            for frames, done in _write_episodes(source, output_dir, options, shard, group):
                progress.add(frames, done)
            publish(output_dir / shard_name(shard))
            shard += 1
    return shard


def _convert_shard(
    source: EpisodeSource, output_dir: Path, options: ConversionOptions, shard: int, numbers: list[int]
) -> Iterator[tuple[int, int]]:
    return _write_episodes(source, output_dir, options, shard, source.read(numbers, options.frame_step(source.fps)))


def _write_episodes(
    source: EpisodeSource, output_dir: Path, options: ConversionOptions, shard: int, episodes: Iterator[Episode]
) -> Iterator[tuple[int, int]]:
    """Prepares one shard for `publish`; yields how many frames were stored and episodes done since the last time, for progress."""
    path = output_dir / shard_name(shard)
    layout = {"compression": options.compression, "chunk_length": options.chunk_length}
    with prepare_shard(path, source.action_dim, **layout) as writer:
        for position, episode in enumerate(episodes):
            try:
                for frames in _write_episode(writer, episode, options, warns=shard == position == 0):
                    yield frames, 0
            except DamagedEpisode:
                writer.drop_episode()
            yield 0, 1


def _write_episode(writer: ShardWriter, episode: Episode, options: ConversionOptions, warns: bool) -> Iterator[int]:
    """Writes one episode, if it is long enough; yields how many frames were stored since the last time."""
    writer.begin_episode(episode.number)
    transform, length = options.transform, 0
    for length, frame in enumerate(episode.frames, start=1):
        if warns and length == 1:
            _warn_of_stretching(frame, transform)
        out = writer.new_frame((*transform.output_size(*frame.shape[:2]), 3))
        transform.write(frame, out)
        if length % FRAMES_PER_REPORT == 0:
            yield FRAMES_PER_REPORT
    yield length % FRAMES_PER_REPORT
    if length < options.min_episode_length:  # Some sources only tell by reading.
        writer.drop_episode()
    else:
        writer.end_episode(options.prepare_actions(episode.actions()))


def _warn_of_stretching(frame: np.ndarray, transform: FrameTransform) -> None:
    height, width = frame.shape[:2]
    if transform.stretches(height, width):
        new_height, new_width = transform.output_size(height, width)
        logger.info(
            f"stretching frames of {width}x{height} to {new_width}x{new_height}; --pad_to_square keeps the ratio"
        )


def _merge(
    source: EpisodeSource, output_dir: Path, options: ConversionOptions, num_shards: int, arguments: dict
) -> None:
    """Checks that every shard is there and writes the index, then the metadata."""
    missing = [shard_name(shard) for shard in range(num_shards) if not _is_done(output_dir, shard)]
    if missing:
        raise FileNotFoundError(f"{output_dir} lacks {', '.join(missing[:5])}: run their jobs again with --resume.")
    parts, statistics, frame_shape = [], ActionStatistics.empty(source.action_dim), None
    for shard in range(num_shards):
        path = output_dir / shard_name(shard)
        parts.append(read_shard_index(path, shard))
        with open_shard(path) as file:
            try:
                statistics = statistics.merge(read_shard_statistics(file))
                shape = file[IMAGES].shape[2:] if IMAGES in file else None
            except (KeyError, OSError, RuntimeError) as error:
                raise damaged_shard(path, error) from error
        if shape and frame_shape not in (None, shape):
            raise ValueError(
                f"{path} holds frames of {shape}, earlier shards of {frame_shape}: give --width and --height to bring "
                "all frames to one size."
            )
        frame_shape = shape or frame_shape
    index = ShardIndex.join(parts)
    if not len(index.lengths):
        raise ValueError(
            f"no episode is left: all are damaged or have fewer than {options.min_episode_length} frames "
            "(--min_episode_length)."
        )
    index.write(output_dir)
    _metadata(source, options, parts, frame_shape, statistics, arguments).write(output_dir)
    (output_dir / PLAN_NAME).unlink(missing_ok=True)
    remove_leftovers(output_dir)
    planned = "" if source.numbers is None else f" of {len(source.numbers)}"
    logger.info(f"wrote {len(index.lengths)}{planned} episodes, {index.lengths.sum()} frames, to {output_dir}")


def _metadata(source, options, parts, frame_shape, statistics, arguments) -> ShardMetadata:
    step = options.frame_step(source.fps)
    return ShardMetadata(
        num_shards=len(parts),
        total_episodes=sum(len(part.lengths) for part in parts),
        image_shape=frame_shape,
        action_shape=(source.action_dim,),
        relative_actions=options.relative_actions,
        relative_mode=RELATIVE_MODE if options.relative_actions else None,
        format_version=FORMAT_VERSION,
        fps=None if source.fps is None else source.fps / step,
        color_order="rgb",
        action_names=source.action_names,
        action_units=source.action_units,
        action_stats=statistics.to_dict(),
        image_key=source.image_key,
        action_key=source.action_key,
        source=source.description,
        conversion=arguments,
        frames_per_shard=[int(part.lengths.sum()) for part in parts],
    )

"""Converts any `EpisodeSource` into a folder of shards: in parallel, resumable, one shard at a time.

A shard is the unit of work. Its episodes follow from the plan alone, so a shard that exists under its final name needs
no second look after a kill, workers and cluster jobs share only the folder, and the files of a shard are decoded once,
in order.
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from .action_data import ActionStatistics, vary_around_zero
from .conversion_options import ConversionOptions, JobOptions
from .episodes import DamagedEpisode, Episode, EpisodeSource, format_ranges
from .files import (
    first_line,
    is_leftover,
    json_checksum,
    lock_folder,
    publish,
    read_json,
    remove_leftovers,
    temporary_path,
    write_json,
)
from .shard_writer import ShardWriter, prepare_shard, read_shard_statistics
from .shards import (
    FORMAT_VERSION,
    IMAGES,
    METADATA_NAME,
    UNREADABLE,
    ShardIndex,
    ShardMetadata,
    damaged_shard,
    open_shard,
    read_shard_index,
    shard_name,
    stored_array,
)
from .value_warnings import warn_of_values

logger = logging.getLogger(__name__)
PLAN_NAME = "conversion.json"
RELATIVE_MODE = "difference_of_kept_frames"
FRAMES_PER_REPORT = 32
WORKER_DIED = (
    "a worker process died, probably because memory ran out: run again with --resume and fewer --num_workers."
)


class ConversionProgress:
    """A progress bar of source frames, with their rate and the time that remains; a context manager.

    Args:
        source: what is converted. If only reading tells how long its episodes are, the total is estimated from the
            finished ones; a stream has no total.
        numbers: the episodes to convert now.
        step: source frames per stored frame.
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
        """Show how many frames are stored and how many episodes are finished, since the start."""
        if self._estimates and episodes:
            self.bar.total = max(frames, round(frames * self._num_episodes / episodes)) * self._step
        self.bar.update(frames * self._step - self.bar.n)

    def add(self, frames: int, episodes: int) -> None:
        """Show that this many more frames are stored, and this many more episodes finished."""
        self._frames, self._episodes = self._frames + frames, self._episodes + episodes
        self.show(self._frames, self._episodes)


@dataclass(frozen=True)
class Conversion:
    """One source on its way into one folder."""

    source: EpisodeSource
    output_dir: Path
    options: ConversionOptions

    @property
    def step(self) -> int:
        """Source frames per stored frame."""
        return self.options.frame_step(self.source.fps)

    @property
    def arguments(self) -> dict:
        """Everything that determines what a shard holds; two runs may share a folder only if they agree on it."""
        source = self.source
        arguments = self.options.arguments(source.action_dim)
        arguments.update(image_key=source.image_key, action_key=source.action_key, source=source.description)
        if source.camera_names is not None:
            arguments["camera_names"] = source.camera_names
        if source.state is not None:
            arguments["state_key"] = source.state.key
        if source.rewards is not None:
            arguments["reward_key"] = source.rewards.key
        return arguments | {"episodes": "stream" if source.numbers is None else format_ranges(source.numbers)}

    def shard_path(self, shard: int) -> Path:
        """Return the final path of a shard."""
        return self.output_dir / shard_name(shard)

    def is_done(self, shard: int) -> bool:
        """Return whether a shard is complete."""
        return self.shard_path(shard).exists()

    def plan(self) -> list[list[int]]:
        """Return the episodes of every shard."""
        source, shortest, numbers = self.source, self.options.min_episode_length, list(self.source.numbers)
        if source.lengths is not None:
            kept = [-(-length // self.step) for length in source.lengths]
            numbers = [number for number, length in zip(numbers, kept, strict=True) if length >= shortest]
            if len(numbers) < len(kept):
                logger.info(f"leaving out {len(kept) - len(numbers)} episodes shorter than {shortest}")
            if not numbers:
                raise ValueError(
                    f"no episode has {shortest} frames (the longest has {max(kept, default=0)}): "
                    "lower --min_episode_length."
                )
        size = self.options.episodes_per_shard
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@dataclass(frozen=True)
class ShardTask:
    """One shard to convert."""

    conversion: Conversion
    shard: int
    numbers: list[int]

    @property
    def path(self) -> Path:
        """The final path of the shard."""
        return self.conversion.shard_path(self.shard)

    def work(self) -> Iterator[tuple[int, int]]:
        """Prepare the shard for `publish`; see `write_episodes`."""
        conversion = self.conversion
        return write_episodes(conversion, self.shard, conversion.source.read(self.numbers, conversion.step))


def convert(
    source: EpisodeSource, output_dir: str | Path, options: ConversionOptions, job: JobOptions | None = None
) -> Path:
    """Convert `source` into shards under `output_dir` and return that folder.

    Raises:
        FileExistsError: the folder holds something else, or an unfinished conversion and `resume` is not given.
        BlockingIOError: another process is converting into the folder.
        FileNotFoundError, OSError, ValueError: bad input, or the disk is full; finished shards stay for `resume`.
    """
    job = job or JobOptions()
    conversion = Conversion(source, Path(output_dir), options)
    options.frame_step(source.fps)
    options.check_actions(source.action_dim)
    if source.numbers is None and (job.num_jobs > 1 or job.merge):
        raise ValueError("a stream cannot be split among jobs: convert it in one, or without streaming.")
    plan = None if source.numbers is None else conversion.plan()
    source.check()
    _make_folder(conversion.output_dir)
    with lock_folder(output_dir, shared=job.num_jobs > 1 and not job.merge):
        _claim_folder(conversion, job)
        if plan is None:
            num_shards = _convert_stream(conversion)
        elif not job.merge:
            todo = [shard for shard in range(job.job_index, len(plan), job.num_jobs) if not conversion.is_done(shard)]
            _convert_shards([ShardTask(conversion, shard, plan[shard]) for shard in todo], job.num_workers)
        if job.num_jobs == 1 or job.merge:
            _merge(conversion, num_shards if plan is None else len(plan))
    return conversion.output_dir


def _make_folder(output_dir: Path) -> None:
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{output_dir} cannot be a folder ({error.strerror}): choose another --output_dir.") from error


def _claim_folder(conversion: Conversion, job: JobOptions) -> None:
    """Claim an empty folder, or check that the one there belongs to this very conversion."""
    output_dir = conversion.output_dir
    found = list(output_dir.iterdir())
    names = {path.name for path in found if not is_leftover(path)}
    shared = job.resume or job.num_jobs > 1 or job.merge
    if METADATA_NAME in names and shared:
        _tidy_up(output_dir)  # It may have been killed after it wrote the last file.
        raise FileExistsError(f"{output_dir} holds a finished conversion: there is nothing left to do.")
    if names and PLAN_NAME not in names:
        raise FileExistsError(f"{output_dir} is not empty: choose another --output_dir, or empty it first.")
    if not names and job.merge:
        raise FileNotFoundError(f"{output_dir / PLAN_NAME} is missing: run the jobs before --merge.")
    # A folder in which no shard was started yet may be taken by another conversion.
    fresh = not names or (not shared and [path.name for path in found] == [PLAN_NAME])
    if not fresh and not shared:
        raise FileExistsError(f"{output_dir} holds an unfinished conversion: continue it with --resume, or empty it.")
    arguments = conversion.arguments
    if fresh:
        write_json(output_dir / PLAN_NAME, arguments)  # Jobs that start together all write the same.
    planned = read_json(output_dir / PLAN_NAME)
    changed = sorted(key for key in arguments.keys() | planned.keys() if arguments.get(key) != planned.get(key))
    if changed:
        raise ValueError(f"{output_dir} was started with other values of {', '.join(changed)}: give the same ones.")
    if job.resume and job.num_jobs == 1:
        remove_leftovers(output_dir)


def _convert_shards(tasks: list[ShardTask], num_workers: int) -> None:
    if not tasks:
        return
    conversion, numbers = tasks[0].conversion, [number for task in tasks for number in task.numbers]
    with ConversionProgress(conversion.source, numbers, conversion.step) as progress:
        if min(num_workers, len(tasks)) == 1:
            for task in tasks:
                for frames, episodes in task.work():
                    progress.add(frames, episodes)
                publish(task.path)
        else:
            _convert_in_processes(tasks, min(num_workers, len(tasks)), progress)


_done = None
"""In worker processes: frames stored and episodes finished so far by all of them."""


def _convert_in_processes(tasks: list[ShardTask], num_workers: int, progress: ConversionProgress) -> None:
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
                    publish(pending.pop(future).path, future.result())
        except (BrokenProcessPool, MemoryError) as error:
            raise OSError(WORKER_DIED) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, task in pending.items():  # After a failure, what is complete stays for --resume.
                if not future.cancelled() and future.exception() is None:
                    publish(task.path, future.result())


def _submit(pool: ProcessPoolExecutor, tasks: list[ShardTask]) -> dict[Future, ShardTask]:
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
    logging.basicConfig(level=log_level, format="%(message)s")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker with its parent, however that dies: otherwise it would wait for work forever, and write next to
    a conversion that was started again."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _convert_shard_in_worker(task: ShardTask) -> Path:
    """Return the file to publish: the parent waits for the disk, while this worker continues converting."""
    for frames, episodes in task.work():
        with _done.get_lock():
            _done[0] += frames
            _done[1] += episodes
    return temporary_path(task.path)


def _convert_stream(conversion: Conversion) -> int:
    """Convert a source of unknown length into one shard after another; return their number."""
    shard = next(number for number in count() if not conversion.is_done(number))
    size = conversion.options.episodes_per_shard
    episodes = conversion.source.read(range(shard * size, sys.maxsize), conversion.step)
    with ConversionProgress(conversion.source, (), conversion.step) as progress:
        while (first := next(episodes, None)) is not None:
            for frames, done in write_episodes(conversion, shard, chain([first], islice(episodes, size - 1))):
                progress.add(frames, done)
            publish(conversion.shard_path(shard))
            shard += 1
    return shard


def write_episodes(conversion: Conversion, shard: int, episodes: Iterator[Episode]) -> Iterator[tuple[int, int]]:
    """Prepare one shard for `publish`; yield how many frames were stored and episodes finished since the last time."""
    options, width, state = conversion.options, conversion.source.action_dim, conversion.source.state
    layout = {"compression": options.compression, "conversion_id": json_checksum(conversion.arguments)}
    layout |= {"state_dim": 0 if state is None else state.dim, "camera_names": conversion.source.camera_names}
    layout["num_tasks"] = 0 if conversion.source.rewards is None else len(conversion.source.rewards.task_names)
    with prepare_shard(conversion.shard_path(shard), width, **layout) as writer:
        for position, episode in enumerate(episodes):
            try:
                for frames in _write_episode(writer, episode, conversion, explains=shard == position == 0):
                    yield frames, 0
            except DamagedEpisode:
                writer.drop_episode()
            yield 0, 1


def _write_episode(writer: ShardWriter, episode: Episode, conversion: Conversion, explains: bool) -> Iterator[int]:
    """Write one episode, if it is long enough; yield how many frames were stored since the last time.

    Args:
        explains: whether to log what is done to frames and actions.
    """
    writer.begin_episode(episode.number)
    options, length = conversion.options, 0
    transform = options.transform
    for length, frame in enumerate(episode.frames, start=1):
        views = frame if conversion.source.camera_names else [frame]
        for camera, view in enumerate(views):
            if explains and length == 1:
                _explain_stretching(view, conversion)
            out = writer.new_frame((*transform.output_size(*view.shape[:2]), 3), camera=camera)
            transform.write(view, out)
        if length % FRAMES_PER_REPORT == 0:
            yield FRAMES_PER_REPORT
    yield length % FRAMES_PER_REPORT
    if length < options.min_episode_length:  # Some sources only tell by reading.
        writer.drop_episode()
        return
    actions = episode.actions()
    if explains and actions is not None:
        _explain_actions(actions, conversion)
    states = options.prepare_states(episode.states(), conversion.step)
    rewards = options.prepare_rewards(episode.rewards(), conversion.step)
    writer.end_episode(options.prepare_actions(actions, conversion.step), states, rewards)


def _explain_stretching(frame: np.ndarray, conversion: Conversion) -> None:
    height, width = frame.shape[:2]
    transform = conversion.options.transform
    if transform.stretches(height, width):
        new_height, new_width = transform.output_size(height, width)
        logger.info(
            f"stretching frames of {width}x{height} to {new_width}x{new_height}; --pad_to_square keeps the ratio"
        )


def _explain_actions(actions: np.ndarray, conversion: Conversion) -> None:
    """Log what happens to the actions of frames that are left out."""
    options, step = conversion.options, conversion.step
    displaced = options.displacement_dims(actions.shape[1])
    if displaced and step > 1:
        logger.info(f"adding up the displacements of every {step} frames in action dimensions {displaced}")
    elif not displaced and not options.relative_actions and step > 1:
        found = np.flatnonzero(vary_around_zero(ActionStatistics.of(actions).to_dict())).tolist()
        if len(found) * 2 >= actions.shape[1] > 0:
            logger.warning(
                f"action dimensions {found} vary around zero, as displacements do, and only those of kept frames are "
                f"stored: if they are displacements, add up those of every {step} frames with "
                f"--displacement_action_dims {' '.join(map(str, found))}."
            )


def _tidy_up(output_dir: Path) -> None:
    """Delete what a finished conversion does not need any more."""
    (output_dir / PLAN_NAME).unlink(missing_ok=True)
    remove_leftovers(output_dir)


def _merge(conversion: Conversion, num_shards: int) -> None:
    """Check that every shard is there and write the index, then the metadata."""
    output_dir, source = conversion.output_dir, conversion.source
    missing = [shard_name(shard) for shard in range(num_shards) if not conversion.is_done(shard)]
    if missing:
        raise FileNotFoundError(f"{output_dir} lacks {', '.join(missing[:5])}: run their jobs again with --resume.")
    parts, frame_shape, state_dim = [], None, 0 if source.state is None else source.state.dim
    statistics = {"action": ActionStatistics.empty(source.action_dim), "state": ActionStatistics.empty(state_dim)}
    for shard in range(num_shards):
        path = conversion.shard_path(shard)
        parts.append(read_shard_index(path, shard))
        shape, found = _summary(path, ["action", "state"] if state_dim else ["action"])
        statistics |= {kind: statistics[kind].merge(new) for kind, new in found.items()}
        if shape and frame_shape not in (None, shape):
            raise ValueError(
                f"{path} holds frames of {shape}, earlier shards of {frame_shape}: give --width and --height to bring "
                "all frames to one size."
            )
        frame_shape = shape or frame_shape
    index = ShardIndex.join(parts)
    if not len(index.lengths):
        raise ValueError(
            "no episode is left: all are damaged or have fewer than "
            f"{conversion.options.min_episode_length} frames (--min_episode_length)."
        )
    index.write(output_dir)
    _metadata(conversion, parts, frame_shape, statistics).write(output_dir)
    _tidy_up(output_dir)
    warn_of_values("action", statistics["action"].to_dict(), source.action_names)
    if source.state is not None:
        warn_of_values("state", statistics["state"].to_dict(), source.state.names)
    planned = "" if source.numbers is None else f" of {len(source.numbers)}"
    logger.info(f"wrote {len(index.lengths)}{planned} episodes, {index.lengths.sum()} frames, to {output_dir}")


def _summary(path: Path, kinds: list[str]) -> tuple[tuple[int, ...] | None, dict[str, ActionStatistics]]:
    """Return the shape of a shard's frames, None without episodes, and the statistics of its actions and states."""
    with open_shard(path) as file:
        arrays = [name for name in file if name.startswith(IMAGES)]
        shapes = {stored_array(file, name, path).shape[2:] for name in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"the cameras have frames of different sizes ({' and '.join(map(str, sorted(shapes)))}): give --width "
                "and --height to bring them to one size."
            )
        shape = next(iter(shapes), None)
        try:
            return shape, {kind: read_shard_statistics(file, kind) for kind in kinds}
        except (KeyError, ValueError, *UNREADABLE) as error:
            raise damaged_shard(path, first_line(error)) from error


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

"""One conversion, and its unit of work: the shard.

The episodes of a shard follow from the plan alone. A shard that exists under its final name therefore needs no second
look after a kill, workers share only the folder, and the files of a shard are decoded once, in order.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .action_data import ActionStatistics, vary_around_zero
from .conversion_options import ConversionOptions
from .episodes import DamagedEpisode, Episode, EpisodeSource, format_ranges
from .files import json_checksum
from .output_folder import OutputFolder
from .shard_writer import ShardWriter, prepare_shard
from .shards import shard_name

logger = logging.getLogger(__name__)
FRAMES_PER_REPORT = 32


@dataclass(frozen=True)
class Conversion:
    """One source on its way into one folder."""

    source: EpisodeSource
    folder: OutputFolder
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

    @property
    def summary_kinds(self) -> list[str]:
        """What a shard has statistics of."""
        return ["action", "state"] if self.source.state is not None and self.source.state.dim else ["action"]

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
    def name(self) -> str:
        """The name of the shard's file."""
        return shard_name(self.shard)

    def work(self) -> Iterator[tuple[int, int]]:
        """Prepare the shard for `publish`; see `write_episodes`."""
        conversion = self.conversion
        return write_episodes(conversion, self.shard, conversion.source.read(self.numbers, conversion.step))

    def publish(self) -> None:
        """Let the prepared shard appear under its name."""
        self.conversion.folder.publish(self.name)


def write_episodes(conversion: Conversion, shard: int, episodes: Iterator[Episode]) -> Iterator[tuple[int, int]]:
    """Prepare one shard for `publish`; yield how many frames were stored and episodes finished since the last time."""
    options, width, state = conversion.options, conversion.source.action_dim, conversion.source.state
    layout = {"compression": options.compression, "conversion_id": json_checksum(conversion.arguments)}
    layout |= {"state_dim": 0 if state is None else state.dim, "camera_names": conversion.source.camera_names}
    layout["num_tasks"] = 0 if conversion.source.rewards is None else len(conversion.source.rewards.task_names)
    with prepare_shard(conversion.folder.place(shard_name(shard)), width, **layout) as writer:
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


__all__ = ["Conversion", "ShardTask", "write_episodes"]

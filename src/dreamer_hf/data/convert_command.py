"""Run a converter by its options: what `dreamer convert` does."""

import logging
from pathlib import Path

from .command_options import ConverterOptions
from .conversion_options import ConversionOptions, JobOptions, available_cores
from .convert import ShardWorkers, convert
from .frame_transform import FrameTransform
from .output_folder import output_folder
from .shards import METADATA_NAME
from .terminal_logs import log_to_terminal


def run_converter(options: ConverterOptions, workers: ShardWorkers | None = None) -> Path | str:
    """Convert a source, upload the shards if asked to, and return where they are.

    Args:
        options: of the command.
        workers: what converts the shards. Defaults to processes of this machine.

    Raises:
        OSError, ValueError: as `convert` and the source.
    """
    # tensorflow-datasets brings its own handlers.
    log_to_terminal(logging.INFO, force=True)
    folder, (conversion, job) = output_folder(options.output_dir), split_options(options)
    if options.push_to_hub and folder.is_remote:
        raise ValueError(
            "--push_to_hub uploads a folder of this machine: give one as --output_dir, or leave out --push_to_hub and "
            "give hf://datasets/ORG/NAME as --output_dir."
        )
    if not (options.push_to_hub and options.resume and Path(options.output_dir, METADATA_NAME).exists()):
        convert(options.open_source(), options.output_dir, conversion, job, workers)
    if options.push_to_hub:
        from .dataset_card import push_shards

        logging.info(f"pushed to {push_shards(options.output_dir, options.push_to_hub, options.private)}")
    return options.output_dir


def split_options(options: ConverterOptions) -> tuple[ConversionOptions, JobOptions]:
    """Return what is made of the episodes, and how the work is done.

    Raises:
        ValueError: a value is out of range.
    """
    conversion = ConversionOptions(
        episodes_per_shard=options.episodes_per_shard,
        target_fps=options.target_fps,
        transform=FrameTransform(options.width, options.height, options.pad_to_square),
        min_episode_length=options.min_episode_length,
        relative_actions=options.relative_actions,
        absolute_action_dims=tuple(options.absolute_action_dims),
        displacement_action_dims=_parse_dims(options.displacement_action_dims),
        compression=options.compression,
    )
    num_workers = available_cores() if options.num_workers is None else options.num_workers
    return conversion, JobOptions(num_workers, options.resume)


def _parse_dims(values: tuple[str, ...]) -> tuple[int, ...] | str:
    if tuple(values) == ("all",):
        return "all"
    try:
        return tuple(map(int, values))
    except ValueError as error:
        raise ValueError(
            f"expected dimensions like 0 1 2, or all, for --displacement_action_dims, got {' '.join(values)}."
        ) from error

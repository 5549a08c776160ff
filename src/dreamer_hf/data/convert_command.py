"""Run a converter by its options: what `dreamer convert` does."""

import logging
from pathlib import Path

from .command_options import ConverterOptions
from .conversion_options import ConversionOptions, JobOptions, available_cores
from .convert import convert
from .frame_transform import FrameTransform
from .shards import METADATA_NAME


def run_converter(options: ConverterOptions) -> Path:
    """Convert a source, upload the shards if asked to, and return their folder.

    Raises:
        OSError, ValueError: as `convert` and the source.
    """
    # tensorflow-datasets brings its own handlers.
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    output_dir, (conversion, job) = Path(options.output_dir), split_options(options)
    if not (options.push_to_hub and options.resume and (output_dir / METADATA_NAME).exists()):
        convert(options.open_source(), output_dir, conversion, job)
    if options.push_to_hub and (options.num_jobs == 1 or options.merge):
        from .dataset_card import push_shards

        logging.info(f"pushed to {push_shards(output_dir, options.push_to_hub, options.private)}")
    return output_dir


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
    return conversion, JobOptions(num_workers, options.resume, options.num_jobs, options.job_index, options.merge)


def _parse_dims(values: tuple[str, ...]) -> tuple[int, ...] | str:
    if tuple(values) == ("all",):
        return "all"
    try:
        return tuple(map(int, values))
    except ValueError as error:
        raise ValueError(
            f"expected dimensions like 0 1 2, or all, for --displacement_action_dims, got {' '.join(values)}."
        ) from error

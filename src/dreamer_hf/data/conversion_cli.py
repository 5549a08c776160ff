"""The command lines of the converters: flags that all of them share, and those of each kind of source."""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .conversion_options import ConversionOptions, JobOptions, available_cores
from .convert import convert
from .episodes import EpisodeSource
from .frame_transform import FrameTransform
from .shard_writer import FILTERS
from .shards import METADATA_NAME


def run_converter(kind: str, description: str, argv: list[str] | None = None) -> None:
    """Convert as a command line says, and print the folder of shards.

    Args:
        kind: a key of `KINDS`.
        description: shown by `--help`.
        argv: arguments; default: those of the process.

    Raises:
        OSError, ValueError: as `convert` and the source.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    KINDS[kind].add_flags(parser.add_argument_group("what is read"))
    add_conversion_flags(parser)
    args = parser.parse_args(argv)
    # tensorflow-datasets brings its own handlers.
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    options, job = options_of(args)
    if not (args.push_to_hub and args.resume and (args.output_dir / METADATA_NAME).exists()):
        convert(KINDS[kind].open_source(args), args.output_dir, options, job)
    if args.push_to_hub and (args.num_jobs == 1 or args.merge):
        from .hub import push_shards

        logging.info(f"pushed to {push_shards(args.output_dir, args.push_to_hub, args.private)}")
    print(args.output_dir)


def add_conversion_flags(parser: argparse.ArgumentParser) -> None:
    """Add every flag that does not depend on the source."""
    parser.add_argument("--output_dir", type=Path, required=True, help="Write the shards to this new or empty folder.")
    result = parser.add_argument_group("what is stored")
    add = result.add_argument
    add(
        "--episodes_per_shard", type=int, default=100, help="Store this many episodes per shard (default %(default)s)."
    )
    add("--target_fps", type=float, help="Keep every n-th frame to reach this rate (default: keep all).")
    add("--width", type=int, help="Resize frames to this width (default: that of the source).")
    add("--height", type=int, help="Resize frames to this height (default: that of the source).")
    add(
        "--pad_to_square",
        action="store_true",
        help="Keep the aspect ratio and pad with black to a square, instead of stretching.",
    )
    add(
        "--min_episode_length",
        type=int,
        default=1,
        help="Drop episodes of which fewer frames are kept (default %(default)s).",
    )
    add(
        "--relative_actions",
        action="store_true",
        help="Store each action minus the one of the kept frame before, 0 for the first.",
    )
    add(
        "--absolute_action_dims",
        type=int,
        nargs="+",
        default=[],
        help="Leave these dimensions as recorded with --relative_actions (a gripper, say).",
    )
    add(
        "--displacement_action_dims",
        nargs="+",
        default=[],
        help="Treat these dimensions (or `all`) as displacements: with --target_fps, add up those between kept frames.",
    )
    add(
        "--compression",
        choices=list(FILTERS),
        default="zstd",
        help="Compress frames with this codec; gzip is for readers without hdf5plugin (default %(default)s).",
    )
    add = parser.add_argument_group("how the work is done").add_argument
    add("--num_workers", type=int, default=available_cores(), help="Use this many processes (default: one per core).")
    add("--resume", action="store_true", help="Continue an interrupted conversion.")
    add("--num_jobs", type=int, default=1, help="Split the shards among this many cluster jobs (default %(default)s).")
    add("--job_index", type=int, default=0, help="Do the work of this job, counted from 0 (default %(default)s).")
    add("--merge", action="store_true", help="Check the shards of all jobs and write the metadata.")
    add = parser.add_argument_group("sharing").add_argument
    add("--push_to_hub", metavar="REPO", help="Upload the finished folder as this dataset repository.")
    add("--private", action="store_true", help="Make the repository private.")


def options_of(args: argparse.Namespace) -> tuple[ConversionOptions, JobOptions]:
    """Return what the flags of `add_conversion_flags` say.

    Raises:
        ValueError: a value is out of range.
    """
    options = ConversionOptions(
        episodes_per_shard=args.episodes_per_shard,
        target_fps=args.target_fps,
        transform=FrameTransform(args.width, args.height, args.pad_to_square),
        min_episode_length=args.min_episode_length,
        relative_actions=args.relative_actions,
        absolute_action_dims=tuple(args.absolute_action_dims),
        displacement_action_dims=_parse_dims(args.displacement_action_dims),
        compression=args.compression,
    )
    return options, JobOptions(args.num_workers, args.resume, args.num_jobs, args.job_index, args.merge)


def _parse_dims(words: list[str]) -> tuple[int, ...] | str:
    if words == ["all"]:
        return "all"
    try:
        return tuple(map(int, words))
    except ValueError as error:
        raise ValueError(
            f"expected dimensions like 0 1 2, or all, for --displacement_action_dims, got {' '.join(words)}."
        ) from error


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: its flags, and what opens it by them. Its library is imported only when it is opened."""

    add_flags: Callable[[argparse._ArgumentGroup], None]
    open_source: Callable[[argparse.Namespace], EpisodeSource]


def _add_lerobot_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--repo_id", required=True, help="Read the dataset of this name, such as lerobot/pusht, or in this folder.")
    add("--local_dir", type=Path, help="Read it from this folder (default: lerobot's recordings, then the Hub).")
    add("--revision", help="Read this branch, tag or commit on the Hub (default: lerobot's tag v3.0, else main).")
    add("--image_key", help="Use this camera, or several side by side: a,b (default: the only one).")
    add(
        "--action_key", default="action", help="Take actions from this feature, or join several: a,b (default action)."
    )
    add("--episodes", help="Convert only these episodes, like 0:100 or 3,8,10:20 (default: all).")


def _open_lerobot(args: argparse.Namespace) -> EpisodeSource:
    from .sources.lerobot_source import LeRobotSelection

    return LeRobotSelection(
        args.repo_id, args.local_dir, args.image_key, args.action_key, args.episodes, args.revision
    ).open()


def _add_rlds_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--rlds_dir", type=Path, required=True, help="Read the dataset whose dataset_info.json is in or below this.")
    add("--split", default="train", help="Read this split: success+failure, train[:10%%] (default %(default)s).")
    add("--image_key", help="Use these images of a step, like observation/image, or several side by side: a,b.")
    add(
        "--action_key", default="action", help="Take actions from this feature, or join several: a,b (default action)."
    )
    add("--fps", type=float, help="Take this rate as that of the dataset, which does not say it.")
    add("--episodes", help="Convert only these episodes of the split, like 0:100 (default: all).")
    add("--skip_corrupt", action="store_true", help="Leave out damaged records and log their number.")


def _open_rlds(args: argparse.Namespace) -> EpisodeSource:
    from .sources.rlds_source import RldsSource

    return RldsSource(
        args.rlds_dir, args.split, args.image_key, args.action_key, args.fps, args.episodes, args.skip_corrupt
    )


def _add_table_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataset", required=True, help="Read the dataset of this name on the Hub, or in this folder.")
    add("--config", help="Read this configuration of the dataset (default: the only one).")
    add("--split", default="train", help="Read this split (default %(default)s).")
    add("--streaming", action="store_true", help="Read while downloading, in one process.")
    add("--image_column", required=True, help="Take images, or videos, from this column (within a struct: a/b).")
    add("--action_column", help="Take actions from this column, or join several: a,b (default: no actions).")
    add("--episode_column", help="Tell episodes apart by this column; videos do not need it.")
    add("--fps", type=float, help="Take this rate as that of the dataset; sample uneven videos at it.")
    add("--episodes", help="Convert only these episodes, like 0:100 (default: all).")


def _open_table(args: argparse.Namespace) -> EpisodeSource:
    from .sources.table_source import TableColumns, TableSource, load_table

    table = load_table(args.dataset, args.split, args.config, args.streaming)
    columns = TableColumns(args.image_column, args.action_column, args.episode_column)
    origin = {"dataset": args.dataset, "config": args.config, "split": args.split}
    return TableSource(table, columns, args.fps, origin, args.episodes)


def _add_video_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--video_dir", type=Path, required=True, help="Read the videos in this folder and its subfolders.")
    add(
        "--fps",
        type=float,
        help="Take this rate as that of the files, and sample uneven ones at it (default: theirs).",
    )
    add("--episodes", help="Convert only these files, in the order of their names, like 0:100 (default: all).")


def _open_videos(args: argparse.Namespace) -> EpisodeSource:
    from .sources.video_source import VideoSource

    return VideoSource(args.video_dir, args.fps, args.episodes)


KINDS = {
    "lerobot": SourceKind(_add_lerobot_flags, _open_lerobot),
    "rlds": SourceKind(_add_rlds_flags, _open_rlds),
    "table": SourceKind(_add_table_flags, _open_table),
    "video": SourceKind(_add_video_flags, _open_videos),
}

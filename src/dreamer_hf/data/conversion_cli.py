"""The command-line flags that all converters share."""

import argparse
import logging
import os
from pathlib import Path

from .conversion_options import ConversionOptions, JobOptions
from .convert import convert
from .episodes import EpisodeSource
from .frame_transform import FrameTransform
from .shard_writer import CHUNK_LENGTH, CODECS
from .shards import METADATA_NAME


def converter_parser(description: str) -> argparse.ArgumentParser:
    """A parser with every flag that does not depend on the source."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the shards; new or empty")
    result = parser.add_argument_group("what is stored")
    result.add_argument("--episodes_per_shard", type=int, default=100, help="default %(default)s")
    result.add_argument("--target_fps", type=float, help="keep every n-th frame to reach this rate (default: all)")
    result.add_argument("--width", type=int, help="width of the stored frames (default: the source's)")
    result.add_argument("--height", type=int, help="height of the stored frames (default: the source's)")
    result.add_argument(
        "--pad_to_square",
        "--rectangular",
        action="store_true",
        help="keep the aspect ratio and fill up with black to a square; without it frames are stretched",
    )
    result.add_argument(
        "--min_episode_length", type=int, default=1, help="drop episodes that keep fewer frames (default %(default)s)"
    )
    result.add_argument(
        "--relative_actions", action="store_true", help="store each action minus the one of the kept frame before"
    )
    result.add_argument(
        "--absolute_action_dims", type=int, nargs="+", default=[], help="dimensions to leave absolute (a gripper, say)"
    )
    result.add_argument(
        "--compression",
        choices=list(CODECS),
        default="zstd",
        help="codec of the frames; gzip for readers without hdf5plugin (default %(default)s)",
    )
    result.add_argument("--chunk_length", type=int, default=CHUNK_LENGTH, help="frames a chunk (default %(default)s)")
    work = parser.add_argument_group("how the work is done")
    work.add_argument("--num_workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    work.add_argument("--resume", action="store_true", help="go on where an interrupted conversion stopped")
    work.add_argument("--num_jobs", type=int, default=1, help="split the shards among this many cluster jobs")
    work.add_argument("--job_index", type=int, default=0, help="which of the jobs this is, from 0")
    work.add_argument("--merge", action="store_true", help="after all jobs: check the shards and write the metadata")
    share = parser.add_argument_group("sharing")
    share.add_argument("--push_to_hub", metavar="REPO", help="upload the finished folder as this dataset repository")
    share.add_argument("--private", action="store_true", help="make the repository private")
    return parser


def run_conversion(source: EpisodeSource, args: argparse.Namespace) -> Path:
    """Converts `source` as the parsed flags say."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)  # tensorflow-datasets brings its own
    options = ConversionOptions(
        episodes_per_shard=args.episodes_per_shard,
        target_fps=args.target_fps,
        transform=FrameTransform(args.width, args.height, args.pad_to_square),
        min_episode_length=args.min_episode_length,
        relative_actions=args.relative_actions,
        absolute_action_dims=tuple(args.absolute_action_dims),
        compression=args.compression,
        chunk_length=args.chunk_length,
    )
    job = JobOptions(args.num_workers, args.resume, args.num_jobs, args.job_index, args.merge)
    if not (args.push_to_hub and args.resume and (args.output_dir / METADATA_NAME).exists()):
        convert(source, args.output_dir, options, job)
    if args.push_to_hub and (args.num_jobs == 1 or args.merge):
        from .hub import push_shards

        logging.info(f"pushed to {push_shards(args.output_dir, args.push_to_hub, args.private)}")
    return args.output_dir

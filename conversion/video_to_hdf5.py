"""Converts a folder of videos, with or without actions beside them, into a folder of HDF5 shards.

`clip.npy` (frames, action_dim) or `clip.csv` beside `clip.mp4` holds its actions.

python conversion/video_to_hdf5.py --video_dir clips --output_dir data/clips --target_fps 10 --width 128 --pad_to_square
"""

from pathlib import Path

from dreamer_hf.cli import run_script
from dreamer_hf.data.conversion_cli import converter_parser, run_conversion
from dreamer_hf.data.sources.video_source import VideoSource


def main() -> None:
    parser = converter_parser(__doc__)
    source = parser.add_argument_group("what is read")
    source.add_argument("--video_dir", type=Path, required=True, help="folder of videos; subfolders are included")
    source.add_argument("--fps", type=float, help="frames a second (default: as the files say)")
    source.add_argument("--episodes", help="which files in the order of their names, like 0:100 (default: all)")
    args = parser.parse_args()
    print(run_conversion(VideoSource(args.video_dir, args.fps, args.episodes), args))


if __name__ == "__main__":
    run_script(main)

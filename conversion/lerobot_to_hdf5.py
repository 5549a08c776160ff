"""Converts a LeRobotDataset (format v3.0, videos or images) into a folder of HDF5 shards.

python conversion/lerobot_to_hdf5.py --repo_id lerobot/pusht --output_dir data/pusht --target_fps 5 --width 256 --height 256
"""

from pathlib import Path

from dreamer_hf.cli import run_script
from dreamer_hf.data.conversion_cli import converter_parser, run_conversion
from dreamer_hf.data.sources.lerobot_source import open_lerobot


def main() -> None:
    parser = converter_parser(__doc__)
    source = parser.add_argument_group("what is read")
    source.add_argument("--repo_id", required=True, help="the dataset's name, such as lerobot/pusht")
    source.add_argument(
        "--local_dir", type=Path, help="its folder (default: lerobot's folder of recordings, then the Hub)"
    )
    source.add_argument("--revision", help="branch, tag or commit on the Hub (default: lerobot's tag v3.0, else main)")
    source.add_argument("--image_key", help="camera, or several shown side by side: a,b (default: the only one)")
    source.add_argument("--action_key", default="action", help="feature that holds the actions (default %(default)s)")
    source.add_argument("--episodes", help="which ones, like 0:100 or 3,8,10:20 (default: all)")
    args = parser.parse_args()
    dataset = open_lerobot(args.repo_id, args.local_dir, args.image_key, args.action_key, args.episodes, args.revision)
    print(run_conversion(dataset, args))


if __name__ == "__main__":
    run_script(main)

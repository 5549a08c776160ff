"""Converts any dataset of the `datasets` library into a folder of HDF5 shards.

A row is a frame (image column; rows of an episode stand together) or an episode (video column).

python conversion/hf_dataset_to_hdf5.py --dataset me/frames --image_column image --action_column action \\
    --episode_column episode --output_dir data/frames
"""

from dreamer_hf.cli import run_script
from dreamer_hf.data.conversion_cli import converter_parser, run_conversion
from dreamer_hf.data.sources.table_source import TableSource, load_table


def main() -> None:
    parser = converter_parser(__doc__)
    source = parser.add_argument_group("what is read")
    source.add_argument("--dataset", required=True, help="name on the Hub, or a folder (of files, or saved to disk)")
    source.add_argument("--config", help="configuration of the dataset, if it has several")
    source.add_argument("--split", default="train", help="default %(default)s")
    source.add_argument("--streaming", action="store_true", help="read while downloading, in one process")
    source.add_argument("--image_column", required=True, help="column of images or videos")
    source.add_argument("--action_column", help="column of actions (default: none, unlabelled)")
    source.add_argument("--episode_column", help="column that tells episodes apart; not needed for videos")
    source.add_argument("--fps", type=float, help="frames a second")
    source.add_argument("--episodes", help="which ones, like 0:100 (default: all)")
    args = parser.parse_args()
    table = load_table(args.dataset, args.split, args.config, args.streaming)
    origin = {"dataset": args.dataset, "config": args.config, "split": args.split}
    columns = (args.image_column, args.action_column, args.episode_column)
    print(run_conversion(TableSource(table, *columns, args.fps, origin, args.episodes), args))


if __name__ == "__main__":
    run_script(main)

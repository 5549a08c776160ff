"""Converts an RLDS dataset (tfrecord or array_record) into a folder of HDF5 shards, without TensorFlow.

python conversion/rlds_to_hdf5.py --rlds_dir soar/1.0.0 --split success+failure --image_key observation/image_0 \\
    --fps 5 --output_dir data/soar
"""

from pathlib import Path

from dreamer_hf.cli import run_script
from dreamer_hf.data.conversion_cli import converter_parser, run_conversion
from dreamer_hf.data.sources.rlds_source import RldsSource


def main() -> None:
    parser = converter_parser(__doc__)
    source = parser.add_argument_group("what is read")
    source.add_argument(
        "--rlds_dir", type=Path, required=True, help="folder that holds (or leads to) dataset_info.json"
    )
    source.add_argument(
        "--split", default="train", help="such as success+failure or train[:10%%] (default %(default)s)"
    )
    source.add_argument("--image_key", help="pictures in a step, like observation/image; several side by side: a,b")
    source.add_argument("--action_key", default="action", help="actions in a step (default %(default)s)")
    source.add_argument("--fps", type=float, help="frames a second: RLDS does not say")
    source.add_argument("--episodes", help="which ones of the split, like 0:100 (default: all)")
    source.add_argument("--skip_corrupt", action="store_true", help="leave out damaged records and count them")
    args = parser.parse_args()
    dataset = RldsSource(
        args.rlds_dir, args.split, args.image_key, args.action_key, args.fps, args.episodes, args.skip_corrupt
    )
    print(run_conversion(dataset, args))


if __name__ == "__main__":
    run_script(main)

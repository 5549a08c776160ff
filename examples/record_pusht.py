"""Records play in the gym-pusht simulator as a LeRobotDataset.

python examples/record_pusht.py --repo_id me/pusht-play --root data/pusht-play --episodes 160
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.pusht.player import record_pusht


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo_id", required=True, help="name of the dataset, such as me/pusht-play")
    parser.add_argument("--root", required=True, help="folder to write; it must not exist yet")
    parser.add_argument("--episodes", type=int, default=160, help="number of episodes (default %(default)s)")
    parser.add_argument("--frames_per_episode", type=int, default=80, help="at 10 a second (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed records the same play (default %(default)s)"
    )
    parser.add_argument("--image_size", type=int, default=128, help="side of the frames, pixels (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    print(f"recorded {record_pusht(**vars(parse_args()))}")


if __name__ == "__main__":
    run_script(main)

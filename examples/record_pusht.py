"""Record play in the gym-pusht simulator as a LeRobotDataset.

python examples/record_pusht.py --repo_id me/pusht-play --root data/pusht-play --episodes 160
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.options import add_arguments
from dreamer_hf.pusht.pusht_options import RecordOptions
from dreamer_hf.pusht.record import record_pusht


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, RecordOptions)
    print(f"recorded {record_pusht(**vars(parser.parse_args()))}")


if __name__ == "__main__":
    run_script(main)

"""Plan in a dream of PushT: move the agent, or the block, to a target that is measured on the dream's frames only.

    python examples/plan_cem.py --model pusht-tiny --move agent --to 400 120
    python examples/plan_cem.py --model pusht-tiny --move block --to 256 256 --real --record plan.mp4

With --real, the chosen actions are executed in the gym-pusht simulator; see docs/planning.md.
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.options import add_arguments
from dreamer_hf.pusht.pusht_options import ReachOptions
from dreamer_hf.pusht.reach import reach


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, ReachOptions)
    print(reach(ReachOptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    run_script(main)

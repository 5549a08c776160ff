"""Plan in a dream of PushT: move the agent, or the block, to a target that is measured on the dream's frames only.

    python examples/plan_cem.py --model pusht-tiny --move agent --to 400 120
    python examples/plan_cem.py --model pusht-tiny --move block --to 256 256 --real --record plan.mp4

With --real, the chosen actions are executed in the gym-pusht simulator; see docs/planning.md.
"""

from dreamer_hf.cli import run_with_options
from dreamer_hf.pusht.pusht_options import ReachOptions
from dreamer_hf.pusht.reach import reach

if __name__ == "__main__":
    run_with_options(ReachOptions, reach, __doc__)

"""Improve an agent in the dreams of its world.

    python examples/train_in_dreams.py --preset pusht-tiny --data_dir data/pusht --pretrained outputs/agent \
        --output_dir outputs/agent-after-dreams
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.runs import main

if __name__ == "__main__":
    run_script(lambda: main("dreams"))

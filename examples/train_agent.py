"""Give a world an agent, which learns to act and to predict rewards from labeled episodes.

    dreamer label --data_dir data/pusht --reward pusht:reach:128,128 pusht:reach:384,384
    python examples/train_agent.py --preset pusht-tiny --data_dir data/pusht --pretrained pusht-tiny \
        --output_dir outputs/agent
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.runs import main

if __name__ == "__main__":
    run_script(lambda: main("agent"))

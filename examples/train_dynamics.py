"""Train a dynamics model on the latents of a tokenizer and save a `DreamerWorldModel` folder that joins the two.

    python examples/train_dynamics.py --preset pusht-tiny --data_dir data/pusht --tokenizer outputs/tokenizer \
        --output_dir outputs/world
    accelerate launch examples/train_dynamics.py --config my_dynamics.yaml
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.runs import main

if __name__ == "__main__":
    run_script(lambda: main("dynamics"))

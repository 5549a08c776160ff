"""Trains a dynamics model on the latents of a tokenizer and leaves a `DreamerWorldModel` folder that joins the two.

    python examples/train_dynamics.py --preset pusht-tiny --data_dir data/pusht --tokenizer outputs/tokenizer \
        --output_dir outputs/world
    accelerate launch examples/train_dynamics.py --config my_dynamics.yaml
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.arguments import PRESETS, DynamicsArguments, parse_arguments
from dreamer_hf.training.dynamics_objective import DynamicsObjective
from dreamer_hf.training.runs import run_training


def main() -> None:
    arguments = parse_arguments(DynamicsArguments, "dynamics", PRESETS, __doc__)
    run_training(arguments, DynamicsObjective)


if __name__ == "__main__":
    run_script(main)

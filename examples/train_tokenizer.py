"""Trains a tokenizer on a folder of HDF5 shards and leaves a `DreamerTokenizerModel` folder.

python examples/train_tokenizer.py --preset pusht-tiny --data_dir data/pusht --output_dir outputs/tokenizer
accelerate launch examples/train_tokenizer.py --config my_tokenizer.yaml
"""

from dreamer_hf.cli import run_script
from dreamer_hf.training.arguments import PRESETS, TokenizerArguments, parse_arguments
from dreamer_hf.training.runs import run_training
from dreamer_hf.training.tokenizer_objective import TokenizerObjective


def main() -> None:
    arguments = parse_arguments(TokenizerArguments, "tokenizer", PRESETS, __doc__)
    run_training(arguments, TokenizerObjective)


if __name__ == "__main__":
    run_script(main)

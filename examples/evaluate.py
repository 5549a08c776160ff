"""Measure a world on held-out episodes of a shard folder, against baselines and an upper bound.

    python examples/evaluate.py --model outputs/world --data_dir data/pusht --output_dir outputs/evaluation

Writes evaluation.json, evaluation.md (the main figures as a table), plots and videos; see docs/evaluation.md.
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.evaluation.evaluate import evaluate
from dreamer_hf.evaluation.evaluation_options import EvaluationOptions
from dreamer_hf.options import add_arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, EvaluationOptions)
    print(evaluate(EvaluationOptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    run_script(main)

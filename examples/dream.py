"""Make videos of dreams of held-out episodes, under their own actions and next to the real frames.

    python examples/dream.py --model outputs/world --data_dir data/pusht --output_dir outputs/dream

Writes dream.mp4 and dream.gif. To measure how good the dreams are, use examples/evaluate.py.
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.evaluation.evaluate import save_dreams
from dreamer_hf.evaluation.evaluation_options import DreamVideoOptions
from dreamer_hf.options import add_arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, DreamVideoOptions)
    print(save_dreams(DreamVideoOptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    run_script(main)

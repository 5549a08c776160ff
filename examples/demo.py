"""Steer the world that ships with the package: four dreams from the same start, as `make demo` runs it.

    python examples/demo.py

Writes dream.mp4 and dream.gif to outputs/demo. Takes seconds on a CPU; nothing is downloaded.
"""

import argparse

from dreamer_hf.cli import run_script
from dreamer_hf.demo import DemoOptions, run_demo
from dreamer_hf.options import add_arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, DemoOptions)
    print(run_demo(DemoOptions(**vars(parser.parse_args()))))


if __name__ == "__main__":
    run_script(main)

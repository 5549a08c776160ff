"""Serve a world to browsers and policies. See docs/serve.md."""

import argparse

from ..cli import run_script
from ..options import add_arguments
from . import ServeOptions, serve


def main() -> None:
    """Read the flags, and serve."""
    parser = argparse.ArgumentParser(prog="python -m dreamer_hf.serve", description=__doc__)
    add_arguments(parser, ServeOptions)
    serve(ServeOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    run_script(main)

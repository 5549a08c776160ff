"""Play a world: steer the dream with a joystick, the keyboard, the mouse or a script. See docs/play.md."""

import argparse
import signal

from dreamer_hf.cli import run_script
from dreamer_hf.options import add_arguments
from dreamer_hf.play import PlayOptions, play


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a shutdown also finishes the recording
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, PlayOptions)
    play(PlayOptions(**vars(parser.parse_args())))


if __name__ == "__main__":
    run_script(main)

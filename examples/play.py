"""Plays a world: steer the dream with a joystick, the keyboard, the mouse or a script. See docs/play.md."""

import argparse
import signal

from dreamer_hf.cli import run_script
from dreamer_hf.play.launch import play
from dreamer_hf.play.options import ACTION_FORMS, CONTROLS, INPUTS, PlayOptions, add_world_arguments


def parse_args() -> PlayOptions:
    parser = argparse.ArgumentParser(description=__doc__)
    add_world_arguments(parser)
    compare = parser.add_argument_group("comparison")
    compare.add_argument(
        "--compare",
        action="store_true",
        help="show the real gym-pusht simulator beside the dream, from the same state under the same actions",
    )
    compare.add_argument(
        "--actions",
        choices=ACTION_FORMS,
        default="auto",
        help="whether the world's actions are targets (absolute) or their differences (relative); default: what they look like",
    )
    hand = parser.add_argument_group("hand")
    hand.add_argument("--input", choices=INPUTS, help="default: a joystick if plugged in, else the keyboard")
    hand.add_argument("--script", help=".npy or .csv of raw actions, a row per frame, or the pattern circle or sweep")
    hand.add_argument(
        "--control",
        choices=CONTROLS,
        default="auto",
        help="direct: the stick is the action; target: the stick moves the action; auto (default): what suits the world",
    )
    hand.add_argument(
        "--invert", type=int, nargs="+", default=(), metavar="DIM", help="action dimensions to turn around"
    )
    record = parser.add_argument_group("recording")
    record.add_argument("--record", metavar="FILE.mp4", help="record the dream as a video")
    record.add_argument("--record_dataset", metavar="FOLDER", help="record the dream as a LeRobotDataset")
    run = parser.add_argument_group("run")
    run.add_argument(
        "--headless",
        action="store_true",
        help="no window; prints the frame rate; scripted unless --input says otherwise",
    )
    run.add_argument(
        "--compile",
        action="store_true",
        help="compile the dream's passes first: minutes, for at least twice the frame rate",
    )
    run.add_argument("--steps", type=int, help="frames to dream, then end; default: until the player quits")
    run.add_argument(
        "--seed", type=int, default=0, help="of the noise, and of the simulator with --compare; default: 0"
    )
    run.add_argument("--scale", type=int, help="screen pixels for each dreamt pixel; default: about 576 in all")
    return PlayOptions(**vars(parser.parse_args()))


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a recording is finished then, too
    play(parse_args())


if __name__ == "__main__":
    run_script(main)

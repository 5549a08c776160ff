"""The command line: `dreamer`, and what the scripts in examples/ and conversion/ share with it."""

import sys
from collections.abc import Callable, Sequence

from .process import run_script

__all__ = ["main", "run_script", "run_with_options"]


def main(*command: str, arguments: Sequence[str] | None = None) -> None:
    """Run `dreamer`; end the process if it fails.

    Args:
        command: a subcommand, such as `"train", "tokenizer"`, for scripts that run only this one.
        arguments: arguments; those of the process by default.
    """

    def run() -> None:
        from .application import dreamer, invoke

        invoke(dreamer, [*command, *(sys.argv[1:] if arguments is None else arguments)], "dreamer")

    run_script(run)


def run_with_options(options: type, run: Callable, description: str) -> None:
    """Run a function with an options class that is filled from the arguments of this process, and end the process.

    Args:
        options: an options class (see `dreamer_hf.options`).
        run: function of an instance of it. What it returns, if anything, is printed.
        description: text for `--help`.
    """

    def start() -> None:
        from .application import invoke
        from .flags import OptionsCommand

        invoke(OptionsCommand(sys.argv[0], options, run, description), sys.argv[1:], sys.argv[0])

    run_script(start)

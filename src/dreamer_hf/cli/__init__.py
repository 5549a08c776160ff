"""The command line: `dreamer`, and what the scripts in examples/ and conversion/ share with it."""

from .process import run_script

__all__ = ["main", "run_script"]


def main(*command: str) -> None:
    """Run `dreamer` with the arguments of this process, and end the process.

    Args:
        command: a subcommand, such as `"train", "tokenizer"`, for scripts that run only this one.
    """
    from .application import run

    run_script(lambda: run(command))

"""`dreamer train world`: a tokenizer, then a dynamics model on its latents, in one command."""

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.state import AcceleratorState

from .argument_parsing import ARGUMENTS_FILE, AUTO, parse_arguments
from .arguments import DynamicsArguments, TokenizerArguments, TrainingArguments
from .auto_facts import DEFAULT_MINUTES, SHARES
from .checkpoints import is_finished
from .runs import KINDS, run_training

FOLDERS = {"tokenizer": "tokenizer", "dynamics": "world"}
"""Where the two runs write, in the output folder."""
DESCRIPTION = (
    "Train a tokenizer and then a dynamics model on its latents, in the minutes that are given for both. All other "
    "options are those of `dreamer train tokenizer` and `dreamer train dynamics`; one that both have goes to both. "
    "--tokenizer.NAME and --dynamics.NAME set an option of one of them. The tokenizer is written to "
    "OUTPUT_DIR/tokenizer, the world to OUTPUT_DIR/world."
)
OPTIONS = {
    "tokenizer": {option.name for option in TokenizerArguments.options()},
    "dynamics": {option.name for option in DynamicsArguments.options()},
}
OWN_FLAG = re.compile(r"--(?:(tokenizer|dynamics)\.)?([\w-]+)(=.*)?", re.DOTALL)


class Given(NamedTuple):
    """One option on the command line: for which of the two models, its name, and its words for that command."""

    kinds: tuple[str, ...]
    name: str
    words: list[str]


class _Parser(argparse.ArgumentParser):
    """Raises `ValueError` where argparse prints the usage and exits."""

    def error(self, message: str):
        raise ValueError(f"{message}; --help lists the options.")


def main(argv: list[str], prog: str | None = None) -> None:
    """Train both models as the command line says.

    The options of both are checked before the first one is trained. With `--resume_from_checkpoint latest`, a finished
    tokenizer stays.

    Raises:
        ValueError, OSError: options that cannot be used; see also `run_training`.
    """
    options, words = _parser(prog).parse_known_args(argv)
    parts = world_arguments(options, list(read_options(words)), prog)
    tokenizer = Path(parts["tokenizer"].run.output_dir)
    if parts["dynamics"].run.resume_from_checkpoint and is_finished(tokenizer):
        print(f"{tokenizer} is finished and stays as it was.")
        del parts["tokenizer"]
    threads = torch.get_num_threads()
    for kind, arguments in parts.items():
        torch.set_num_threads(threads)  # What suited the tokenizer need not suit the dynamics model.
        AcceleratorState._reset_state()  # Nor need its precision.
        run_training(arguments, KINDS[kind][1])


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, usage="%(prog)s [options]", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--output_dir", required=True, help="folder for both models; it must be new")
    parser.add_argument("--minutes", type=float, help=f"for both together (default: {DEFAULT_MINUTES:g})")
    parser.add_argument("--preset", help="name of a preset (default: auto)")
    return parser


def read_options(words: list[str]) -> Iterator[Given]:
    """Yield the options among words of a command line, each with its values.

    Raises:
        ValueError: an option that neither model has, or that this command sets itself.
    """
    starts = [place for place, word in enumerate(words) if word.startswith("--")]
    if words and starts[:1] != [0]:
        raise ValueError(f"expected an option, got {words[0]!r}; --help lists the options.")
    for start, end in zip(starts, [*starts[1:], len(words)]):
        match = OWN_FLAG.fullmatch(words[start])
        target, name, value = match.groups() if match else (None, words[start], None)
        name = name.replace("-", "_")
        kinds = tuple(kind for kind in OPTIONS if target in (None, kind) and name in OPTIONS[kind])
        if not kinds:
            place = f"`dreamer train {target}` has" if target else "tokenizer and dynamics model have"
            raise ValueError(f"{place} no option {name!r}: `dreamer train dynamics --help` lists the options.")
        if name in ("tokenizer", "output_dir", "max_train_minutes", "pretrained"):
            raise ValueError(
                f"--{name} is set by `dreamer train world`, which trains both models from the start: use `dreamer "
                "train tokenizer` and `dreamer train dynamics` one after the other."
            )
        if name == "config" and target is None:
            raise ValueError(
                "--config holds options of one model: give it as --tokenizer.config or --dynamics.config."
            )
        yield Given(kinds, name, [f"--{name}{value or ''}", *words[start + 1 : end]])


def world_arguments(
    options: argparse.Namespace, given: list[Given], prog: str | None = None
) -> dict[str, TrainingArguments]:
    """Return the options of both runs.

    Args:
        options: `output_dir`, `minutes` and `preset`; for the last two, None stands for what a resumed run had, and
            for the default in a new one.
        given: all other options.
        prog: the command's name in messages.

    Raises:
        ValueError, FileNotFoundError: as `parse_arguments`, or an output folder that is not empty.
    """
    folder, minutes = Path(options.output_dir), options.minutes
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"expected a number above 0 for --minutes, got {minutes}.")
    for option in given:
        if option.name == "resume_from_checkpoint" and option.words[-1].split("=")[-1] != "latest":
            raise ValueError("`dreamer train world` resumes with --resume_from_checkpoint latest only.")
    resumes = any(option.name == "resume_from_checkpoint" for option in given)
    if not resumes and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty: choose another --output_dir, or continue with --resume_from_checkpoint latest."
        )
    arguments = {}
    for kind, name in FOLDERS.items():
        output_dir = folder / name
        words = ["--output_dir", str(output_dir)]
        words += ["--tokenizer", str(folder / FOLDERS["tokenizer"])] if kind == "dynamics" else []
        is_new = not (output_dir / ARGUMENTS_FILE).is_file()
        if options.preset is not None or is_new:
            words += ["--preset", options.preset or AUTO]
        if minutes is not None or is_new:
            words += ["--max_train_minutes", f"{SHARES[kind] * (minutes or DEFAULT_MINUTES):.2f}"]
        words += [word for option in given if kind in option.kinds for word in option.words]
        arguments[kind] = parse_arguments(KINDS[kind][0], words, prog)
    return arguments

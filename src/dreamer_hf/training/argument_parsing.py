"""Where the options of a run come from: the saved run, a preset, a YAML file, the command line.

Precedence, lowest first: the defaults, the saved run (when it is resumed), `--preset`, `--config`, the flags. All of
them go through one parser, so that a wrong name or value gives the same message wherever it stands.
"""

import difflib
import json
import sys
from pathlib import Path
from typing import TypeVar

import yaml
from transformers import HfArgumentParser

from ..data.files import first_line
from .arguments import POSITIVE, POSITIVE_SHARE, DataArguments, Limit, TrainingArguments
from .auto_facts import auto_choices
from .auto_preset import BASE

PRESETS = Path(__file__).parent / "presets"
"""Folder of the presets."""
ARGUMENTS_FILE = "training_arguments.json"
AUTO = "auto"
"""Name of the preset that follows from the data and the machine."""
PATHS_FILE = "training_paths.json"
"""The options that `ARGUMENTS_FILE`, which may be published, leaves out."""

RENAMED = {"past_copies": "context_copies", "own_past_fraction": "own_context_fraction"}
"""Options of earlier versions under their present names, for runs that are resumed and for hints."""
REMOVED = (
    "context_level_fraction",
    "context_loss",
    "image_stats",
    "split_seed",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)
"""Options of earlier versions that are gone (docs/notes/removed-options.md)."""

Arguments = TypeVar("Arguments", bound=TrainingArguments)


class _Parser(HfArgumentParser):
    """Raises `ValueError` where argparse prints the usage and exits."""

    def error(self, message: str):
        raise ValueError(f"{message}; --help lists the options and their values.")


def parse_arguments(
    arguments_class: type[Arguments], argv: list[str] | None = None, prog: str | None = None, description: str = ""
) -> Arguments:
    """Read the options of a run.

    Args:
        arguments_class: `TokenizerArguments` or `DynamicsArguments`.
        argv: the command line; `sys.argv[1:]` if not given.
        prog, description: the command and its description in `--help`.

    Raises:
        ValueError: an unknown option, a value of the wrong type, an unknown preset, a damaged file.
        FileNotFoundError: the config file does not exist.
    """
    argv = sys.argv[1:] if argv is None else argv
    sections = list(arguments_class.sections().values())
    parser = _Parser(sections, prog=prog, usage="%(prog)s [options]", description=description, allow_abbrev=False)
    names = [option.name for option in arguments_class.options()]
    given = [*_config_argv(_flag(argv, "config"), names), *argv]
    saved = []
    if _flag(given, "resume_from_checkpoint") is not None and _flag(given, "output_dir") is not None:
        saved = _saved_argv(Path(_flag(given, "output_dir")), names)
    preset = _flag(given, "preset")
    if preset == AUTO and saved:  # The saved options hold what it chose then, perhaps on another machine.
        preset = None
    chosen = _auto_argv(given, arguments_class.kind, names) if preset == AUTO else []
    given = [*saved, *_preset_argv(BASE if preset == AUTO else preset, arguments_class.kind, names), *chosen, *given]
    *parsed, unknown = parser.parse_args_into_dataclasses(
        given, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        raise ValueError(_unknown_option(unknown[0], names))
    return arguments_class(*parsed)


def _flag(argv: list[str], name: str) -> str | None:
    """Return the last value of one flag, before the real parsing."""
    value = None
    for position, word in enumerate(argv):
        if word == f"--{name}" and position + 1 < len(argv):
            value = argv[position + 1]
        elif word.startswith(f"--{name}="):
            value = word.split("=", 1)[1]
    return value


def _saved_argv(output_dir: Path, names: list[str]) -> list[str]:
    """Return the options that a run saved in its output folder; nothing if there is no such run."""
    values = {}
    for path in (output_dir / ARGUMENTS_FILE, output_dir / PATHS_FILE):
        if path.is_file():
            try:
                values |= json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{path} is damaged ({first_line(error)}): delete it and give the options of the run again."
                ) from error
    values = {RENAMED.get(name, name): value for name, value in values.items() if name not in REMOVED}
    # The folder may have been moved. What its preset and config file said is part of the other values.
    values = {name: value for name, value in values.items() if name not in ("output_dir", "resume_from_checkpoint")}
    return _as_argv(values, names, f" in {output_dir / ARGUMENTS_FILE}")


def _config_argv(path: str | None, names: list[str]) -> list[str]:
    if path is None:
        return []
    values = _read_yaml(Path(path))
    values.pop("config", None)
    return _as_argv(values, names, f" in {path}")


def _preset_argv(preset: str | None, kind: str, names: list[str]) -> list[str]:
    if preset is None:
        return []
    known = [AUTO, *sorted(path.stem for path in PRESETS.glob("*.yaml"))]
    if preset not in known:
        raise ValueError(f"preset {preset!r} is unknown: choose one of {', '.join(known)}.")
    return _as_argv(_read_yaml(PRESETS / f"{preset}.yaml").get(kind, {}), names, f" in preset {preset}")


def _auto_argv(given: list[str], kind: str, names: list[str]) -> list[str]:
    """Return what `--preset auto` chooses for the data and the minutes that are given."""
    data_dir = _flag(given, "data_dir")
    if data_dir is None:
        raise ValueError("--preset auto chooses for a data set: give its folder as --data_dir.")
    if kind not in ("tokenizer", "dynamics"):
        raise ValueError("--preset auto chooses sizes of worlds: name another preset, or give the agent's options.")
    minutes, fraction = _number(given, "max_train_minutes", POSITIVE), _number(given, "train_fraction", POSITIVE_SHARE)
    choices = auto_choices(kind, data_dir, DataArguments.train_fraction if fraction is None else fraction, minutes)
    return _as_argv({choice.option: choice.value for choice in choices}, names, " in preset auto")


def _number(argv: list[str], name: str, limit: Limit) -> float | None:
    """Return the value of a flag; None if it is not given, or not allowed, which the real parsing will refuse."""
    try:
        value = float(_flag(argv, name) or "nan")
    except ValueError:
        return None
    return value if limit.allows(value) else None


def _read_yaml(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"the config file {path} does not exist: give the path of a YAML file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {first_line(error)}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no options: write lines such as `learning_rate: 0.001`.")
    return values


def _as_argv(values: dict, names: list[str], where: str) -> list[str]:
    """Turn options into command-line words, which the parser then checks as it checks flags."""
    words = []
    for name, value in values.items():
        if name not in names:
            raise ValueError(_unknown_option(str(name), names, where))
        if value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def _unknown_option(word: str, names: list[str], where: str = "") -> str:
    name = word.lstrip("-").split("=")[0].replace("-", "_")
    if name in REMOVED:
        return f"the option {name!r}{where} no longer exists: see docs/notes/removed-options.md."
    close = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else "--help lists the options."
    return f"unknown option {name!r}{where}: {hint}"

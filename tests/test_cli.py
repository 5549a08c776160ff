"""The command `dreamer`: its subcommands, their flags, errors and start-up time."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest


def dreamer(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dreamer_hf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory) -> dict[str, str]:
    """An environment in which Python keeps the bytecode of what it imports, as it does after an installation."""
    keep = {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("bytecode")), "PYTHONDONTWRITEBYTECODE": ""}
    for arguments in ([], ["play"]):
        dreamer(*arguments, "--help", env=os.environ | keep)
    return os.environ | keep


@pytest.mark.parametrize(("arguments", "limit"), [([], 0.5), (["play"], 1.5), (["evaluate"], 1.5)])
def test_help_starts_fast(bytecode, arguments, limit):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert dreamer(*arguments, "--help", env=bytecode).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The best of three: a busy machine makes processor time longer, never shorter.
    assert min(seconds() for _ in range(3)) < limit


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys; sys.argv[1:] = ['play', '--help']\n"
        "from dreamer_hf.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--num_inference_steps" in done.stdout


def test_every_subcommand_has_help():
    listed = dreamer("--help").stdout
    for name in ("demo", "play", "evaluate", "record"):
        assert f"  {name} " in listed
        help = dreamer(name, "--help")
        assert help.returncode == 0 and f"Usage: dreamer {name} [OPTIONS]" in help.stdout, help.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], r"expected one of demo, play, .*, got 'fly'. See `dreamer --help`."),
        (["play", "--speed", "3"], r"No such option '--speed'"),
        (["play", "--steps", "many"], r"'many' is not a valid integer"),
        (["play", "--input", "foot"], r"'foot' is not one of 'joystick', 'keyboard', 'mouse', 'script'"),
        (["play", "--steps", "0"], r"expected a positive int for --steps, got 0"),
        (["evaluate"], r"Missing option '--model'. See `dreamer evaluate --help`"),
        (["demo", "extra"], r"unexpected extra argument"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message):
    done = dreamer(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr


def test_a_missing_extra_is_named():
    code = (
        "import sys; sys.modules['pygame'] = None\n"
        "from dreamer_hf.cli import run_script\n"
        "def main(): import pygame\n"
        "run_script(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: this needs pygame, which is not installed: pip install 'dreamer_hf[play]'.\n"


def test_a_bug_keeps_its_traceback():
    code = "from dreamer_hf.cli import run_script\ndef main(): import numpy_is_not_here\nrun_script(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_flags_take_underscores_dashes_and_several_values():
    from dataclasses import dataclass

    from click.testing import CliRunner

    from dreamer_hf.cli.flags import OptionsCommand
    from dreamer_hf.options import option

    @dataclass
    class Options:
        name: str = option(help="Name.", positional=True)
        to_place: tuple[float, ...] = option((1.0, 2.0), help="Place.")
        keep: bool = option(False, help="Keep.")

    command = OptionsCommand("go", Options, lambda options: json.dumps(vars(options)), "Go.")

    def parsed(*arguments):
        return json.loads(CliRunner().invoke(command, arguments).output)

    expected = {"name": "here", "to_place": [3.0, -4.0], "keep": True}
    assert parsed("here", "--to-place", "3", "-4", "--keep") == expected
    assert parsed("here", "--keep", "--to_place=3", "--to_place=-4") == expected
    assert parsed("--to_place", "3", "-4", "--keep", "here") == expected
    assert parsed("here") == {"name": "here", "to_place": [1.0, 2.0], "keep": False}

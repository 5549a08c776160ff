"""The wheel alone, in fresh environments outside the clone: with the extra `torch`, and the small one with `onnx`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_BYTES = 40_000_000
MAX_SMALL_BYTES = 250_000_000
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
IMPORT_ALL = """
import importlib, pkgutil, dreamer_hf
from dreamer_hf.cli.process import EXTRAS
for module in pkgutil.walk_packages(dreamer_hf.__path__, "dreamer_hf."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except (ImportError, ValueError) as error:  # Some modules name their extra in a separate error.
            missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
            assert isinstance(missing, ModuleNotFoundError), module.name
            assert EXTRAS[missing.name.partition(".")[0]] != "torch", (module.name, missing.name)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    done = subprocess.run([sys.executable, "-c", BUILD, target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


def install(wheel: Path, extra: str, tmp_path_factory):
    """Install the wheel into a new environment; return a function that runs one of its programs in an empty folder."""
    environment, elsewhere = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("elsewhere")
    wheel = f"{wheel}[{extra}]"
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def call(program, *arguments) -> subprocess.CompletedProcess:
        command = [environment / "bin" / program, *arguments]
        return subprocess.run(command, cwd=elsewhere, env=variables, capture_output=True, text=True)

    pins = ["--constraint", ROOT / "requirements.txt"]
    uv = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    if Path(uv).exists():
        subprocess.run(
            [uv, "--quiet", "venv", "--allow-existing", "--python", sys.executable, environment], check=True
        )
        command = [uv, "--quiet", "pip", "install", "--python", environment / "bin" / "python", *pins, wheel]
        # What `make setup` installed is in the cache: only without it are the packages downloaded.
        if subprocess.run([*command, "--offline"], cwd=elsewhere, env=variables, capture_output=True).returncode:
            subprocess.run(command, cwd=elsewhere, env=variables, check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", *pins, wheel], cwd=elsewhere, check=True)
    call.folder, call.environment = elsewhere, environment
    return call


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    return install(wheel, "torch", tmp_path_factory)


@pytest.fixture(scope="module")
def run_small(wheel, tmp_path_factory):
    return install(wheel, "onnx", tmp_path_factory)


def test_the_wheel_is_small_and_holds_every_file_of_the_package(wheel):
    assert wheel.stat().st_size < MAX_BYTES
    files = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/dreamer_hf").rglob("*") if path.is_file()
    }
    shipped = {name for name in files if "__pycache__" not in name}
    assert shipped - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_extra_torch_suffices_for_every_module_that_needs_no_other(run):
    done = run("python", "-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr


def test_the_command_works_outside_the_clone(run):
    done = run("dreamer", "--help")
    assert done.returncode == 0 and "Usage: dreamer" in done.stdout, done.stderr
    for arguments in (["play"], ["convert", "lerobot"], ["train", "tokenizer"], ["evaluate"]):
        done = run("dreamer", *arguments, "--help")
        assert done.returncode == 0 and "--output_dir" in done.stdout + " --output_dir" * (arguments == ["play"])
    done = run("python", "-m", "dreamer_hf.train", "tokenizer", "--preset", "pusht-tiny")
    assert done.returncode == 2 and "--data_dir" in done.stderr and "Traceback" not in done.stderr


def test_the_demo_plays_the_shipped_world(run):
    done = run("dreamer", "demo", "--output_dir", "demo")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 15 and "dreamer play" in done.stdout
    assert {"dream.mp4", "dream.gif", "evaluation.md"} <= {path.name for path in (run.folder / "demo").iterdir()}


@pytest.mark.parametrize(("command", "extra"), [("play", "play"), ("serve", "serve")])
def test_a_command_without_its_extra_says_what_to_install(run, command, extra):
    done = run("dreamer", command)
    assert done.returncode == 2 and f"dreamer_hf[{extra}]" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


STEP_WITHOUT_TORCH = """
import sys, gymnasium, dreamer_hf.envs
env = gymnasium.make("dreamer_hf/DreamerWorld-v0", model="pusht-tiny", engine="onnx", max_episode_steps=3)
frame, info = env.reset(seed=0)
frames = [env.step(env.action_space.sample())[0] for _ in range(3)]
assert frame.shape == (64, 64, 3) and (frames[-1] != frame).any()
assert not {"torch", "transformers", "cv2", "av"} & set(sys.modules)
"""


def test_environments_and_play_fit_into_a_small_installation(run_small):
    """The size is that of the files that pip installs, without bytecode."""
    files = [path for path in (run_small.environment / "lib").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files if path.suffix != ".pyc") < MAX_SMALL_BYTES
    assert not any((path / "torch").exists() for path in (run_small.environment / "lib").glob("*/site-packages"))
    done = run_small("python", "-c", STEP_WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr
    for engine in ("onnx", "auto"):
        done = run_small("dreamer", "play", "--headless", "--steps", "3", "--engine", engine)
        assert done.returncode == 0 and "3 frames in" in done.stdout and "ONNX Runtime" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["play", "--headless", "--steps", "3", "--engine", "torch"], "torch"),
        (["play", "--headless", "--steps", "3", "--record", "dream.mp4"], "video"),
        (["demo"], "torch"),
        (["serve"], "serve"),
        (["train", "tokenizer", "--preset", "pusht-tiny"], "torch"),
    ],
)
def test_the_small_installation_says_what_else_to_install(run_small, arguments, extra):
    done = run_small("dreamer", *arguments)
    assert done.returncode == 2 and f"dreamer_hf[{extra}]" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_without_pytorch_names_the_extra(run_small):
    done = run_small("python", "-c", "from dreamer_hf import DreamerWorldModel")
    assert "DreamerWorldModel needs torch, which is not installed: pip install 'dreamer_hf[torch]'." in done.stderr

"""`examples/play.py` as a user runs it: in its own process, on a saved world."""

import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from commands import run_command

SCRIPT = Path(__file__).parents[2] / "examples" / "play.py"
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")


def environment(**changes) -> dict[str, str]:
    """The environment of this process, with one thread, and without the variables that name a screen."""
    return {k: v for k, v in os.environ.items() if k not in SCREENS} | {"OMP_NUM_THREADS": "1"} | changes


def play(*arguments, **changes) -> subprocess.CompletedProcess:
    return run_command(SCRIPT, *arguments, environment=dict.fromkeys(SCREENS) | changes)


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
def test_headless_play_prints_the_rate_and_leaves_the_recording(world_folder, tmp_path):
    np.savetxt(tmp_path / "script.csv", np.full((7, 2), 250.0), delimiter=",")
    result = play(
        "--model", world_folder, "--headless", "--input", "script", "--script", tmp_path / "script.csv",
        "--record", tmp_path / "dream.mp4", "--num_inference_steps", 2, "--seed", 3,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "7 frames in" in result.stdout and "frames/s" in result.stdout
    assert count_frames(tmp_path / "dream.mp4") == 7


@pytest.mark.slow
def test_a_stopped_player_keeps_the_recording(world_folder, tmp_path):
    """In an invisible window, stopped by a shutdown, which the script handles like Ctrl-C."""
    command = [sys.executable, SCRIPT, "--model", world_folder, "--record", tmp_path / "dream.mp4"]
    env = environment(SDL_VIDEODRIVER="dummy")
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    partial = tmp_path / "dream.partial.mp4"
    deadline = time.monotonic() + 600
    while not (partial.exists() and partial.stat().st_size > 2000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert "recorded to" in output and count_frames(tmp_path / "dream.mp4") > 0


def test_without_a_display_it_says_what_to_do(world_folder):
    result = play("--model", world_folder)
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no display") and len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_without_a_compiler_it_says_so_before_anything_is_recorded(world_folder, tmp_path):
    arguments = ["--model", world_folder, "--headless", "--script", "circle", "--steps", 3, "--compile"]
    result = play(*arguments, "--record", tmp_path / "dream.mp4", PATH=str(tmp_path), CXX=str(tmp_path / "missing"))
    assert result.returncode == 2 and "install a C++ compiler" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and not list(tmp_path.iterdir())


def test_headless_play_without_joystick_continues_with_the_keyboard(run_here, tmp_path):
    status, output, _ = run_here("--headless", "--steps", 5, "--input", "joystick", "--record", tmp_path / "dream.mp4")
    assert status == 0 and "No joystick is plugged in" in output
    assert count_frames(tmp_path / "dream.mp4") == 5


@pytest.mark.slow
def test_windowed_play_in_every_way(run_here, world_folder):
    for way in (("--input", "keyboard"), ("--input", "mouse"), ("--script", "sweep", "--scale", 3), ("--invert", 1)):
        assert run_here("--steps", 2, *way)[0] == 0


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("exists: choose another name", ("--record", "{tmp}/taken.mp4")),
        ("this world takes (steps, 2)", ("--script", "{tmp}/wide.npy")),
        ("no script at", ("--script", "{tmp}/nowhere.npy")),
        ("no start frames at", ("--start", "{tmp}/nowhere.png")),
        ("metadata.json is missing", ("--start", "{tmp}")),
        ("power of two", ("--num_inference_steps", 3)),
        ("a mouse needs a window", ("--input", "mouse")),
        ("cannot be combined", ("--input", "keyboard", "--script", "circle")),
        ("--invert", ("--input", "keyboard", "--invert", 2)),
        ("expected a positive int for --steps, got 0", ("--steps", 0)),
        ("expected a positive int for --scale, got 0", ("--scale", 0)),
        ("cannot use --device quantum", ("--device", "quantum")),
        ("does not divide the simulator's 10", ("--compare",)),
        ("leave out --start", ("--compare", "--start", "{tmp}")),
        ("add --compare", ("--actions", "relative")),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(run_here, tmp_path, sentence, arguments):
    (tmp_path / "taken.mp4").write_text("precious")
    np.save(tmp_path / "wide.npy", np.zeros((3, 5)))
    arguments = [str(argument).format(tmp=tmp_path) for argument in arguments]
    steps = () if "--steps" in arguments else ("--steps", 2)
    assert_refused(run_here("--headless", *steps, *arguments), sentence)
    assert (tmp_path / "taken.mp4").read_text() == "precious"


def test_headless_play_needs_an_end(run_here):
    assert_refused(run_here("--headless"), "add --steps")


def test_a_folder_without_a_world_is_refused(run_here, world, tmp_path):
    assert_refused(run_here("--headless", "--steps", 1, model=tmp_path / "nowhere"), "there is no such folder")
    (tmp_path / "empty").mkdir()
    assert_refused(run_here("--headless", "--steps", 1, model=tmp_path / "empty"), "cannot load a world")
    world.tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert_refused(run_here("--headless", "--steps", 1, model=tmp_path / "tokenizer"), "it is a dreamer_tokenizer")
    world.save_pretrained(tmp_path / "world")
    assert_refused(run_here("--headless", "--steps", 1, model=tmp_path / "world"), "carries no start_frames")


def assert_refused(result, sentence):
    status, _, errors = result
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(lines) == 1 and sentence in lines[0], result
    assert "Traceback" not in errors

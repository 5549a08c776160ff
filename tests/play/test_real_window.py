"""`examples/play.py` on a real X server (Xvfb), with keys that are really pressed (XTest)."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import ImageGrab

pytestmark = pytest.mark.system
SCRIPT = Path(__file__).parents[2] / "examples" / "play.py"
PATIENCE = 120  # seconds; the machine may be busy


@pytest.fixture
def display():
    """The name of a fresh X display."""
    for program in ("Xvfb", "xdotool"):
        assert shutil.which(program), f"{program} is missing: run `make system-packages`"
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x1024x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            yield f":{lines.readline().strip()}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@contextlib.contextmanager
def playing(*arguments, display):
    environment = {k: v for k, v in os.environ.items() if k not in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY")}
    environment |= {"DISPLAY": display, "OMP_NUM_THREADS": "1", "SDL_AUDIODRIVER": "dummy"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def xdotool(display, *arguments):
    command = ["xdotool", *arguments]
    done = subprocess.run(
        command, env={**os.environ, "DISPLAY": display}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_key_pressed_on_a_real_screen_moves_the_action(display, world_folder, tmp_path):
    recording = tmp_path / "play"
    with playing(
        "--model", world_folder, "--input", "keyboard", "--record_dataset", recording, display=display
    ) as process:
        window = xdotool(display, "search", "--sync", "--onlyvisible", "--name", "Dream of").split()[0]
        xdotool(display, "windowfocus", "--sync", window)
        time.sleep(1)
        xdotool(display, "keydown", "Right")
        time.sleep(2)
        picture = np.asarray(ImageGrab.grab(xdisplay=display))
        xdotool(display, "keyup", "Right")
        time.sleep(1)
        xdotool(display, "key", "Escape")
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and "recorded to" in output, errors
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # the dream, its bars and words
    files = list((recording / "data").rglob("*.parquet"))
    actions = np.stack(pyarrow.parquet.read_table(files[0])["action"].to_numpy())
    assert len(actions) > 3 and (np.diff(actions[:, 0]) >= 0).all()
    assert actions[-1, 0] > actions[0, 0] + 10 and np.ptp(actions[:, 1]) == 0

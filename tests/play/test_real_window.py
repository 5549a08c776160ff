"""`examples/play.py` on a real X server (Xvfb), with keys that are really pressed (XTest)."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import ImageGrab

from dreamer_hf.play.window import ACCENT, IMAGE_SIDE, MARGIN

pytestmark = pytest.mark.system
SCRIPT = Path(__file__).parents[2] / "examples" / "play.py"
PATIENCE = 240  # seconds; the machine may be busy


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
    subprocess.run(["xdotool", *arguments], env={**os.environ, "DISPLAY": display}, check=True, timeout=60)


def wait_for(process, condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.2)
    return value


def bars_length(display):
    """Pixels of the bars' color under the image, which fills the top of the screen."""
    screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))
    return int((screen[IMAGE_SIDE + MARGIN :] == ACCENT).all(-1).sum())


def test_a_key_pressed_on_a_real_screen_moves_the_action(display, world_folder, tmp_path):
    arguments = ("--model", world_folder, "--input", "keyboard", "--record", tmp_path / "dream.mp4")
    with playing(*arguments, display=display) as process:
        before = wait_for(process, lambda: bars_length(display), "the bars")  # the window has the focus by then
        xdotool(display, "keydown", "Left")  # towards where the bar begins
        wait_for(process, lambda: bars_length(display) < before / 2, "the bar to move")
        xdotool(display, "keyup", "Left", "key", "Escape")
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and "recorded to" in output, errors
    with av.open(str(tmp_path / "dream.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 3

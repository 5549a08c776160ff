"""What `make demo` runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamer_hf.start_frames import load_start_frames

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_the_demo_steers_the_shipped_world(tmp_path):
    command = [sys.executable, ROOT / "examples/demo.py", "--num_dreamt_frames", "5", "--output_dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "another episode's actions" in done.stdout
    given = load_start_frames("pusht-tiny")[0].pixel_values_videos.shape[1]
    film = Image.open(tmp_path / "dream.gif")
    film.seek(given + 4)
    right, left = (film.convert("RGB").crop((8 + n * 264, 36, 264 + n * 264, 292)) for n in (0, 2))
    assert right.tobytes() != left.tobytes(), "the actions changed nothing"
    wrong = subprocess.run([*command, "--start", "99"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and "--start 99 does not exist" in wrong.stderr and "Traceback" not in wrong.stderr

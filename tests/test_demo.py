"""The demo: what it writes and how little it prints."""

from pathlib import Path

import pytest
from PIL import Image

from commands import run_command
from dreamer_hf.demo import DemoOptions, run_demo
from dreamer_hf.start_frames import load_start_frames

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_the_demo_steers_the_shipped_world(tmp_path):
    command = [ROOT / "examples/demo.py", "--num_dream_frames", "5", "--output_dir", tmp_path]
    for _ in range(2):  # The second run replaces the files of the first.
        done = run_command(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 15 and str(tmp_path / "dream.mp4") in done.stdout and "play" in lines[-1]
    assert "another episode's actions" in (tmp_path / "evaluation.md").read_text()
    num_context = load_start_frames("pusht-tiny")[0].pixel_values_videos.shape[1]
    video = Image.open(tmp_path / "dream.gif")
    video.seek(num_context + 4)
    right, left = (video.convert("RGB").crop((8 + n * 264, 36, 264 + n * 264, 292)) for n in (0, 2))
    assert right.tobytes() != left.tobytes(), "the actions changed nothing"


def test_a_start_that_the_world_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a start from 0 to 7 for --start, got 99"):
        run_demo(DemoOptions(start=99, output_dir=str(tmp_path)))

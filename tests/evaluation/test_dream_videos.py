"""Videos of dreams next to the real frames."""

import av
import pytest
from PIL import Image

from commands import run_command
from tiny import EXAMPLES, random_world

pytestmark = pytest.mark.slow


def test_the_script_writes_videos(tiny_shards, tmp_path):
    random_world(fps=10).save_pretrained(tmp_path / "world")
    command = [EXAMPLES / "dream.py", "--model", tmp_path / "world", "--data_dir", tiny_shards]
    command += ["--num_context_frames", "3", "--num_dream_frames", "16", "--output_dir", tmp_path / "dream"]
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "dream/dream.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 19
    assert Image.open(tmp_path / "dream/dream.gif").n_frames == 19
    again = run_command(*command)
    assert again.returncode == 2 and "is not empty" in again.stderr and "Traceback" not in again.stderr

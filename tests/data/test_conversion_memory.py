"""A converting process needs the same memory for a long episode as for a short one."""

import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiny import TINY_REPO_ID

pytestmark = pytest.mark.slow

VIDEO_SIZE, IMAGE_SIZE, STORED_SIZE = 32, 96, 160
SHORT, LONG_VIDEO, LONG_TABLE = 40, 700, 1600
CONVERT = """
import sys
from pathlib import Path
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform
from dreamer_hf.data.sources.lerobot_source import LeRobotSource

convert(LeRobotSource(sys.argv[1], "tests/tiny"), sys.argv[2], ConversionOptions(transform=FrameTransform(160, 160)))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""


def record(root, num_frames, use_videos):
    """One episode, in which an image scrolls: a smooth one as video, noise as PNG images."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = VIDEO_SIZE if use_videos else IMAGE_SIZE
    features = {
        "image": {"dtype": "video" if use_videos else "image", "shape": (size, size, 3), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    }
    options = {"rgb_encoder": RGBEncoderConfig("h264"), "streaming_encoding": use_videos, "encoder_queue_maxsize": 0}
    dataset = LeRobotDataset.create(
        TINY_REPO_ID, 10, features, root=root, use_videos=use_videos, **(options if use_videos else {})
    )
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    if use_videos:
        image[:] = np.arange(size)[:, None, None]
    for time in range(num_frames):
        frame = np.roll(image, time, axis=0)
        dataset.add_frame({"image": frame, "action": np.zeros(2, np.float32), "task": "t"})
    dataset.save_episode()
    dataset.finalize()
    return root


def lengthen(root, destination, times):
    """The same images repeated, in one row group of short pages."""
    shutil.copytree(root, destination)
    (data,) = destination.glob("data/*/*.parquet")
    rows = pa.concat_tables([pq.read_table(data)] * times)
    rows = rows.set_column(rows.schema.get_field_index("frame_index"), "frame_index", pa.array(range(len(rows))))
    pq.write_table(rows, data, use_dictionary=False, write_batch_size=16)
    (episodes,) = destination.glob("meta/episodes/*/*.parquet")
    table = pq.read_table(episodes)
    column = table.schema.get_field_index("length")
    pq.write_table(table.set_column(column, "length", pa.array([len(rows)])), episodes)
    return destination


def peak_memory(root, out):
    """MiB that a fresh process held at most while it converted."""
    command = [sys.executable, "-c", CONVERT, str(root), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def growth(tmp_path, short, long):
    """MiB that the long episode takes more than the short one."""
    return peak_memory(long, tmp_path / "of_long") - peak_memory(short, tmp_path / "of_short")


def test_memory_does_not_grow_with_a_video(tmp_path):
    short, long = (record(tmp_path / str(count), count, use_videos=True) for count in (SHORT, LONG_VIDEO))
    stored = LONG_VIDEO * STORED_SIZE**2 * 3 / 2**20
    assert growth(tmp_path, short, long) < 20 < stored


def test_memory_does_not_grow_with_images_in_a_table(tmp_path):
    short = record(tmp_path / "short", SHORT, use_videos=False)
    encoded = LONG_TABLE * IMAGE_SIZE**2 * 3 / 2**20  # Noise is not compressed.
    assert growth(tmp_path, short, lengthen(short, tmp_path / "long", LONG_TABLE // SHORT)) < 20 < encoded

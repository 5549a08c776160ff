import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dreamer_hf.data import ShardDataset
from dreamer_hf.data.inspect_dataset import contact_sheet, describe, save_contact_sheet, verify


def test_description_names_what_matters(tiny_shards):
    text = describe(tiny_shards, window_size=30)
    assert "3 shards, 6 episodes, 190 frames (10 frames/s" in text
    assert "min 24, median 31.5, mean 31.7, max 40" in text
    assert "step_x" in text and "train " in text and "MB" in text
    assert "train none, validation none" in describe(tiny_shards, window_size=99)


def test_contact_sheet_shows_frames_and_actions(tiny_shards, tmp_path):
    save_contact_sheet(tmp_path / "sheet.png", tiny_shards, episodes=3, frames=4)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    assert sheet.shape == (22 + 3 * (128 + 20 + 8), 4 * 136, 3)
    first = ShardDataset(tiny_shards, None, split="all").episode(0)["pixel_values_videos"][0].numpy()
    corner = sheet[22 + 4 + 120, 4 + 120]  # its lower right corner
    np.testing.assert_allclose(corner, first[:, 30, 30], atol=8)
    gauges = (sheet == (255, 190, 60)).all(-1)
    assert gauges[22 + 132 : 22 + 156, 136:272].sum() >= 2 * 30 and not gauges[22 + 132 : 22 + 156, :136].any()
    assert not np.array_equal(contact_sheet(tiny_shards, color_order="bgr"), contact_sheet(tiny_shards))


def test_verify_finds_a_flipped_bit_in_any_frame(tiny_shards, tmp_path):
    verify(tiny_shards)
    folder = shutil.copytree(tiny_shards, tmp_path / "shards")
    path = folder / "shard_0001.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard_0001.h5 is truncated or damaged"):
        verify(folder)


def test_written_index_serves_folders_that_lack_one(tiny_shards, tmp_path):
    folder = shutil.copytree(tiny_shards, tmp_path / "shards")
    (folder / "index.npz").unlink()
    slow = ShardDataset(folder, None, split="all")
    slow.write_index()
    quick = ShardDataset(folder, None, split="all")
    assert quick.episode_lengths.tolist() == slow.episode_lengths.tolist()
    assert quick.source_episodes.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_closed_pipe_causes_no_traceback(tiny_shards):
    command = [sys.executable, "-m", "dreamer_hf", "inspect", str(tiny_shards)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(timeout=120) == 1 and process.stderr.read() == ""

"""Windows straight out of LeRobot datasets equal those of shards made of them."""

import numpy as np
import pytest
import torch

from dreamer_hf.data import LeRobotWindows, ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource
from tiny import TINY_REPO_ID, tiny_episodes, tiny_frame, write_tiny_lerobot


@pytest.mark.parametrize(
    "conversion",
    [
        ConversionOptions(),
        ConversionOptions(target_fps=5, transform=FrameTransform(24, 16), relative_actions=True),
    ],
)
def test_windows_without_conversion_are_those_of_the_shards(tiny_lerobot, tmp_path, conversion):
    options = {"window_size": 7, "stride": 3, "split": "train", "train_fraction": 0.6, "action_offset": 1}
    direct = LeRobotWindows(LeRobotSelection(TINY_REPO_ID, tiny_lerobot), options=conversion, **options)
    convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path, conversion)
    shards = ShardDataset(tmp_path, **options)
    assert len(direct) == len(shards) and direct.fps == shards.fps and direct.image_size == shards.image_size
    np.testing.assert_allclose(direct.action_stats["std"], shards.action_stats["std"], rtol=1e-6)
    for index in range(0, len(direct), 4):
        assert all(torch.equal(value, shards[index][key]) for key, value in direct[index].items())


def test_windows_without_conversion_from_images(tmp_path):
    root = tmp_path / "dataset"
    write_tiny_lerobot(root, use_videos=False, cameras=("front", "back"))
    data = LeRobotWindows(LeRobotSelection(TINY_REPO_ID, root, "front"), 5, split="all")
    item = data.window(2, 9, 5)
    positions = list(tiny_episodes())[2][0][9:14]
    np.testing.assert_array_equal(
        item["pixel_values_videos"].permute(0, 2, 3, 1).numpy(), [tiny_frame(position) for position in positions]
    )

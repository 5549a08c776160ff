"""Several cameras in shards: an array of each, next to each other in items, and refused where they differ."""

import json

import cv2
import numpy as np
import pytest
import torch

from dreamer_hf.data import ShardDataset, collate_windows
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform
from dreamer_hf.data.inspect_dataset import contact_sheet, describe
from dreamer_hf.data.lerobot_windows import LeRobotWindows
from dreamer_hf.data.mixture import MixtureDataset
from dreamer_hf.data.shards import ShardMetadata, open_shard, shard_name
from dreamer_hf.data.sources.lerobot_source import LeRobotSelection, LeRobotSource
from dreamer_hf.data.sources.rlds_source import RldsSource
from dreamer_hf.data.windows import EachCamera
from dreamer_hf.start_frames import read_start_frames, starts_from_dataset
from tiny import (
    CAMERAS,
    TINY_IMAGE_SIZE,
    TINY_REPO_ID,
    build_once,
    random_world,
    tiny_episodes,
    tiny_frame,
    write_moving_square,
    write_tiny_lerobot,
)

KEYS = ("observation.images.front", "observation.images.wrist")
BOTH = ",".join(KEYS)


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory):
    """A LeRobotDataset of two cameras, made by lerobot itself; the second one shows the scene mirrored."""
    return build_once(
        tmp_path_factory, "two_cameras", lambda folder: write_tiny_lerobot(folder, use_videos=False, cameras=KEYS)
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory, two_cameras):
    source = LeRobotSource(two_cameras, TINY_REPO_ID, BOTH)
    options = ConversionOptions(episodes_per_shard=2)
    return build_once(tmp_path_factory, "camera_shards", lambda folder: convert(source, folder, options))


def test_every_camera_has_its_array_and_the_first_one_is_where_it_was(shards, two_cameras, tmp_path):
    data = ShardDataset(shards, None, split="all")
    assert data.camera_names == ["front", "wrist"] and data.image_size == (TINY_IMAGE_SIZE, TINY_IMAGE_SIZE)
    for position, (positions, _) in enumerate(tiny_episodes()):
        front = np.stack([tiny_frame(each) for each in positions])
        frames = data.episode(position)["pixel_values_videos"].movedim(-3, -1).numpy()
        np.testing.assert_array_equal(frames, np.stack([front, front[:, :, ::-1]], axis=1))
    with open_shard(shards / shard_name(0)) as file:
        assert {name for name in file if name.startswith("images")} == {"images", "images_wrist"}
        assert list(file.attrs["camera_names"]) == ["front", "wrist"]
    one = convert(LeRobotSource(two_cameras, TINY_REPO_ID, KEYS[0]), tmp_path / "one", ConversionOptions())
    with open_shard(shards / shard_name(0)) as first, open_shard(one / shard_name(0)) as alone:
        np.testing.assert_array_equal(first["images"][0], alone["images"][0, : first["images"].shape[1]])
        assert "camera_names" not in alone.attrs
    assert ShardDataset(one, None, split="all").camera_names is None


def test_batches_keep_the_cameras_and_each_camera_can_be_read_alone(shards):
    data = ShardDataset(shards, 5, split="all")
    batch = collate_windows([data[0], data[7]])
    assert batch["pixel_values_videos"].shape == (2, 5, 2, 3, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE)
    assert torch.equal(batch["pixel_values_videos"][1], data[7]["pixel_values_videos"])
    each = EachCamera(data)
    assert len(each) == 2 * len(data) and each.episode_of(15) == data.episode_of(7)
    for camera in range(2):
        assert torch.equal(each[14 + camera]["pixel_values_videos"], data[7]["pixel_values_videos"][:, camera])
    assert each.with_window(1)[3]["pixel_values_videos"].shape == (1, 3, TINY_IMAGE_SIZE, TINY_IMAGE_SIZE)


def test_lerobot_read_directly_gives_the_items_of_the_shards(shards, two_cameras):
    options = ConversionOptions(target_fps=5, transform=FrameTransform(16, 16))
    direct = LeRobotWindows(LeRobotSelection(TINY_REPO_ID, two_cameras, BOTH), 4, split="all")
    data = ShardDataset(shards, 4, split="all")
    assert torch.equal(direct[9]["pixel_values_videos"], data[9]["pixel_values_videos"])
    small = LeRobotWindows(LeRobotSelection(TINY_REPO_ID, two_cameras, BOTH), 4, split="all", options=options)
    assert small[0]["pixel_values_videos"].shape == (4, 2, 3, 16, 16) and small.image_size == (16, 16)


def test_cameras_are_tiled_on_request(two_cameras, tmp_path):
    source = LeRobotSource(two_cameras, TINY_REPO_ID, BOTH, tile_cameras=True)
    data = ShardDataset(convert(source, tmp_path / "out", ConversionOptions()), None, split="all")
    assert data.camera_names is None and data.image_size == (TINY_IMAGE_SIZE, 2 * TINY_IMAGE_SIZE)


def test_cameras_of_rlds(tmp_path):
    from pathlib import Path

    fixtures = Path(__file__).parents[1] / "fixtures" / "rlds" / "tfrecord"
    source = RldsSource(fixtures, "success", "observation/image,observation/cameras/wrist")
    assert source.camera_names == ["image", "wrist"]
    with pytest.raises(ValueError, match=r"the cameras have frames of different sizes .* give --width and --height"):
        convert(source, tmp_path / "refused", ConversionOptions())
    options = ConversionOptions(transform=FrameTransform(16, 16))
    data = ShardDataset(convert(source, tmp_path / "out", options), None, split="all")
    assert data.episode(0)["pixel_values_videos"].shape[1:] == (2, 3, 16, 16)


def test_episodes_of_other_cameras_are_refused(tmp_path, two_cameras):
    both = write_moving_square(tmp_path / "both", camera_names=["front", "wrist"])
    one = write_moving_square(tmp_path / "one")
    (both / shard_name(0)).unlink()
    (one / shard_name(0)).rename(both / shard_name(0))
    with pytest.raises(ValueError, match=r"has one camera, but the metadata of .* name the cameras front, wrist"):
        ShardDataset(both, None, split="all").episode(0)
    with pytest.raises(ValueError, match=r"has no camera 'left'; --image_key can be: "):
        LeRobotSource(two_cameras, TINY_REPO_ID, f"{KEYS[0]},left")
    with pytest.raises(ValueError, match="names a camera twice"):
        LeRobotSource(two_cameras, TINY_REPO_ID, f"{KEYS[0]},{KEYS[0]}")
    first = ShardDataset(write_moving_square(tmp_path / "a", camera_names=["front", "wrist"]), 4, split="all")
    second = ShardDataset(write_moving_square(tmp_path / "b", camera_names=["front", "side"]), 4, split="all")
    with pytest.raises(ValueError, match="must have the same camera_names"):
        MixtureDataset([first, second])
    metadata = ShardMetadata.read(tmp_path / "a")
    for names in (["front"], ["front", "front"], "front"):
        metadata.camera_names = names
        metadata.write(tmp_path / "a")
        with pytest.raises(ValueError, match="expected two or more different names for 'camera_names'"):
            ShardDataset(tmp_path / "a", None)


def test_the_contact_sheet_and_the_description_show_both(shards):
    assert contact_sheet(shards).shape[2] == 3
    assert "cameras: front, wrist" in describe(shards, window_size=8)


def test_dreams_of_two_cameras_start_from_data_that_have_both(shards, two_cameras, tmp_path):
    fields = {"camera_names": CAMERAS["camera_names"], "num_latent_tokens": 4, "fps": 10}
    config = random_world(**fields).config
    direct, converted = (read_start_frames(path, config) for path in (two_cameras, shards))
    assert direct.pixel_values_videos.shape[2:] == (2, 3, 32, 32)
    assert torch.equal(direct.pixel_values_videos, converted.pixel_values_videos)
    assert starts_from_dataset(ShardDataset(shards, None)).pixel_values_videos.ndim == 6
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="shows one camera, but the world has front, wrist"):
        read_start_frames(image, config)
    info = two_cameras / "meta" / "info.json"
    assert "observation.images.front" in json.loads(info.read_text())["features"]
    config.dynamics_config.camera_names = ["front", "side"]
    with pytest.raises(
        ValueError, match=r"the world has the cameras front, side, but the dataset has .*--image_key a,b"
    ):
        read_start_frames(two_cameras, config)

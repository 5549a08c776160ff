"""Start frames: kept with a world, and read from shards, videos and images."""

import shutil

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dreamer_hf import DreamerWorldConfig
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.conversion_options import ConversionOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.frame_transform import FrameTransform
from dreamer_hf.data.lerobot_windows import LeRobotWindows
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import ShardIndex, ShardMetadata, read_shard_index
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from dreamer_hf.start_frames import (
    CONTEXT_FRAMES,
    START_FRAMES_NAME,
    StartFrames,
    load_start_frames,
    read_start_frames,
    save_start_frames,
)
from tiny import TINY_REPO_ID, write_tiny_lerobot

SIZE = 16


@pytest.fixture
def config() -> DreamerWorldConfig:
    tokenizer = {"image_size": SIZE, "patch_size": 8}
    return DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config={"action_dim": 2, "fps": 10})


@pytest.fixture
def starts() -> StartFrames:
    frames = torch.randint(0, 256, (3, 4, 3, SIZE, SIZE), dtype=torch.uint8)
    return StartFrames(frames, torch.randn(3, 4, 2), torch.rand(3, 4) > 0.5)


def make_shards(folder, lengths, size=SIZE):
    """A real shard folder whose frame and action values tell episode and time: 10 * episode + time."""
    folder.mkdir()
    with write_shard(folder / "shard_0000.h5", action_dim=2) as writer:
        for episode, length in enumerate(lengths):
            writer.begin_episode(episode)
            for time in range(length):
                writer.add_frame(np.full((size, size, 3), 10 * episode + time, np.uint8))
            writer.end_episode(10 * episode + np.arange(length, dtype=np.float32)[:, None].repeat(2, 1))
    ShardIndex.join([read_shard_index(folder / "shard_0000.h5", 0)]).write(folder)
    metadata = ShardMetadata(
        num_shards=1, total_episodes=len(lengths), image_shape=(size, size, 3), action_shape=(2,), color_order="rgb"
    )
    metadata.write(folder)
    return folder


def write_video(path, fps, num_frames, size=(32, 48)):
    """A video whose frame k has the brightness 5 k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for k in range(num_frames):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((*size, 3), 5 * k, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return path


def test_a_world_folder_carries_them(tmp_path, starts):
    assert save_start_frames(tmp_path, starts) == tmp_path / START_FRAMES_NAME
    loaded = load_start_frames(tmp_path)
    for name, tensor in starts.tensors().items():
        assert torch.equal(getattr(loaded, name), tensor)
    assert [entry.name for entry in tmp_path.iterdir()] == [START_FRAMES_NAME]


def test_one_start_is_a_batch_of_one(starts):
    one = starts[1]
    assert len(starts) == 3 and len(one) == 1
    assert torch.equal(one.pixel_values_videos[0], starts.pixel_values_videos[1])
    assert torch.equal(starts[-1].actions, starts[2].actions) and len(list(starts)) == 3
    assert torch.equal(starts.select([2, 0]).actions, starts.actions[[2, 0]])
    for index in (3, -4):
        with pytest.raises(IndexError, match="there are 3 start frames"):
            starts[index]


def test_a_world_without_them_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="carries no start_frames"):
        load_start_frames(tmp_path)


def test_a_damaged_file_is_refused(tmp_path, starts):
    path = save_start_frames(tmp_path, starts)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_start_frames(tmp_path)


def test_wrong_shapes_and_types_are_refused(starts):
    with pytest.raises(ValueError, match="uint8"):
        StartFrames(starts.pixel_values_videos.float(), starts.actions, starts.action_mask)
    with pytest.raises(ValueError, match="must be"):
        StartFrames(starts.pixel_values_videos, starts.actions[:, :2], starts.action_mask)


def test_shards_give_the_first_frames_with_aligned_actions(tmp_path, config):
    folder = make_shards(tmp_path / "shards", lengths=[20, 3, 15])
    starts = read_start_frames(folder, config)
    assert starts.pixel_values_videos.shape == (2, CONTEXT_FRAMES, 3, SIZE, SIZE)  # the short episode has too few
    assert starts.pixel_values_videos[1, :, 0, 0, 0].tolist() == list(range(20, 20 + CONTEXT_FRAMES))
    assert starts.action_mask[1].tolist() == [False] + [True] * (CONTEXT_FRAMES - 1)
    assert starts.actions[1, 1:, 0].tolist() == list(range(20, 20 + CONTEXT_FRAMES - 1))


def test_shards_with_many_episodes_give_held_out_ones(tmp_path, config):
    folder = make_shards(tmp_path / "shards", lengths=[2] * 20)
    held_out = ShardDataset(folder, window_size=None, split="validation").episode_ids
    starts = read_start_frames(folder, config)
    assert starts.pixel_values_videos[:, 0, 0, 0, 0].tolist() == (10 * held_out).tolist()


def test_a_video_is_read_at_the_worlds_rate(tmp_path, config):
    starts = read_start_frames(write_video(tmp_path / "video.mp4", fps=30, num_frames=40), config)
    assert starts.pixel_values_videos.shape == (1, CONTEXT_FRAMES, 3, SIZE, SIZE)
    brightness = starts.pixel_values_videos[0, :, 0].float().mean((1, 2))
    expected = 15.0 * torch.arange(CONTEXT_FRAMES)  # every third frame
    assert (brightness - expected).abs().max() < 4
    assert not starts.action_mask.any()


def test_an_image_is_one_frame_without_an_action(tmp_path, config):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :, 0] = 200  # blue, for OpenCV
    cv2.imwrite(str(tmp_path / "image.png"), image)
    starts = read_start_frames(tmp_path / "image.png", config)
    assert starts.pixel_values_videos.shape == (1, 1, 3, SIZE, SIZE)
    assert starts.pixel_values_videos[0, 0, :, 5, 5].tolist() == [0, 0, 200]
    assert not starts.action_mask.any()


def rename_feature(folder, old, new):
    """Renames a feature of a LeRobotDataset in its metadata and its tables."""
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace(f'"{old}"', f'"{new}"'))
    for path in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([new if name == old else name for name in table.column_names]), path)


def assert_same_starts(first, second):
    assert first.tensors().keys() == second.tensors().keys()
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, getattr(second, name)), name


@pytest.mark.parametrize("absolute", [(), (1,), (0, 1)], ids=["relative", "mixed", "as recorded"])
def test_lerobot_data_start_as_the_shards_made_of_them_do(tmp_path, tiny_lerobot, config, absolute):
    """At the world's rate and size, and with relative actions where its statistics say so."""
    config.dynamics_config.fps = 5
    options = {"target_fps": 5, "transform": FrameTransform(SIZE, SIZE)}
    if len(absolute) < 2:
        options |= {"relative_actions": True, "absolute_action_dims": absolute}
    convert(LeRobotSource(tiny_lerobot, TINY_REPO_ID), tmp_path, ConversionOptions(**options))
    stats = ShardDataset(tmp_path, window_size=None, split="all").action_stats
    config.dynamics_config.action_stats = {name: stats[name] for name in ("mean", "std")}
    assert_same_starts(read_start_frames(tiny_lerobot, config), read_start_frames(tmp_path, config))


def test_lerobot_data_are_found_by_name(tiny_lerobot, config, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tiny_lerobot.parent))
    by_name = read_start_frames(tiny_lerobot.name, config)
    assert_same_starts(by_name, read_start_frames(tiny_lerobot, config))
    assert by_name.pixel_values_videos.shape[-2:] == (SIZE, SIZE)


def test_lerobot_data_whose_actions_have_another_name(tmp_path, tiny_lerobot, config):
    copy = shutil.copytree(tiny_lerobot, tmp_path / "renamed")
    rename_feature(copy, "action", "actions")
    with pytest.raises(ValueError, match="has no feature 'action'"):
        read_start_frames(copy, config)
    assert_same_starts(read_start_frames(copy, config, action_key="actions"), read_start_frames(tiny_lerobot, config))


def test_an_action_that_the_world_knows_to_be_absolute_is_taken_as_recorded(tiny_lerobot, config):
    recorded = read_start_frames(tiny_lerobot, config)
    stats = LeRobotWindows(
        tiny_lerobot, None, options=ConversionOptions(relative_actions=True), split="all"
    ).action_stats
    config.dynamics_config.action_stats = {name: stats[name] for name in ("mean", "std")}
    assert not torch.equal(read_start_frames(tiny_lerobot, config).actions, recorded.actions)
    config.dynamics_config.relative_actions = [False, False]
    assert_same_starts(read_start_frames(tiny_lerobot, config), recorded)


@pytest.mark.slow
def test_lerobot_data_that_do_not_fit_are_refused(tmp_path, tiny_lerobot, config):
    two_cameras = tmp_path / "two_cameras"
    write_tiny_lerobot(two_cameras, use_videos=False, cameras=("front", "back"))
    with pytest.raises(ValueError, match="choose a camera with --image_key"):
        read_start_frames(two_cameras, config)
    assert len(read_start_frames(two_cameras, config, image_key="front")) == 6
    config.dynamics_config.action_dim = 3
    with pytest.raises(ValueError, match="width 2"):
        read_start_frames(tiny_lerobot, config)
    config.dynamics_config.fps = 7
    with pytest.raises(ValueError, match="10 frames/s, which is not a multiple of the world's 7"):
        read_start_frames(tiny_lerobot, config)


@pytest.mark.parametrize("name", ["broken.mp4", "broken.png", "notes.txt"])
def test_other_files_are_refused(tmp_path, config, name):
    (tmp_path / name).write_text("no image")
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_start_frames(tmp_path / name, config)


def test_what_does_not_fit_the_world_is_refused(tmp_path, config, starts):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_start_frames(tmp_path / "nowhere", config)
    with pytest.raises(ValueError, match="8x8"):
        read_start_frames(make_shards(tmp_path / "small", [4], size=8), config)
    config.dynamics_config.action_dim = 3
    with pytest.raises(ValueError, match="width 2"):
        starts.check_fits(config)

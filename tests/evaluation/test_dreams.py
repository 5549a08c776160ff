"""What is dreamt, under which actions, and the data that are refused."""

import json
import shutil

import pytest
import torch

from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import check_data_fits, dream, encode_frames, held_out_clips
from dreamer_hf.evaluation.dreams import relative_components
from tiny import random_world


@pytest.fixture(scope="module")
def world():
    return random_world()


@pytest.fixture(scope="module")
def data(tiny_shards):
    return ShardDataset(tiny_shards, None, split="all")


def test_clips_are_the_beginnings_of_episodes_that_are_long_enough(world, data):
    frames, clips = held_out_clips(world, data, num_given=4, num_dreamt=26, num_episodes=3)
    long_enough = [position for position, length in enumerate(data.episode_lengths) if length >= 30][:3]
    assert frames.shape == (3, 30, 3, 32, 32) and clips.num_given == 4
    for row, position in enumerate(long_enough):
        item = data.window(position, 0, 30)
        assert torch.equal(frames[row], item["pixel_values_videos"])
        assert torch.equal(clips.actions[row], item["actions"]) and torch.equal(
            clips.action_mask[row], item["action_mask"]
        )
    assert torch.equal(clips.latents, encode_frames(world.tokenizer, frames))
    with pytest.raises(ValueError, match="no held-out episode has 80 frames, the longest has 40"):
        held_out_clips(world, data, num_given=40, num_dreamt=40, num_episodes=1)


def test_a_dream_is_what_generate_gives_and_actions_steer_it(world, data):
    frames, clips = held_out_clips(world, data, num_given=4, num_dreamt=6, num_episodes=3)
    counted = []
    latents = dream(world.dynamics, clips, torch.Generator().manual_seed(5), lambda: counted.append(1))
    expected = world.generate(
        frames[:, :4], clips.actions, clips.action_mask, generator=torch.Generator().manual_seed(5)
    )
    assert len(counted) == 6
    torch.testing.assert_close(latents, expected.latents, atol=1e-4, rtol=1e-4)
    misled = dream(world.dynamics, clips.with_actions_of_others(), torch.Generator().manual_seed(5))
    assert not torch.allclose(latents, misled)


def test_wrong_actions_are_those_of_another_episode_and_begin_after_the_given_frames(world, data):
    _, clips = held_out_clips(world, data, num_given=4, num_dreamt=6, num_episodes=3)
    others = clips.with_actions_of_others()
    assert torch.equal(others.actions[:, :4], clips.actions[:, :4]) and torch.equal(others.latents, clips.latents)
    for row, other in ((0, 1), (1, 2), (2, 0)):
        assert torch.equal(others.actions[row, 4:], clips.actions[other, 4:])
        assert not torch.equal(others.actions[row, 4:].sum(0), clips.actions[row, 4:].sum(0))


def test_zeroed_actions_change_nothing(world, data):
    _, clips = held_out_clips(world, data, num_given=4, num_dreamt=6, num_episodes=2)
    still = clips.with_actions_zeroed(torch.tensor([True, False]))
    assert (still.actions[:, 4:, 0] == 0).all(), "a relative component: no change"
    last = clips.actions[:, 3:4, 1].expand(-1, 6)
    assert torch.equal(still.actions[:, 4:, 1], last), "an absolute component stays where it is"
    assert torch.equal(still.actions[:, :4], clips.actions[:, :4])


def changed_metadata(folder, tmp_path, **changes):
    copy = tmp_path / "changed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    metadata = json.loads((copy / "metadata.json").read_text())
    del metadata["checksum"]  # as in folders of other writers
    (copy / "metadata.json").write_text(json.dumps(metadata | changes))
    return ShardDataset(copy, None, split="all")


def test_relative_components_are_those_that_the_conversion_made_so(tiny_shards, tmp_path):
    assert relative_components(ShardDataset(tiny_shards, None, split="all")).tolist() == [False, False]
    data = changed_metadata(tiny_shards, tmp_path, relative_actions=True, conversion={"absolute_action_dims": [1]})
    assert relative_components(data).tolist() == [True, False]


def test_data_that_does_not_fit_is_refused_with_both_values(tiny_shards, data, tmp_path):
    for world, words in (
        (random_world(image_size=16), r"image size \(16, 16\) but the data has \(32, 32\)"),
        (random_world(action_dim=3), "action width 3 but the data has 2"),
        (random_world(fps=5), "frame rate 5.0 but the data has 10.0"),
        (random_world(action_offset=0), "action_offset 0 but the data has 1"),
    ):
        with pytest.raises(ValueError, match=words):
            check_data_fits(world, data)
    shifted = changed_metadata(tiny_shards, tmp_path, action_offset=1)
    with pytest.raises(ValueError, match="action_offset 1 but the data has 2"):
        check_data_fits(random_world(), shifted)

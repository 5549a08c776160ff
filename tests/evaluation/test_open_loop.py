"""Which frames are dreamed, under which actions; and data that do not fit, or that differ from the world's."""

import json
import shutil

import pytest
import torch

from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation.data_checks import action_warnings, check_data_fits
from dreamer_hf.evaluation.evaluation_options import Protocol
from dreamer_hf.evaluation.open_loop import dream_clips, encode_frames, held_out_clips
from tiny import random_world


@pytest.fixture(scope="module")
def world():
    return random_world()


@pytest.fixture(scope="module")
def data(tiny_shards):
    return ShardDataset(tiny_shards, None, split="all")


def test_clips_are_the_first_frames_of_episodes_that_are_long_enough(world, data):
    frames, clips = held_out_clips(world.tokenizer, data, 4, 26, count=3)
    long_enough = [position for position, length in enumerate(data.episode_lengths) if length >= 30][:3]
    assert frames.shape == (3, 30, 3, 32, 32) and clips.num_context_frames == 4
    for row, position in enumerate(long_enough):
        item = data.window(position, 0, 30)
        assert torch.equal(frames[row], item["pixel_values_videos"])
        assert torch.equal(clips.actions[row], item["actions"]) and torch.equal(
            clips.action_mask[row], item["action_mask"]
        )
    assert torch.equal(clips.latents, encode_frames(world.tokenizer, frames))
    with pytest.raises(ValueError, match="no held-out episode has 80 frames, the longest has 40"):
        held_out_clips(world.tokenizer, data, 40, 40, count=1)


def test_a_dream_is_what_generate_gives_and_actions_steer_it(world, data):
    frames, clips = held_out_clips(world.tokenizer, data, 4, 6, count=3)
    counted = []
    latents = dream_clips(world.dynamics, clips, torch.Generator().manual_seed(5), lambda: counted.append(1)).latents
    expected = world.generate(
        frames[:, :4], clips.actions, clips.action_mask, generator=torch.Generator().manual_seed(5)
    )
    assert len(counted) == 6
    torch.testing.assert_close(latents, expected.latents, atol=1e-4, rtol=1e-4)
    misled = dream_clips(world.dynamics, clips.with_other_actions(), torch.Generator().manual_seed(5)).latents
    assert not torch.allclose(latents, misled)


def test_wrong_actions_are_those_of_another_episode_and_follow_the_context_frames(world, data):
    _, clips = held_out_clips(world.tokenizer, data, 4, 6, count=3)
    others = clips.with_other_actions()
    assert torch.equal(others.actions[:, :4], clips.actions[:, :4]) and torch.equal(others.latents, clips.latents)
    for row, other in ((0, 1), (1, 2), (2, 0)):
        assert torch.equal(others.actions[row, 4:], clips.actions[other, 4:])
        assert not torch.equal(others.actions[row, 4:].sum(0), clips.actions[row, 4:].sum(0))


def test_zeroed_actions_change_nothing(world, data):
    _, clips = held_out_clips(world.tokenizer, data, 4, 6, count=2)
    still = clips.with_zeroed_actions(torch.tensor([True, False]))
    assert (still.actions[:, 4:, 0] == 0).all(), "a relative component: no change"
    last = clips.actions[:, 3:4, 1].expand(-1, 6)
    assert torch.equal(still.actions[:, 4:, 1], last), "an absolute component keeps its value"
    assert torch.equal(still.actions[:, :4], clips.actions[:, :4])


def changed_metadata(folder, tmp_path, **changes):
    copy = tmp_path / "changed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    metadata = json.loads((copy / "metadata.json").read_text())
    del metadata["checksum"]  # as in folders of other writers
    (copy / "metadata.json").write_text(json.dumps(metadata | changes))
    return ShardDataset(copy, None, split="all")


def test_data_that_does_not_fit_is_refused_with_both_values(tiny_shards, data, tmp_path):
    for world, words in (
        (random_world(image_size=16), r"image size \(16, 16\) but the data has \(32, 32\)"),
        (random_world(action_dim=3), "action width 3 but the data has 2"),
        (random_world(fps=5), "frame rate 5.0 but the data has 10.0"),
        (random_world(action_offset=0), "action_offset 0 but the data has 1"),
    ):
        with pytest.raises(ValueError, match=words):
            check_data_fits(world.config, data)
    with pytest.raises(ValueError, match=r"expected 0 .* for 'action_offset', got 1"):
        changed_metadata(tiny_shards, tmp_path, action_offset=1)
    both = random_world(fps=5, action_offset=0)
    with pytest.raises(
        ValueError, match=r"action_offset 0 but the data has 1, and frame rate 5.0 but the data has 10.0"
    ):
        check_data_fits(both.config, data)


def test_actions_with_another_meaning_are_noticed(data):
    stats = {name: data.action_stats[name] for name in ("mean", "std", "min", "max")}
    known = {"action_names": ["step_x", "step_y"], "action_stats": stats}
    assert action_warnings(random_world(**known).config.dynamics_config, data) == []
    stats = {"mean": [0.0, 0.0], "std": [12.0, stats["std"][1]]}
    config = random_world(action_names=["target_x", "target_y"], action_stats=stats).config.dynamics_config
    names, spread = action_warnings(config, data)
    assert names == "The actions of the data are named step_x, step_y, those of the world target_x, target_y."
    assert spread.startswith("The play is different: the data's 'target_x' is ") and spread.endswith(
        "the world's 0 ± 12."
    )
    assert action_warnings(random_world().config.dynamics_config, data) == [], "a world that knows nothing"


@pytest.mark.parametrize(
    ("lengths", "frames"), [([80, 20], 64), ([50, 60, 52], 44), ([50, 6, 7], 42), ([8, 5], 64), ([], 64)]
)
def test_short_episodes_are_dreamed_as_far_as_they_go(lengths, frames):
    assert Protocol().fit(lengths).num_dream_frames == frames

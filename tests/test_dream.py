"""The script that films dreams, and the data that it refuses."""

import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import check_data_fits, held_out_clips
from dreamer_hf.pictures import side_by_side

ROOT = Path(__file__).parents[1]


def random_world(image_size=32, **dynamics_fields):
    torch.manual_seed(0)
    common = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_latent_tokens": 2,
        "latent_dim": 4,
        "context_length": 4,
    }
    layers = {"num_encoder_layers": 4, "num_decoder_layers": 4}
    tokenizer = DreamerTokenizerConfig(image_size=image_size, patch_size=8, **layers, **common)
    dynamics = DreamerDynamicsConfig(num_hidden_layers=4, num_signal_levels=8, **common, **dynamics_fields)
    world = DreamerWorldModel(DreamerWorldConfig(tokenizer_config=tokenizer, dynamics_config=dynamics))
    for parameter in world.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return world.eval()


def test_data_that_does_not_fit_is_refused_with_both_values(tiny_shards):
    data = ShardDataset(tiny_shards, None, split="all")
    for world, words in (
        (random_world(image_size=16), r"image size \(16, 16\) but the data has \(32, 32\)"),
        (random_world(action_dim=3), "action width 3 but the data has 2"),
        (random_world(fps=5), "frame rate 5.0 but the data has 10.0"),
        (random_world(action_offset=0), "action_offset 0 but the data has 1"),
    ):
        with pytest.raises(ValueError, match=words):
            check_data_fits(world, data)
    with pytest.raises(ValueError, match="no held-out episode has 80 frames, the longest has 40"):
        held_out_clips(random_world(), data, num_given=40, num_dreamt=40, num_episodes=1)


def test_films_show_both_sides_and_say_what_was_given():
    real, dream = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    pictures = side_by_side({"real": real, "dream": dream}, num_context_frames=1, height=64)
    assert len(pictures) == 3 and pictures[0].shape == (64 + 16 + 28, 2 * (64 + 8) + 8, 3)
    assert (pictures[1][60, 40] == 0).all() and (pictures[1][60, 112] == 255).all()
    assert not (pictures[0] == pictures[1]).all(), "the titles differ while frames are given"


def test_the_script_films(tiny_shards, tmp_path):
    random_world(fps=10).save_pretrained(tmp_path / "world")
    command = [sys.executable, ROOT / "examples/dream.py", "--model", tmp_path / "world", "--data_dir", tiny_shards]
    command += ["--num_context_frames", "3", "--num_dreamt_frames", "16", "--output_dir", tmp_path / "dream"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "dream/dream.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 19
    assert Image.open(tmp_path / "dream/dream.gif").n_frames == 19
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "is not empty" in again.stderr and "Traceback" not in again.stderr

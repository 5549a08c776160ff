"""Dreams compared with reality, and the script that films them."""

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from dreamer_hf import DreamerDynamicsConfig, DreamerTokenizerConfig, DreamerWorldConfig, DreamerWorldModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.evaluation import check_data_fits, compare_dreams, psnr_by_step
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


def test_psnr_of_a_known_error():
    real = torch.rand(3, 2, 3, 4, 4) * 0.5
    frames = real.clone()
    frames[:, 0] += 0.1
    frames[0, 1] += 0.1
    assert psnr_by_step(frames, real).tolist() == pytest.approx(
        [20.0, 20 + 10 * torch.log10(torch.tensor(3.0)).item()], abs=1e-3
    )


def test_comparison_starts_and_steers_as_told(tiny_shards):
    world = random_world()
    data = ShardDataset(tiny_shards, None, split="all")
    comparison = compare_dreams(world, data, num_context_frames=4, num_dreamt_frames=20, num_episodes=3)
    assert comparison.context.shape == (3, 4, 3, 32, 32) and comparison.real.shape == (3, 20, 3, 32, 32)
    item = data.window(0, 0, 24)
    assert torch.equal(comparison.real[0], item["pixel_values_videos"][4:].float() / 255)
    dreamt = world.generate(
        item["pixel_values_videos"][None, :4].float() / 255,
        item["actions"][None, 4:],
        item["actions"][None, :4],
        context_action_mask=item["action_mask"][None, :4],
        generator=torch.Generator().manual_seed(0),
    )
    assert dreamt.pixel_values_videos.shape == comparison.dreamt[:1].shape
    assert not torch.equal(comparison.dreamt, comparison.shuffled), "actions steer"
    curves = comparison.psnr_by_step()
    assert set(curves) == {"dream", "repeat the last frame", "actions shuffled", "tokenizer alone"}
    expected = psnr_by_step(comparison.context[:, -1:].expand_as(comparison.real), comparison.real)
    assert torch.equal(curves["repeat the last frame"], expected)


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
        compare_dreams(random_world(), data, num_context_frames=40, num_dreamt_frames=40)


def test_films_show_both_sides_and_say_what_was_given():
    real, dream = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    pictures = side_by_side({"real": real, "dream": dream}, num_context_frames=1, height=64)
    assert len(pictures) == 3 and pictures[0].shape == (64 + 16 + 28, 2 * (64 + 8) + 8, 3)
    assert (pictures[1][60, 40] == 0).all() and (pictures[1][60, 112] == 255).all()
    assert not (pictures[0] == pictures[1]).all(), "the titles differ while frames are given"


def test_the_script_films_and_measures(tiny_shards, tmp_path):
    random_world(fps=10).save_pretrained(tmp_path / "world")
    command = [sys.executable, ROOT / "examples/dream.py", "--model", tmp_path / "world", "--data_dir", tiny_shards]
    command += ["--num_context_frames", "3", "--num_dreamt_frames", "16", "--output_dir", tmp_path / "dream"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "repeat the last frame" in done.stdout and "actions shuffled" in done.stdout
    figures = json.loads((tmp_path / "dream/metrics.json").read_text())
    assert len(figures["dream"]) == 16 and figures["num_episodes"] == 1
    with av.open(str(tmp_path / "dream/dream.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 19
    assert Image.open(tmp_path / "dream/dream.gif").n_frames == 19
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and "is not empty" in again.stderr and "Traceback" not in again.stderr

"""Latents on disk in place of frames: the same windows, for the tokenizer that made them only."""

import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from commands import run_command
from dreamer_hf import DreamerTokenizerModel, DreamerWorldModel
from dreamer_hf.data import ShardDataset
from dreamer_hf.start_frames import load_start_frames
from dreamer_hf.training.latents import encode_shards
from tiny import EXAMPLES, train, write_moving_square


@pytest.fixture(scope="module")
def latent_dir(tmp_path_factory, data_dir, tokenizer_run):
    """What the script makes of the moving squares."""
    folder = tmp_path_factory.mktemp("latents") / "square"
    argv = ["--tokenizer", tokenizer_run, "--data_dir", data_dir, "--output_dir", folder]
    done = run_command(EXAMPLES / "encode_latents.py", *argv)
    assert done.returncode == 0, done.stderr
    return folder


def test_latent_windows_stand_for_the_same_frames(latent_dir, data_dir, tokenizer_run):
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    for split in ("train", "validation"):
        frames, latents = (ShardDataset(folder, 6, split=split) for folder in (data_dir, latent_dir))
        assert len(frames) == len(latents) and np.array_equal(frames.episode_ids, latents.episode_ids)
        assert (latents.fps, latents.action_names) == (frames.fps, frames.action_names)
        for index in (0, 7, len(frames) - 1):
            for key in ("actions", "action_mask"):
                assert torch.equal(frames[index][key], latents[index][key])
        episode = frames.episode(0)["pixel_values_videos"][None]
        expected = tokenizer.encode(episode).latents[0]
        torch.testing.assert_close(latents.episode(0)["latents"].float(), expected, atol=1e-3, rtol=0)


def test_dynamics_learn_from_latents_and_leave_a_world(latent_dir, configs, tokenizer_run, tmp_path):
    argv = ["--config", configs["dynamics"], "--data_dir", latent_dir, "--output_dir", tmp_path / "run"]
    train("dynamics", *argv, "--tokenizer", tokenizer_run)
    world, starts = DreamerWorldModel.from_pretrained(tmp_path / "run"), load_start_frames(tmp_path / "run")
    rollout = world.start_rollout(starts)
    assert rollout.step(torch.zeros(len(starts), 2)).pixel_values.shape == (len(starts), 3, 16, 16)


def test_latents_of_another_tokenizer_are_refused(latent_dir, configs, tokenizer_run, tmp_path):
    other = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    same = other.fingerprint()
    assert same == DreamerTokenizerModel.from_pretrained(tokenizer_run).fingerprint()
    with torch.no_grad():
        other.encoder.latent_proj.bias[0] += 1e-3
    assert other.fingerprint() != same
    other.save_pretrained(tmp_path / "other")
    argv = ["--config", configs["dynamics"], "--data_dir", latent_dir, "--output_dir", tmp_path / "run"]
    with pytest.raises(ValueError, match="were not made by the tokenizer"):
        train("dynamics", *argv, "--tokenizer", tmp_path / "other")
    with pytest.raises(ValueError, match="holds latents: give the folder of frames"):
        train("tokenizer", "--config", configs["tokenizer"], *argv[2:])
    assert not (tmp_path / "run").exists()


def test_an_interrupted_encoding_continues_with_the_missing_shards(latent_dir, data_dir, tokenizer_run, tmp_path):
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    folder = tmp_path / "latents"
    shutil.copytree(latent_dir, folder)
    for name in ("metadata.json", "index.npz"):
        (folder / name).unlink()
    before = (folder / "shard_0000.h5").stat().st_mtime_ns
    arguments = Accelerator(cpu=True), tokenizer, str(data_dir), folder
    with pytest.raises(FileExistsError, match="continue with --resume"):
        encode_shards(*arguments, resume=False)
    encode_shards(*arguments, resume=True)
    assert (folder / "shard_0000.h5").stat().st_mtime_ns == before, "a finished shard stays"
    assert len(ShardDataset(folder, 6)) == len(ShardDataset(data_dir, 6))
    with pytest.raises(FileExistsError, match="holds finished shards"):
        encode_shards(*arguments, resume=True)


def test_data_that_does_not_fit_is_refused(latent_dir, tokenizer_run, tmp_path):
    tokenizer = DreamerTokenizerModel.from_pretrained(tokenizer_run)
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ValueError, match="holds latents already"):
        encode_shards(accelerator, tokenizer, str(latent_dir), tmp_path / "a", resume=False)
    large = write_moving_square(tmp_path / "large", size=24)
    with pytest.raises(ValueError, match=r"frames of 16x16 pixels but .* has 24x24"):
        encode_shards(accelerator, tokenizer, str(large), tmp_path / "b", resume=False)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()

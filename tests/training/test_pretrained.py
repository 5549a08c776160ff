"""Runs that start from a saved model's weights."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamer_hf import DreamerTokenizerModel, DreamerWorldModel
from tiny import train


def test_a_tokenizer_starts_from_saved_weights(tmp_path, data_dir, configs, tokenizer_run):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--pretrained", tokenizer_run, "--max_train_steps", 1, "--learning_rate", 1e-9)
    before, after = (DreamerTokenizerModel.from_pretrained(path) for path in (tokenizer_run, tmp_path / "run"))
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, atol=1e-6, rtol=0)
    assert after.config.image_mean == before.config.image_mean


def test_a_frozen_encoder_keeps_its_latents(tmp_path, data_dir, configs, tokenizer_run):
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    train("tokenizer", *argv, "--pretrained", tokenizer_run, "--max_train_steps", 2, "--freeze_encoder")
    before, after = (DreamerTokenizerModel.from_pretrained(path) for path in (tokenizer_run, tmp_path / "run"))
    for name, weight in before.encoder.state_dict().items():
        assert torch.equal(after.encoder.state_dict()[name], weight)
    assert not torch.equal(after.decoder.pixel_head.weight, before.decoder.pixel_head.weight)


def test_both_parts_of_a_world_can_be_fine_tuned(tmp_path, data_dir, configs, dynamics_run):
    argv = ["--config", configs["dynamics"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    brief = ["--max_train_steps", 1, "--learning_rate", 1e-9]
    train("dynamics", *argv, "--tokenizer", dynamics_run, "--pretrained", dynamics_run, *brief)
    before, after = (DreamerWorldModel.from_pretrained(path).state_dict() for path in (dynamics_run, tmp_path / "run"))
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-6, rtol=0)


def test_another_size_or_another_model_is_refused(tmp_path, data_dir, configs, tokenizer_run, dynamics_run):
    argv = ["--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    with pytest.raises(ValueError, match="has latent_dim=4 but this run asks for 8: give --latent_dim 4"):
        train("tokenizer", "--config", configs["tokenizer"], *argv, "--pretrained", tokenizer_run, "--latent_dim", 8)
    dynamics = ["--config", configs["dynamics"], *argv, "--tokenizer", tokenizer_run]
    with pytest.raises(ValueError, match="has action_offset=1 but this run asks for 0: give --action_offset 1"):
        train("dynamics", *dynamics, "--pretrained", dynamics_run, "--action_offset", 0)
    with pytest.raises(ValueError, match="holds a dreamer_tokenizer, not a dynamics"):
        train("dynamics", *dynamics, "--pretrained", tokenizer_run)
    with pytest.raises(FileNotFoundError, match="there is no dynamics at"):
        train("dynamics", *dynamics, "--pretrained", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_changed_weights_are_refused(tmp_path, data_dir, configs, tokenizer_run):
    changed = tmp_path / "changed"
    shutil.copytree(tokenizer_run, changed, ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = load_file(changed / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, changed / "model.safetensors", {"format": "pt"})
    argv = ["--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", tmp_path / "run"]
    with pytest.raises(OSError, match="is not the file that was saved: copy or download the folder again"):
        train("tokenizer", *argv, "--pretrained", changed)
    dynamics = ["--config", configs["dynamics"], *argv[2:], "--tokenizer", changed]
    with pytest.raises(OSError, match="is not the file that was saved: copy or download the folder again"):
        train("dynamics", *dynamics)

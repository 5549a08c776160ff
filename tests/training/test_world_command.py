"""`dreamer train world`: both models in one command."""

import argparse
import json

import pytest

from dreamer_hf import DreamerWorldModel
from dreamer_hf.training.argument_parsing import ARGUMENTS_FILE
from dreamer_hf.training.world_run import main, read_options, world_arguments

TINY = ["--hidden_size", "16", "--num_attention_heads", "2", "--threads", "1", "--lpips_net", "none"]
TINY += ["--eval_windows", "2", "--per_device_batch_size", "2", "--dynamics.num_hidden_layers", "2"]


def arguments(tmp_path, data, *words, minutes=None, preset=None):
    options = argparse.Namespace(output_dir=str(tmp_path / "out"), minutes=minutes, preset=preset)
    return world_arguments(options, list(read_options(["--data_dir", str(data), *words])))


def test_options_go_where_they_belong(tmp_path, tiny_shards):
    words = ("--hidden_size", "64", "--dynamics.hidden_size", "32", "--tokenizer.seed=3", "--state_dropout", "0.2")
    both = arguments(tmp_path, tiny_shards, *words, minutes=10)
    tokenizer, dynamics = both["tokenizer"], both["dynamics"]
    assert (tokenizer.model.hidden_size, dynamics.model.hidden_size) == (64, 32)
    assert (tokenizer.run.seed, dynamics.run.seed) == (3, 0)
    assert dynamics.objective.state_dropout == 0.2
    assert (tokenizer.run.max_train_minutes, dynamics.run.max_train_minutes) == (4, 6)
    assert dynamics.objective.tokenizer == tokenizer.run.output_dir == str(tmp_path / "out/tokenizer")
    assert dynamics.run.output_dir == str(tmp_path / "out/world")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hiden_size", "8"], "tokenizer and dynamics model have no option 'hiden_size'"),
        (["--tokenizer.state_dropout", "0"], "`dreamer train tokenizer` has no option 'state_dropout'"),
        (["--tokenizer", "t"], "--tokenizer is set by `dreamer train world`"),
        (["--max_train_minutes", "3"], "--max_train_minutes is set by"),
        (["--config", "mine.yaml"], "give it as --tokenizer.config or --dynamics.config"),
        (["--resume_from_checkpoint", "out/checkpoint-2"], "--resume_from_checkpoint latest only"),
        (["--dynamics.sequence_length", "1"], "--sequence_length of at least 2, got 1"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(tmp_path, tiny_shards, words, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, tiny_shards, *words)
    with pytest.raises(ValueError, match="above 0 for --minutes, got 0"):
        arguments(tmp_path, tiny_shards, minutes=0)
    with pytest.raises(ValueError, match="expected an option, got 'auto'"):
        list(read_options(["auto"]))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_both_models_are_trained_and_a_finished_tokenizer_stays(tmp_path, tiny_shards, capsys):
    words = ["--data_dir", str(tiny_shards), "--output_dir", str(tmp_path / "out"), "--minutes", "1"]
    main([*words, *TINY, "--max_train_steps", "2"])
    printed = capsys.readouterr().out
    assert "--preset auto for the tokenizer" in printed and "--preset auto for the dynamics" in printed
    world = DreamerWorldModel.from_pretrained(tmp_path / "out/world")
    assert world.config.tokenizer_config.num_latent_tokens == 12
    weights = (tmp_path / "out/tokenizer/model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="continue with --resume_from_checkpoint latest"):
        main([*words, *TINY])
    main([*words[:4], "--resume_from_checkpoint", "latest", "--max_train_steps", "3"])
    assert "is finished and stays" in capsys.readouterr().out
    assert (tmp_path / "out/tokenizer/model.safetensors").read_bytes() == weights
    saved = json.loads((tmp_path / "out/world" / ARGUMENTS_FILE).read_text())
    assert (saved["preset"], saved["max_train_minutes"], saved["max_train_steps"]) == ("auto", 0.6, 3)

"""Worlds that are adapted: LoRA, a new action encoder, frozen parts; and episodes that break a run."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from commands import run_command
from dreamer_hf import DreamerDynamicsConfig, DreamerDynamicsModel, DreamerWorldModel
from dreamer_hf.adapters import add_lora, load_adapter, replace_action_encoder, save_adapter
from dreamer_hf.data import ShardDataset
from dreamer_hf.data.shard_writer import write_shard
from dreamer_hf.data.shards import LATENTS, METADATA_NAME, ShardMetadata, shard_name
from dreamer_hf.loading import load_world_and_starts
from dreamer_hf.options import WorldOptions
from dreamer_hf.training.finetune import TOKENIZER, load_model
from dreamer_hf.training.latents import encode_shards
from tiny import EXAMPLES, arguments_of, loss_curve, read_metrics, train, write_moving_square

LORA = ["--lora_rank", 2, "--learning_rate", 1e-2]


@pytest.fixture(scope="module")
def adapt(configs, data_dir, dynamics_run):
    """Trains what the keys ask for of the dynamics run's world, and returns the folder."""

    def run(folder, *argv):
        keys = ["--config", configs["dynamics"], "--data_dir", data_dir, "--pretrained", dynamics_run]
        train("dynamics", *keys, "--output_dir", folder, *argv)
        return folder

    return run


@pytest.fixture(scope="module")
def lora_run(adapt, tmp_path_factory):
    return adapt(tmp_path_factory.mktemp("runs") / "lora", *LORA)


@pytest.fixture(scope="module")
def wide_data(tmp_path_factory):
    """The same episodes with a third action component, which means nothing."""
    folder = write_moving_square(tmp_path_factory.mktemp("data") / "wide")
    with h5py.File(folder / shard_name(0), "r+") as file:
        actions = file["actions"][:]
        del file["actions"]
        file["actions"] = np.concatenate([actions, actions[..., :1]], axis=-1)
    metadata = json.loads((folder / METADATA_NAME).read_text())
    metadata = {key: value for key, value in metadata.items() if key != "checksum"} | {"action_shape": [3]}
    metadata |= {"action_names": ["dy", "dx", "grip"], "action_units": ["px", "px", ""]}
    metadata["action_stats"] = {k: [*v, 1.0] for k, v in metadata["action_stats"].items() if k != "count"}
    (folder / METADATA_NAME).write_text(json.dumps(metadata))
    return folder


def dream(world, width=2):
    frames = torch.rand((1, 3, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return world.eval().generate(frames, torch.ones(1, 5, width), generator=torch.Generator().manual_seed(0)).latents


def test_only_adapters_are_trained_checkpointed_and_saved(lora_run, dynamics_run):
    names = {path.name for path in lora_run.iterdir() if path.is_file()}
    assert {"adapter_model.safetensors", "adapter_config.json", "start_frames.safetensors"} <= names
    assert "model.safetensors" not in names and "config.json" not in names
    layers = 4
    assert len(load_file(lora_run / "adapter_model.safetensors")) == layers * 4 * 2
    assert all("lora_" in name for name in load_file(lora_run / "checkpoint-6" / "model.safetensors"))
    written = (lora_run / "adapter_config.json").read_text()
    assert json.loads(written)["lora_alpha"] == 4 and str(dynamics_run.parent) not in written
    for factor in load_file(lora_run / "adapter_model.safetensors").values():
        assert factor.abs().max() > 0, "one factor starts at zero: every layer must have learned"


def test_transformers_own_load_adapter_gives_what_was_evaluated(lora_run, dynamics_run):
    by_transformers, by_us = (DreamerWorldModel.from_pretrained(dynamics_run) for _ in range(2))
    before = dream(by_us)
    by_transformers.dynamics.load_adapter(str(lora_run))
    load_adapter(by_us, lora_run)
    torch.testing.assert_close(dream(by_transformers), dream(by_us), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(dream(by_us), before, atol=1e-3)
    by_us.dynamics.disable_adapters()
    torch.testing.assert_close(dream(by_us), before, atol=1e-6, rtol=1e-5)


def test_the_adapter_has_a_card_whose_code_works(lora_run, dynamics_run, monkeypatch):
    card = ModelCard.load(lora_run / "README.md")
    assert card.data.library_name == "peft" and {"dreamer_hf", "adapter"} <= set(card.data.tags)
    assert card.data.base_model is None, "the world's folder is not a repository"
    count = sum(factor.numel() for factor in load_file(lora_run / "adapter_model.safetensors").values())
    assert f"| parameters of the adapter | {count:,} |" in card.text and "| rank | 2 |" in card.text
    assert "Trained on 5 episodes" in card.text and "| dy [px] |" in card.text
    last = {name: value for line in read_metrics(lora_run) for name, value in line.items() if name.startswith("eval_")}
    assert last and all(f"{value:.4g} |" in card.text for value in last.values())
    assert "(preview.gif)" in card.text and (lora_run / "preview.gif").is_file()
    assert str(dynamics_run.parent) not in card.content and f"the world `{dynamics_run.name}`" in card.text
    monkeypatch.chdir(lora_run)
    code, names = re.search(r"```python\n(.*?)```", card.text, re.DOTALL).group(1), {}
    exec(code.replace(f'"{dynamics_run.name}"', f'"{dynamics_run}"'), names)
    assert names["frame"].shape == (1, 3, 16, 16)


def test_a_resumed_adapter_has_the_same_losses_bit_for_bit(adapt, lora_run, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("training_arguments.json", "metrics.jsonl"):
        shutil.copy(lora_run / name, copy / name)
    shutil.copytree(lora_run / "checkpoint-6", copy / "checkpoint-6")
    with pytest.raises(ValueError, match="was trained with lora_rank=2, not 3"):
        adapt(copy, "--lora_rank", 3, "--resume_from_checkpoint", "latest")
    adapt(copy, *LORA, "--resume_from_checkpoint", "latest")
    assert loss_curve(copy) == loss_curve(lora_run)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (copy, lora_run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_gradient_checkpointing_trains_the_same_adapter(adapt, lora_run, tmp_path):
    adapt(tmp_path / "run", *LORA, "--gradient_checkpointing", "--max_train_steps", 2)
    expected = [line["loss"] for line in read_metrics(lora_run)[:2]]
    assert [line["loss"] for line in read_metrics(tmp_path / "run")] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["--lora_rank", 2]], ids=["whole", "lora"])
def test_a_world_learns_actions_of_another_width(adapt, wide_data, dynamics_run, tmp_path, extra):
    folder = adapt(tmp_path / "run", "--data_dir", wide_data, "--reset_action_embedding", *extra)
    world = DreamerWorldModel.from_pretrained(dynamics_run if extra else folder)
    if extra:
        load_adapter(world, folder)
    config = world.config.dynamics_config
    assert (config.action_dim, config.action_names, config.fps) == (3, ["dy", "dx", "grip"], 10.0)
    assert config.action_stats["std"] == pytest.approx([1.4, 1.4, 1.0])
    before = DreamerWorldModel.from_pretrained(dynamics_run).dynamics.action_encoder
    encoder = world.dynamics.action_encoder
    encoder = encoder.modules_to_save["default"] if extra else encoder
    assert encoder.action_proj.weight.shape[1] == 3 and before.action_proj.weight.shape[1] == 2
    assert encoder.action_std.tolist() == pytest.approx([1.4, 1.4, 1.0])
    model, adapter = (str(dynamics_run), str(folder)) if extra else (str(folder), None)
    played, starts = load_world_and_starts(WorldOptions(model, adapter=adapter, device="cpu"))
    assert starts.actions.shape[-1] == 3 and torch.equal(dream(played, 3), dream(world, 3))


def test_a_new_action_encoder_leaves_frames_without_actions_as_they_were(dynamics_run):
    world = DreamerWorldModel.from_pretrained(dynamics_run, dtype=torch.bfloat16)
    latents, ids = torch.randn(1, 3, 4, 4), torch.zeros(1, 3, dtype=torch.long)
    with torch.no_grad():
        before = world.dynamics(latents, ids, ids).latents
        replace_action_encoder(world.dynamics, {"action_dim": 7, "action_num_classes": [0] * 5 + [3, 2]})
        assert torch.equal(world.dynamics(latents, ids, ids).latents, before)
    assert {parameter.dtype for parameter in world.dynamics.parameters()} == {torch.bfloat16}
    assert world.dynamics.config.action_names is None and world.dynamics.config.action_stats is None


def test_frozen_parts_stay(adapt, dynamics_run, tmp_path):
    folder = adapt(tmp_path / "run", "--freeze", "space", "latents", "control", "--max_train_steps", 2)
    before, after = (DreamerWorldModel.from_pretrained(path).dynamics for path in (dynamics_run, folder))
    changed = {
        name.split(".layers.")[-1].split(".")[0]
        for (name, weight), (_, old) in zip(after.named_parameters(), before.named_parameters())
        if not torch.equal(weight, old)
    }
    assert changed == {"3", "action_encoder"}  # the time layer of four


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_rank": 2}, "--lora_rank changes a saved model: give that model as --pretrained"),
        ({"pretrained": "w", "lora_rank": 0}, "expected a number above 0 for --lora_rank, got 0"),
        ({"pretrained": "w", "lora_alpha": 4}, "give --lora_rank as well"),
        ({"pretrained": "w", "lora_rank": 2, "ema_decay": 0.9}, "--ema_decay has no effect with --lora_rank"),
        ({"pretrained": "w", "freeze": ["head"]}, "expected some of space, time, .* for --freeze, got 'head'"),
        ({"pretrained": "w", "freeze": ["space", "time", "latents", "actions", "control"]}, "leaves nothing to train"),
    ],
)
def test_impossible_adaptations_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        arguments_of("dynamics", **keys)


def test_adapters_that_do_not_fit_are_refused(dynamics_run, lora_run, tmp_path):
    world = DreamerWorldModel.from_pretrained(dynamics_run)
    with pytest.raises(ValueError, match=r"cannot load an adapter from '.*nowhere'"):
        load_adapter(world, tmp_path / "nowhere")
    wide = DreamerWorldModel.from_pretrained(dynamics_run).dynamics.config
    wide.update({"hidden_size": 32, "intermediate_size": 40})
    other = type(world.dynamics)(wide)
    add_lora(other, 2, 4, "other")
    save_adapter(other, tmp_path / "other", other.state_dict())
    with pytest.raises(ValueError, match="adapter"):
        load_adapter(world, tmp_path / "other")


@pytest.mark.slow
def test_the_dream_script_takes_an_adapter(dynamics_run, lora_run, data_dir, tmp_path):
    argv = ["--model", dynamics_run, "--adapter", lora_run, "--data_dir", data_dir, "--output_dir", tmp_path / "dream"]
    argv += ["--num_context_frames", 4, "--num_dream_frames", 2]
    result = run_command(EXAMPLES / "dream.py", *argv)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "dream" / "dream.mp4").exists()


@pytest.mark.slow
def test_nan_names_the_episode_and_the_last_good_checkpoint(adapt, data_dir, dynamics_run, tmp_path):
    data, folder = ShardDataset(data_dir, 6), tmp_path / "latents"
    encode_shards(Accelerator(), load_model(str(dynamics_run), TOKENIZER).eval(), str(data_dir), folder, resume=False)
    argv = ["--data_dir", folder, "--per_device_batch_size", 1, "--checkpointing_steps", 1, "--num_start_frames", 1]
    adapt(tmp_path / "run", *argv, "--max_train_steps", 1)
    broken = int(data.episode_ids[1])
    whole = ShardDataset(folder, None, split="all", action_offset=0)
    with write_shard(tmp_path / "broken.h5", data.action_dim, kind=LATENTS) as shard:
        for position, source in enumerate(whole.source_episodes):
            episode = whole.episode(position)
            shard.begin_episode(int(source))
            for frame in episode["latents"].numpy():
                shard.add_frame(frame * (np.nan if position == broken else 1))
            shard.end_episode(episode["actions"].numpy())
    (tmp_path / "broken.h5").replace(folder / shard_name(0))
    with pytest.raises(ValueError, match="is not a finite number at step") as caught:
        adapt(tmp_path / "run", *argv, "--max_train_steps", 60, "--resume_from_checkpoint", "latest")
    step = int(re.search(r"at step (\d+)", str(caught.value)).group(1))
    assert f"on the episodes {broken} (as the shards count them)" in str(caught.value)
    assert f"the last good checkpoint is {tmp_path}/run/checkpoint-{step - 1}:" in str(caught.value)


@pytest.mark.slow
def test_nearly_constant_actions_of_old_shards_are_not_blown_up(tmp_path, configs, tokenizer_run):
    """Older versions and other writers stored standard deviations as computed; saved models keep theirs."""
    rng = np.random.default_rng(0)
    actions = [np.stack([rng.uniform(-2, 2, 20), 1 + 1e-7 * rng.standard_normal(20)], 1) for _ in range(6)]
    actions = [values.astype(np.float32) for values in actions]
    (tmp_path / "data").mkdir()
    with write_shard(tmp_path / "data" / shard_name(0), action_dim=2) as shard:
        for episode, values in enumerate(actions):
            shard.begin_episode(episode)
            for _ in values:
                shard.add_frame(rng.integers(0, 256, (16, 16, 3), np.uint8))
            shard.end_episode(values)
    every = np.concatenate(actions).astype(np.float64)
    stats = {"mean": every.mean(0).tolist(), "std": every.std(0).tolist()}
    assert 0 < stats["std"][1] < 1e-6
    ShardMetadata(1, 6, (16, 16, 3), (2,), fps=10.0, color_order="rgb", action_stats=stats).write(tmp_path / "data")
    argv = ["--config", configs["dynamics"], "--data_dir", tmp_path / "data", "--tokenizer", tokenizer_run]
    train("dynamics", *argv, "--output_dir", tmp_path / "run", "--max_train_steps", 1)
    encoder = DreamerWorldModel.from_pretrained(tmp_path / "run").dynamics.action_encoder
    normalized = (torch.from_numpy(np.concatenate(actions)) - encoder.action_mean) / encoder.action_std
    assert normalized[:, 0].std().item() == pytest.approx(1, abs=0.05) and normalized[:, 1].abs().max() < 1e-6
    saved = DreamerDynamicsConfig(action_stats=stats)
    assert DreamerDynamicsModel(saved).action_encoder.action_std[1].item() == pytest.approx(stats["std"][1])

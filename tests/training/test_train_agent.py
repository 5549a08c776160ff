"""Training an agent on labeled episodes of the moving square, with the scripts' own code at tiny size."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel

from dreamer_hf.data.labels import Labels, data_fingerprint, label_path, write_labels
from dreamer_hf.data.shard_dataset import ShardDataset
from tiny import arguments_of, loss_curve, read_metrics, tiny_world, train, write_moving_square

LENGTH = 20
OPTIONS = """
sequence_length: 8
per_device_batch_size: 4
num_action_bins: 5
joint_action_bins: true
num_predicted_steps: 3
value_range: 5
lr_warmup_steps: 2
max_train_steps: 6
logging_steps: 1
checkpointing_steps: 3
eval_steps: 4
eval_windows: 4
cache_latents: true
lpips_net: none
threads: 1
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder with data, labels of two tasks, a random world, and options."""
    folder = tmp_path_factory.mktemp("agent")
    data = write_moving_square(folder / "data")
    label(data)
    stats = {"mean": [0.0, 0.0], "std": [1.4, 1.4], "min": [-2.0, -2.0], "max": [2.0, 2.0]}
    small = {"num_latent_tokens": 4, "latent_dim": 4, "context_length": 4}
    dynamics = small | {"num_hidden_layers": 4, "action_stats": stats, "fps": 10.0, "num_signal_levels": 8}
    tiny_world(small, dynamics).save_pretrained(folder / "world")
    (folder / "options.yaml").write_text(OPTIONS)
    return folder


def label(data, name="rewards", rewards=None, names=("left", "up")):
    """Label the episodes: how bright the left and the upper half of each frame are."""
    dataset = ShardDataset(data, None, split="all")
    if rewards is None:
        frames = [dataset.episode(i)["pixel_values_videos"].float() / 255 for i in range(dataset.num_episodes)]
        rewards = [
            torch.stack([f[..., :8].mean((1, 2, 3)), f[..., :8, :].mean((1, 2, 3))], -1).numpy() for f in frames
        ]
    successes = [values > 0.3 for values in rewards]
    labels = Labels(names, [values.astype(np.float32) for values in rewards], successes)
    write_labels(label_path(data, name), labels, data_fingerprint(dataset))


def run(chain, output, *argv):
    fixed = ("--config", chain / "options.yaml", "--data_dir", chain / "data", "--pretrained", chain / "world")
    train("agent", *fixed, "--output_dir", output, *argv)
    return output


def parameters(folder):
    return AutoModel.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def finetuned(chain):
    return run(chain, chain / "finetuned", "--context_copies", 1, "--own_context_fraction", 0.5)


def test_the_agent_and_its_world_are_trained_and_saved(chain, finetuned):
    before, after = parameters(chain / "world"), parameters(finetuned)
    assert not torch.equal(before["dynamics.latent_head.weight"], after["world.dynamics.latent_head.weight"])
    tokenizer = [name for name in before if name.startswith("tokenizer.")]
    assert tokenizer and all(torch.equal(before[name], after[f"world.{name}"]) for name in tokenizer)
    policy = {name: value for name, value in after.items() if name.startswith("policy_head.")}
    assert policy and all(torch.equal(value, after[name.replace("policy", "prior")]) for name, value in policy.items())
    config = json.loads((finetuned / "config.json").read_text())
    assert config["task_names"] == ["left", "up"] and (finetuned / "start_frames.safetensors").exists()
    gate = json.loads((finetuned / "reward_gate.json").read_text())["reward_correlation"]
    assert set(gate) == {"left", "up"} and "4" in gate["left"]
    assert "let it act" in (finetuned / "README.md").read_text()


def test_metrics_name_the_floor_and_the_correlations(finetuned):
    last = read_metrics(finetuned)[-1]
    assert {"shortcut", "policy", "reward", "eval_flow_loss"} <= set(last)
    assert {"eval_policy_nll_1", "eval_policy_floor_1", "eval_reward_correlation_4"} <= set(last)
    assert last["policy"] == pytest.approx(np.log(25), rel=0.1)
    assert last["reward"] <= np.log(255) + 0.1


def test_a_frozen_world_stays_unchanged_and_resumes_to_the_same_losses(chain):
    options = ("--freeze_world", "true", "--cache_world", "true")
    whole = run(chain, chain / "frozen", *options)
    before, after = parameters(chain / "world"), parameters(whole)
    assert all(torch.equal(value, after[f"world.{name}"]) for name, value in before.items())
    assert after["agent_tokens.base"].ne(0).any()
    shorter = chain / "resumed"
    shutil.copytree(whole, shorter)
    shutil.rmtree(shorter / "checkpoint-6")
    train("agent", "--output_dir", shorter, "--resume_from_checkpoint", "latest")
    assert loss_curve(shorter) == loss_curve(whole)


def test_without_a_cache_the_frozen_world_gives_the_same_kind_of_run(chain):
    folder = run(chain, chain / "uncached", "--freeze_world", "true", "--max_train_steps", 2)
    assert set(read_metrics(folder)[-1]) >= {"policy", "reward"} and "shortcut" not in read_metrics(folder)[-1]


def test_rewards_that_never_vary_are_refused(chain):
    dataset = ShardDataset(chain / "data", None, split="all")
    label(chain / "data", "flat", [np.ones((int(n), 2)) for n in dataset.episode_lengths])
    with pytest.raises(ValueError, match="is 1 in every frame, so there is nothing to learn"):
        run(chain, chain / "flat", "--labels", "flat")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--labels", "missing"), "make it with dreamer label"),
        (("--tasks", "down"), "the labels do not know the task 'down'"),
        (("--cache_world", "true"), "give --freeze_world as well"),
        (("--freeze_world", "true", "--context_copies", 1), "leave one of them out"),
        (("--lora_rank", 4), "dreamer train dynamics first"),
    ],
)
def test_bad_options_are_refused(chain, argv, message):
    with pytest.raises((ValueError, OSError), match=message):
        run(chain, chain / "bad", *argv)


def test_labels_of_other_data_are_refused(chain, tmp_path):
    other = write_moving_square(tmp_path / "other", episodes=7)
    label(other)
    path = label_path(other, "rewards")
    with pytest.raises(ValueError, match="belongs to other episodes"):
        run(chain, tmp_path / "out", "--labels", path)


def test_a_world_is_required(chain):
    with pytest.raises(ValueError, match="give the world that the agent is to act in"):
        arguments_of("agent", data_dir=str(chain / "data"))


def test_actions_that_the_world_does_not_know_are_refused(chain, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(chain / "world", world)
    config = json.loads((world / "config.json").read_text())
    config["dynamics_config"]["action_stats"] |= {"min": [-0.5, -0.5], "max": [0.5, 0.5]}
    (world / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="4 times as far from the middle as the world knows"):
        run(chain, tmp_path / "out", "--pretrained", world)

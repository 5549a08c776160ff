"""Training in dreams, with the scripts' own code at tiny size."""

import json
import shutil

import pytest
import torch
from test_train_agent import chain, label, parameters, run  # noqa: F401  (a fixture)

from dreamer_hf import DreamerAgentModel
from dreamer_hf.training.dream_evaluation import PriorSupport
from tiny import arguments_of, loss_curve, read_metrics, shake, train

OPTIONS = """
sequence_length: 4
per_device_batch_size: 4
horizon: 3
num_inference_steps: 1
value_warmup_steps: 2
lr_warmup_steps: 1
learning_rate: 1e-2
max_train_steps: 8
logging_steps: 1
checkpointing_steps: 4
eval_steps: 4
eval_windows: 4
min_gate_correlation: 0
threads: 1
"""


@pytest.fixture(scope="module")
def agent(chain):  # noqa: F811
    """The folder of an agent that was trained for a few steps, and whose rewards tell dreams apart."""
    (chain / "dreams.yaml").write_text(OPTIONS)
    short = ("--max_train_steps", 2, "--eval_steps", 0, "--checkpointing_steps", 0)
    folder = run(chain, chain / "agent", "--freeze_world", "true", "--cache_world", "true", *short)
    trained = DreamerAgentModel.from_pretrained(folder)
    shake(trained.reward_head)
    trained.save_pretrained(folder)
    return folder


def dream_run(agent, output, *argv):
    chain = agent.parent  # noqa: F811
    fixed = ("--config", chain / "dreams.yaml", "--data_dir", chain / "data", "--pretrained", agent)
    train("dreams", *fixed, "--output_dir", output, *argv)
    return output


@pytest.fixture(scope="module")
def dreamed(agent):
    return dream_run(agent, agent.parent / "dreamed", "--discount", 0.9, "--updates_per_dream", 2)


def test_only_policy_and_value_change(agent, dreamed):
    before, after = parameters(agent), parameters(dreamed)
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"policy_head", "value_head"}
    assert json.loads((dreamed / "config.json").read_text())["discount"] == 0.9
    for name in ("start_frames.safetensors", "reward_gate.json", "preview.gif", "README.md"):
        assert (dreamed / name).exists()
    DreamerAgentModel.from_pretrained(dreamed)


def test_metrics_say_how_learning_goes(dreamed):
    lines = read_metrics(dreamed)
    assert {"good_share", "kl", "entropy", "imagined_return", "value_error", "policy", "value"} <= set(lines[0])
    assert {"eval_imagined_reward", "eval_imagined_reward_prior"} <= set(lines[-1])
    assert lines[0]["kl"] == 0 and lines[1]["policy"] == 0 and lines[-1]["kl"] > 0
    assert lines[0]["entropy"] == pytest.approx(lines[1]["entropy"])


def test_a_resumed_run_has_the_same_losses(agent, dreamed):
    folder = agent.parent / "resumed_dream"
    shutil.copytree(dreamed, folder)
    shutil.rmtree(folder / "checkpoint-8")
    train("dreams", "--output_dir", folder, "--resume_from_checkpoint", "latest")
    assert loss_curve(folder) == loss_curve(dreamed)
    resumed, whole = parameters(folder), parameters(dreamed)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_dreams_can_start_from_relevant_windows(agent):
    folder = dream_run(agent, agent.parent / "relevant", "--labels", "rewards", "--max_train_steps", 2)
    assert len(read_metrics(folder)) == 2


def test_rewards_that_do_not_fit_in_dreams_are_refused(agent):
    with pytest.raises(ValueError, match="correlate with the real ones by only"):
        dream_run(agent, agent.parent / "gate", "--min_gate_correlation", 0.999)


def test_an_agent_without_a_measured_gate_is_refused(agent):
    folder = agent.parent / "no_gate"
    shutil.copytree(agent, folder)
    (folder / "reward_gate.json").unlink()
    with pytest.raises(ValueError, match="does not say how well its rewards fit in dreams"):
        dream_run(folder, agent.parent / "gate", "--min_gate_correlation", 0.1)


def test_a_diverging_value_stops_the_run_and_keeps_the_checkpoint(agent, monkeypatch):
    monkeypatch.setattr("dreamer_hf.training.imagination_objective.DIVERGED", 0.0)  # Every value is too large.
    folder = agent.parent / "diverged"
    with pytest.raises(ValueError, match=r"the value diverged at step .*; the last good checkpoint is .*checkpoint-1"):
        dream_run(agent, folder, "--checkpointing_steps", 1)
    assert (folder / "checkpoint-1").is_dir() and not (folder / "config.json").exists()


def test_behavior_from_which_nothing_can_be_learned_is_refused():
    with pytest.raises(ValueError, match=r"all dreams of the cloned behavior earn the same, 0.300 per frame"):
        PriorSupport(0.3, 0.3).check()
    PriorSupport(0.3, 0.4).check()


def test_tasks_that_the_labels_do_not_know_are_refused(agent, chain):  # noqa: F811
    label(chain / "data", "other", names=("right", "down"))
    with pytest.raises(ValueError, match="the labels do not know the task 'left'"):
        dream_run(agent, agent.parent / "tasks", "--labels", "other")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ({}, "give the agent that dreamer train agent has made"),
        ({"pretrained": "a", "updates_per_dream": 3}, "to be a multiple of --updates_per_dream 3"),
        ({"pretrained": "a", "discount": 1.5}, "above 0 and below 1"),
        ({"pretrained": "a", "horizon": 0}, "a number above 0 for --horizon"),
    ],
)
def test_bad_options_are_refused(argv, message):
    with pytest.raises(ValueError, match=message):
        arguments_of("dreams", **argv)


def test_a_world_in_place_of_an_agent_is_refused(agent):
    with pytest.raises(ValueError, match="holds a dreamer_world, not an agent"):
        dream_run(agent, agent.parent / "world_given", "--pretrained", agent.parent / "world")

"""An agent as a LeRobot policy: written, loaded and run by LeRobot itself."""

import json
import os
import subprocess
import sys

import pytest
import torch

from dreamer_hf import SeededNoise
from dreamer_hf.cli.application import dreamer, invoke
from tiny import CAMERAS, rand, tiny_agent

pytest.importorskip("lerobot", reason="needs the extra lerobot")

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

import dreamer_hf.lerobot  # noqa: F401


@pytest.fixture(scope="module")
def agent_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    tiny_agent(num_tasks=2, task_names=["left", "right"]).save_pretrained(folder)
    return folder


def export(agent_folder, folder, *options):
    arguments = ["export", "lerobot-policy", "--agent", str(agent_folder), "--output_dir", str(folder), *options]
    invoke(dreamer, arguments, "dreamer")
    return folder


def load(folder, *overrides):
    """Load a policy as LeRobot's commands do."""
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=list(overrides))
    config.pretrained_path = folder
    return get_policy_class(config.type).from_pretrained(folder, config=config)


def observations(num_rows, steps, size=16):
    """Images in [0, 1] and positions, one batch for each step."""
    images = (rand(steps, num_rows, 3, size, size) * 255).round() / 255
    return [{"observation.image": image, "observation.state": torch.full((num_rows, 2), 200.0)} for image in images]


def test_the_policy_acts_as_the_agent_and_gives_positions(agent_folder, tmp_path):
    policy = load(export(agent_folder, tmp_path / "policy", "--task", "right"))
    agent = tiny_agent(num_tasks=2, task_names=["left", "right"])
    episode, action, targets = None, None, torch.full((2, 2), 200.0)
    for batch in observations(2, 4):
        frames = (batch["observation.image"] * 255).round().byte()
        with torch.inference_mode():  # as lerobot-eval does
            given = policy.select_action(batch)
        if episode is None:
            noise = [SeededNoise(0), SeededNoise(1)]
            episode = agent.start(frames[:, None], tasks="right", generator=noise, decode=False)
        else:
            episode.observe(frames, action)
        action = episode.act()
        targets = targets + action
        torch.testing.assert_close(given, targets)


def test_an_episode_ends_with_reset_and_its_noise_is_not_repeated(agent_folder, tmp_path):
    policy = load(export(agent_folder, tmp_path / "policy"))
    (batch,) = observations(3, 1)
    batch = {name: part[:1].expand(3, *part.shape[1:]) for name, part in batch.items()}
    rows = policy.select_action(batch)
    assert len(rows.unique(dim=0)) > 1, "every row draws its noise"
    policy.reset()
    assert not torch.equal(policy.select_action(batch), rows)
    again = load(tmp_path / "policy")
    assert torch.equal(again.select_action(batch), rows)
    fewer = {name: part[:2] for name, part in batch.items()}
    assert policy.select_action(fewer).shape == (2, 2)


def test_options_of_the_export_and_of_the_command_line(agent_folder, tmp_path):
    limits = ("--target_low", "195", "195", "--target_high", "205", "205")
    folder = export(agent_folder, tmp_path / "policy", "--deterministic", *limits)
    policy = load(folder)
    first = [policy.select_action(batch) for batch in observations(1, 5)]
    assert torch.stack(first).min() >= 195 and torch.stack(first).max() <= 205
    other = load(folder, "--task=right", "--gives_targets=false", "--seed=3")
    (batch,) = observations(1, 1)
    agent = tiny_agent(num_tasks=2)
    frames = (batch["observation.image"] * 255).round().byte()
    expected = agent.start(frames[:, None], tasks=1, generator=[SeededNoise(3)], decode=False).act(deterministic=True)
    torch.testing.assert_close(other.select_action(batch), expected)


def test_images_of_another_size_are_resized_and_processors_change_nothing(agent_folder, tmp_path):
    folder = export(agent_folder, tmp_path / "policy")
    policy = load(folder)
    before, after = make_pre_post_processors(policy.config, str(folder))
    (batch,) = observations(2, 1, size=48)
    seen = before(batch)
    torch.testing.assert_close(seen["observation.image"], batch["observation.image"])
    action = policy.select_action(seen)
    torch.testing.assert_close(after(action), action)


def test_a_chunk_holds_every_prediction_distance(agent_folder, tmp_path):
    policy = load(export(agent_folder, tmp_path / "policy"))
    (batch,) = observations(2, 1)
    chunk = policy.predict_action_chunk(batch)
    assert chunk.shape == (2, 3, 2)
    with pytest.raises(NotImplementedError, match="dreamer train agent"):
        policy.forward(batch)


def test_several_cameras_are_several_images(tmp_path):
    tiny_agent(dynamics_changes=CAMERAS).save_pretrained(tmp_path / "agent")
    policy = load(export(tmp_path / "agent", tmp_path / "policy"))
    assert list(policy.config.image_features) == ["observation.images.front", "observation.images.wrist"]
    image = rand(1, 3, 16, 16)
    views = {"observation.images.front": image, "observation.images.wrist": 1 - image}
    assert policy.select_action(views | {"observation.state": torch.zeros(1, 2)}).shape == (1, 2)
    with pytest.raises(ValueError, match=r"lacks observation.images.wrist.*--rename_map"):
        policy.select_action({"observation.images.front": image})


def test_positions_need_a_state(agent_folder, tmp_path):
    policy = load(export(agent_folder, tmp_path / "policy"))
    (batch,) = observations(1, 1)
    with pytest.raises(ValueError, match=r"needs observation.state of shape \(1, 2\).*gives_targets=false"):
        policy.select_action({"observation.image": batch["observation.image"]})


BAD = {
    "no agent": (["--agent", "nowhere"], "no such folder"),
    "an unknown task": (["--task", "up"], "does not know the task 'up'"),
    "limits of another width": (["--target_low", "1"], "one for each of 2"),
    "too many images": (["--image_key", "a", "b"], "1 camera"),
}


@pytest.mark.parametrize(("options", "reason"), BAD.values(), ids=BAD)
def test_bad_options_are_one_sentence(options, reason, agent_folder, tmp_path):
    with pytest.raises(ValueError, match=reason) as error:
        export(agent_folder, tmp_path / "policy", *options)
    assert "\n" not in str(error.value) and not (tmp_path / "policy").exists()


def test_the_folder_is_a_complete_policy(agent_folder, tmp_path):
    folder = export(agent_folder, tmp_path / "policy")
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert config["type"] == "dreamer" and config["device"] is None


@pytest.mark.slow
def test_lerobot_eval_runs_the_policy_in_the_real_simulator(agent_folder, tmp_path):
    pytest.importorskip("gym_pusht", reason="needs the extra pusht")
    folder = export(agent_folder, tmp_path / "policy", "--target_low", "0", "0", "--target_high", "512", "512")
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_eval", f"--policy.path={folder}"]
    command += ["--policy.discover_packages_path=dreamer_hf.lerobot", "--policy.device=cpu", "--env.type=pusht"]
    command += ["--env.episode_length=4", "--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false"]
    command += [f"--output_dir={tmp_path / 'out'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    info = json.loads((tmp_path / "out" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2

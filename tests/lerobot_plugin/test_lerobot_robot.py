"""A dream as a robot under the installed commands of LeRobot: teleoperate, record, replay and roll out a policy."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from commands import run_command
from dreamer_hf.data.shard_dataset import ShardDataset
from tiny import TINY_DYNAMICS, TINY_TOKENIZER, train

pytestmark = pytest.mark.slow

PLUGINS = "dreamer_hf.lerobot"
FPS = 20
ROBOT = [f"--robot.discover_packages_path={PLUGINS}", "--robot.type=dreamer", "--robot.engine=torch"]
ROBOT += ["--robot.threads=1", "--robot.realtime=false"]
DATASET = [
    f"--dataset.fps={FPS}",
    "--dataset.push_to_hub=false",
    "--dataset.single_task=Wave.",
    "--dataset.no_stamp=true",
]
DATASET += ["--dataset.streaming_encoding=true", "--dataset.rgb_encoder.vcodec=h264", "--play_sounds=false"]
NAMES = {"observation.images.front": "observation.images.top", "observation.images.wrist": "observation.images.hand"}
ACTIONS = [(0.1, 1.0), (0.2, 1.1), (0.3, 1.2), (0.5, 5.0)]


@pytest.fixture
def script(tmp_path):
    lines = ["shoulder,elbow.pos", *(f"{shoulder},{elbow}" for shoulder, elbow in ACTIONS)]
    (tmp_path / "wave.csv").write_text("\n".join(lines) + "\n")
    return ["--teleop.type=dreamer_scripted", f"--teleop.file={tmp_path / 'wave.csv'}"]


def run(commands, folder, name, *argv, status=0):
    result = commands.run(name, *argv, cwd=folder)
    output = result.stdout + result.stderr
    assert result.returncode == status, output
    return output


def record(commands, folder, arm_world, script, episodes=2):
    target = [f"--robot.world={arm_world}", "--dataset.repo_id=me/waving", f"--dataset.root={folder / 'waving'}"]
    length = [f"--dataset.num_episodes={episodes}", "--dataset.episode_time_s=10", "--dataset.reset_time_s=0.2"]
    return run(commands, folder, "lerobot-record", *ROBOT, *script, *DATASET, *target, *length)


def rows_of(root, column):
    tables = [pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet"))]
    return np.concatenate([np.array(table[column].to_pylist()) for table in tables])


def test_what_is_recorded_in_a_dream_replays_converts_and_trains(commands, tmp_path, arm_world, script):
    output = record(commands, tmp_path, arm_world, script)
    assert "runs at 20 frames per second: give the command the same rate" in output
    root = tmp_path / "waving"
    info = json.loads((root / "meta" / "info.json").read_text())
    assert info["robot_type"] == "dreamer" and info["fps"] == FPS and info["total_episodes"] == 2
    assert {"observation.images.front", "observation.images.wrist"} <= set(info["features"])
    assert info["features"]["observation.state"]["names"] == ["shoulder.pos", "elbow.pos"]
    actions, episodes = rows_of(root, "action"), rows_of(root, "episode_index")
    count = np.sum(episodes == 0)
    np.testing.assert_allclose(actions[:count], np.resize(ACTIONS, (count, 2)), atol=1e-6)  # again and again

    states = rows_of(root, "observation.state")
    first, second = (states[episodes == number][0] for number in (0, 1))
    last = states[episodes == 0][-1]
    starts = start_states(arm_world)  # a new dream begins with every episode
    for state in (first, second):
        assert np.abs(starts - state).max(axis=1).min() < 1e-5
    assert np.abs(starts - last).max(axis=1).min() > 1e-5

    replay = ["--dataset.repo_id=me/waving", f"--dataset.root={root}", "--dataset.episode=1", "--play_sounds=false"]
    output = run(commands, tmp_path, "lerobot-replay", *ROBOT, f"--robot.world={arm_world}", *replay)
    assert "were outside of the world's range" in output  # an elbow at 5 is more than the data have

    train_on(root, tmp_path)


def start_states(world):
    from dreamer_hf.start_frames import load_start_frames

    return load_start_frames(world).states[:, -1].numpy()


def train_on(root, folder):
    """Convert a recording as anyone would, and train a tokenizer and a world on it for a few steps."""
    cameras = "observation.images.front,observation.images.wrist"
    argv = ["--repo_id", "me/waving", "--local_dir", root, "--output_dir", folder / "shards", "--image_key", cameras]
    converted = run_command("dreamer", "convert", "lerobot", *argv)
    assert converted.returncode == 0, converted.stderr
    data = ShardDataset(folder / "shards", window_size=None)
    assert data.num_episodes == 2 and data.state_dim == 2
    configs = {"tokenizer": TINY_TOKENIZER, "dynamics": TINY_DYNAMICS}
    for kind, text in configs.items():
        # LeRobot records for some seconds: on a busy machine these are only a few frames.
        text = re.sub(r"sequence_length: \d+", "sequence_length: 4", text)
        (folder / f"{kind}.yaml").write_text(re.sub(r"max_train_steps: \d+", "max_train_steps: 2", text))
        argv = ["--config", folder / f"{kind}.yaml", "--data_dir", folder / "shards", "--output_dir", folder / kind]
        argv += ["--train_fraction", 0.5]
        train(kind, *argv, *(["--tokenizer", folder / "tokenizer"] if kind == "dynamics" else []))
    assert (folder / "dynamics" / "env.py").is_file()


def test_teleoperating_holds_the_rate_of_the_world(commands, tmp_path, arm_world, script):
    argv = [option for option in ROBOT if "realtime" not in option]
    argv += [f"--robot.world={arm_world}", *script, "--teleop_time_s=1", "--fps=200"]
    output = run(commands, tmp_path, "lerobot-teleoperate", *argv)
    assert "Teleop loop time" in output


def test_a_policy_acts_in_the_dream(commands, tmp_path, arm_world, arm_policy):
    argv = [*ROBOT, f"--robot.world={arm_world}", f"--policy.path={arm_policy}", f"--rename_map={json.dumps(NAMES)}"]
    argv += ["--strategy.type=episodic", "--dataset.repo_id=me/rollout_waving", f"--fps={FPS}", "--device=cpu"]
    argv += [f"--dataset.root={tmp_path / 'acted'}", *DATASET, "--return_to_initial_position=false"]
    argv += ["--dataset.num_episodes=2", "--dataset.episode_time_s=3", "--dataset.reset_time_s=0"]
    run(commands, tmp_path, "lerobot-rollout", *argv, "--strategy.reset_to_initial_position=false")
    info = json.loads((tmp_path / "acted" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 2 and info["total_frames"] >= 2


def test_corrections_of_a_policy_are_recorded(commands, tmp_path, arm_world, arm_policy, script):
    argv = [*ROBOT, f"--robot.world={arm_world}", f"--policy.path={arm_policy}", f"--rename_map={json.dumps(NAMES)}"]
    argv += ["--strategy.type=dagger", "--strategy.record_autonomous=true", *script, f"--fps={FPS}", "--device=cpu"]
    argv += ["--dataset.repo_id=me/rollout_corrected", f"--dataset.root={tmp_path / 'corrected'}", *DATASET]
    run(commands, tmp_path, "lerobot-rollout", *argv, "--duration=4", "--return_to_initial_position=false")
    info = json.loads((tmp_path / "corrected" / "meta" / "info.json").read_text())
    assert "intervention" in info["features"] and info["total_frames"] > 0


def test_a_policy_of_another_robot_is_refused(commands, tmp_path, arm_world, dot_policy):
    argv = [*ROBOT, f"--robot.world={arm_world}", f"--policy.path={dot_policy}", "--duration=1", "--device=cpu"]
    output = run(commands, tmp_path, "lerobot-rollout", *argv, status=1)
    assert "expects observation.image, but the world" in output and "--rename_map='" in output


def test_a_teleoperator_of_another_robot_is_refused(commands, tmp_path, dot_world, script):
    argv = [*ROBOT, f"--robot.world={dot_world}", *script, "--teleop_time_s=1"]
    output = run(commands, tmp_path, "lerobot-teleoperate", *argv, status=1)
    assert "the dream takes target_x.pos, target_y.pos, but was given shoulder.pos, elbow.pos: " in output
    assert "--robot.action_map" in output
    argv.insert(0, "--robot.action_map={shoulder: target_x, elbow: target_y}")
    run(commands, tmp_path, "lerobot-teleoperate", *argv)

"""How LeRobot finds dreams: the small distribution `lerobot_env_dreamer`, and worlds on the Hub."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hub_stand_in import HubStandIn
from tiny import script_environment

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "packages" / "lerobot_env_dreamer"
REPO_ID, TOKEN = "me/dot-world", "hf_secret"
PUSH_AND_MAKE = f"""
import numpy as np
from dreamer_hf import DreamerWorldModel
from dreamer_hf.start_frames import load_start_frames
import sys
world = DreamerWorldModel.from_pretrained(sys.argv[1])
world.push_to_hub("{REPO_ID}")

from lerobot.envs.factory import make_env
try:
    make_env("{REPO_ID}")
except RuntimeError as error:
    assert "Refusing to execute remote code" in str(error)
envs = make_env("{REPO_ID}", n_envs=2, trust_remote_code=True)
(env,) = envs["dreamer"].values()
observations, _ = env.reset(seed=[3, 4], options={{"lerobot_new_rollout": True}})
assert observations["pixels"].shape == (2, 16, 16, 3)
env.step(np.full((2, 2), 250, np.float32))
env.close()
"""


def test_a_wheel_registers_everything(commands, tmp_path, dot_world, dot_policy):
    """Without any option that names a package."""
    build = "from setuptools import build_meta; print(build_meta.build_wheel(__import__('sys').argv[1]))"
    source = tmp_path / "source"
    source.mkdir()
    for path in PACKAGE.rglob("*"):
        if path.is_file() and "egg-info" not in str(path):
            target = source / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    argv = ["--env.type=dreamer", f"--env.world={dot_world}", f"--policy.path={dot_policy}", "--output_dir=out"]
    argv += ["--eval.n_episodes=1", "--eval.batch_size=1", "--env.episode_length=2", "--policy.device=cpu"]
    argv += ["--env.engine=torch", "--env.threads=1"]
    missing = commands.run("lerobot-eval", *argv, cwd=tmp_path)
    assert missing.returncode != 0 and "dreamer" in missing.stdout + missing.stderr
    result = commands.run("lerobot-eval", *argv, cwd=tmp_path, path=(tmp_path / "installed",))
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 1
    assert "Without --env.success every episode counts as failed" in result.stdout + result.stderr


def test_a_world_on_the_hub_is_an_environment(tmp_path, dot_world):
    with HubStandIn(REPO_ID, TOKEN, "models") as hub:
        environment = script_environment() | hub.environment(tmp_path / "home")
        command = [sys.executable, "-c", PUSH_AND_MAKE, str(dot_world)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert {"env.py", "config.json", "model.safetensors", "start_frames.safetensors"} <= set(hub.files)


def test_an_old_lerobot_is_refused(tmp_path):
    old = tmp_path / "lerobot-0.5.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot\nVersion: 0.5.1\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import dreamer_hf.lerobot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ImportError: LeRobot 0.5.1 is installed, and dreams need 0.6 or")

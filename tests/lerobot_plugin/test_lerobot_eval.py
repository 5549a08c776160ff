"""`lerobot-eval` in dreams: the installed command, policies of LeRobot's own classes, and tiny worlds."""

import json

import av
import numpy as np
import pytest

pytestmark = pytest.mark.slow

PLUGINS = "dreamer_hf.lerobot"
DISCOVER = f"--env.discover_packages_path={PLUGINS}"


def options(world, policy, out, *more, episodes=4, batch=2, discover=(DISCOVER,)):
    argv = ["--env.type=dreamer", f"--env.world={world}", f"--policy.path={policy}", f"--output_dir={out}"]
    argv += [f"--eval.n_episodes={episodes}", f"--eval.batch_size={batch}", "--env.episode_length=6"]
    return [*discover, *argv, "--policy.device=cpu", "--env.engine=torch", "--env.threads=1", *more]


def evaluate(commands, folder, *argv, status=0, path=(), **given):
    result = commands.run("lerobot-eval", *options(*argv, **given), cwd=folder, path=path)
    output = result.stdout + result.stderr
    assert result.returncode == status, output
    return output


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_policy_that_always_succeeds_gets_100_percent(commands, made_up, dot_world, dot_policy):
    output = evaluate(commands, made_up, dot_world, dot_policy, "out", "--env.success=verdicts:always")
    info = json.loads((made_up / "out" / "eval_info.json").read_text())
    assert info["overall"]["pc_success"] == 100 and info["overall"]["n_episodes"] == 4
    assert info["overall"]["avg_sum_reward"] == 1  # solved by the first step, which ends the episode
    assert "Engine: PyTorch" in output


def test_a_policy_that_never_succeeds_gets_0_percent_and_its_video_shows_the_dream(
    commands, made_up, dot_world, dot_policy
):
    evaluate(commands, made_up, dot_world, dot_policy, "out", "--env.success=verdicts:never", episodes=3)
    info = json.loads((made_up / "out" / "eval_info.json").read_text())
    assert info["overall"]["pc_success"] == 0 and info["overall"]["n_episodes"] == 3
    assert info["overall"]["avg_max_reward"] == 6 and info["overall"]["avg_sum_reward"] == sum(range(7))
    videos = sorted((made_up / "out" / "videos" / "dreamer_0").glob("*.mp4"))
    assert len(videos) >= 3
    frames = frames_of(videos[0])
    assert len(frames) >= 6 and frames[0].shape == (256, 256, 3)
    assert np.abs(frames[0].astype(float) - start_frame(dot_world, seed=1000)).mean() < 12  # to the video's losses
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 1


def start_frame(world, seed):
    """What the environment shows first with this seed, enlarged for people."""
    from dreamer_hf.lerobot.config_dreamer_env import DreamerEnvConfig

    env = DreamerEnvConfig(world=str(world), engine="torch", threads=1).create_envs(1)["dreamer"][0]
    env.reset(seed=seed)
    return env.render()[0]


def test_two_cameras_and_a_state_with_other_names(commands, made_up, arm_world, arm_policy):
    """The first attempt is refused with both sides and the option that helps; with that option, it works."""
    output = evaluate(commands, made_up, arm_world, arm_policy, "out", status=1)
    shown = [line for line in output.splitlines() if line.startswith("ValueError: ")]
    assert len(shown) == 1 and "expects observation.images.top, observation.images.hand" in shown[0]
    assert "shows observation.images.front, observation.images.wrist" in shown[0]
    suggestion = shown[0][shown[0].index("--rename_map=") :].rstrip(".").replace("'", "")
    evaluate(commands, made_up, arm_world, arm_policy, "out", suggestion, "--env.success=verdicts:never", episodes=2)
    assert json.loads((made_up / "out" / "eval_info.json").read_text())["overall"]["n_episodes"] == 2


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--env.success=pusht:glory", "there is no reward function 'pusht:glory': choose one of pusht:coverage, "),
        ("--env.world=nowhere/at-all", "there is no world 'nowhere/at-all', here or on the Hub"),
    ],
)
def test_bad_options_are_reported(commands, made_up, dot_world, dot_policy, option, sentence):
    assert sentence in evaluate(commands, made_up, dot_world, dot_policy, "out", option, status=1)

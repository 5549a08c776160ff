"""`RemoteWorldEnv` against a real server, and without torch."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from serving import plain_rollout, wait_until

from dreamer_hf.envs.remote import RemoteWorldEnv
from tiny import make_world


@pytest.fixture
def env(served):
    env = RemoteWorldEnv(served.url)
    yield env
    env.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("error", "ignore:.*symmetric and normalized")  # actions are in raw units
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_gymnasium_finds_nothing_wrong(served, render_mode):
    env = RemoteWorldEnv(served.url, render_mode=render_mode)
    env.spec = gymnasium.envs.registration.EnvSpec(
        "dreamer_hf/RemoteWorld-v0", RemoteWorldEnv, kwargs={"url": served.url}
    )
    check_env(env, skip_close_check=True)
    env.close()


def test_spaces_names_and_rate_are_those_of_the_world(env):
    assert env.observation_space == gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    assert env.action_space.low.tolist() == [0, 10] and env.action_space.high.tolist() == [512, 500]
    assert env.metadata["action_names"] == ["target_x", "target_y"] and env.metadata["render_fps"] == 20


def test_it_gives_the_frames_of_a_plain_rollout(env, world, starts):
    observation, info = env.reset(options={"start": 1, "seed": 8})
    np.testing.assert_array_equal(observation, starts.pixel_values_videos[1, -1].permute(1, 2, 0))
    assert (info["start"], info["seed"], info["step"]) == (1, 8, 0)
    rollout = plain_rollout(world, starts, 1, 8)
    for step in range(5):
        action = np.array([50 + 60 * step, 400 - 60 * step], dtype=np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        expected = 255 * rollout.step(torch.from_numpy(action)[None]).pixel_values[0].permute(1, 2, 0)
        assert np.abs(observation - expected.numpy()).max() <= 0.51
        assert (reward, terminated, truncated, info["step"]) == (0.0, False, False, step + 1)
        np.testing.assert_array_equal(info["action"], action)


def test_a_seed_fixes_the_dreams_that_follow_and_they_differ(env):
    def seeds():
        return [env.reset(seed=3 if number == 0 else None)[1]["seed"] for number in range(3)]

    first, second = seeds(), seeds()
    assert first == second and len(set(first)) == 3


def test_reset_takes_a_place_and_close_frees_it(served, env):
    assert served.sessions == 0
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
        env.step(env.action_space.sample())
    for _ in range(3):
        env.reset()
    assert served.sessions == 1
    env.close()
    env.close()
    assert served.sessions == 0


@pytest.mark.slow
def test_reset_starts_another_session_after_too_long_a_silence(serve):
    served = serve(idle_seconds=0.5)
    env = RemoteWorldEnv(served.url)
    env.reset()
    wait_until(lambda: served.sessions == 0, "the idle session to end")
    with pytest.raises(gymnasium.error.ResetNeeded, match="idle seconds"):
        env.step(env.action_space.sample())
    env.reset()
    wait_until(lambda: served.sessions == 0, "the idle session to end")
    env.reset()
    env.close()


def test_a_connection_that_the_server_closed_is_reopened(env):
    env.reset()
    env._connection.sock.shutdown(2)
    assert env.step(env.action_space.sample())[4]["step"] == 1


@pytest.mark.parametrize(
    ("action", "sentence"), [([1.0], "takes 2"), ([np.nan, 1.0], "finite"), ([np.inf, 1.0], "finite"), (3.0, "list")]
)
def test_bad_actions_are_refused_and_the_dream_continues(env, action, sentence):
    env.reset()
    with pytest.raises(ValueError, match=sentence):
        env.step(np.array(action, dtype=np.float32))
    assert env.step(env.action_space.sample())[4]["step"] == 1


def test_a_missing_token_a_full_server_and_no_server(serve):
    served = serve(token="secret", max_sessions=1)
    with pytest.raises(ValueError, match="requires a token"):
        RemoteWorldEnv(served.url)
    first, second = (RemoteWorldEnv(served.url, token="secret") for _ in range(2))
    first.reset()
    with pytest.raises(ConnectionError, match="all 1 places are taken"):
        second.reset()
    first.close()
    second.reset()
    second.close()
    with pytest.raises(ConnectionError, match="is the server running"):
        RemoteWorldEnv("http://127.0.0.1:9")
    for url in ("127.0.0.1:8000", "ftp://127.0.0.1", "http://"):
        with pytest.raises(ValueError, match="the URL of a server"):
            RemoteWorldEnv(url)
    with pytest.raises(ValueError, match="render_mode"):
        RemoteWorldEnv(served.url, token="secret", render_mode="human")


def test_several_environments_at_once(served):
    envs = gymnasium.vector.SyncVectorEnv([lambda: RemoteWorldEnv(served.url) for _ in range(3)])
    observations, _ = envs.reset(seed=1)
    assert observations.shape == (3, 16, 16, 3)
    observations, *_ = envs.step(envs.action_space.sample())
    assert not np.array_equal(observations[0], observations[1])
    envs.close()
    assert served.sessions == 0


def test_a_world_without_units_or_statistics(serve):
    served = serve(make_world(action_names=None, action_stats=None))
    env = RemoteWorldEnv(served.url)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    env.close()


def test_it_imports_and_steps_without_torch(served):
    """In a process in which `import torch` would fail."""
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'PIL', 'cv2', 'av'): sys.modules[name] = None\n"
        "from dreamer_hf.envs.remote import RemoteWorldEnv\n"
        "env = RemoteWorldEnv(sys.argv[1])\n"
        "env.reset(seed=0)\n"
        "print(env.step(env.action_space.sample())[0].shape)\n"
        "env.close()\n"
    )
    command = [sys.executable, "-c", code, served.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(16, 16, 3)"

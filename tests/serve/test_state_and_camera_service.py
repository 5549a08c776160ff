"""A served world with a state and two cameras: over WebSocket and REST, and as an environment."""

import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from serving import next_frame, plain_rollout, send

from dreamer_hf.serve.protocol import frame_as_json, pack_frame
from dreamer_hf.serve.sessions import SessionFrame
from tiny import ARM, IMAGE_SIZE, make_arm_starts, make_world


@pytest.fixture(scope="module")
def arm():
    return make_world(**ARM)


@pytest.fixture
def served(serve, arm):
    return serve(arm, make_arm_starts(knows_state=False))


def test_the_description_names_cameras_and_state(served, serve):
    world = served.ask("GET", "/api/world")[1]
    assert world["cameras"] == ["front", "wrist"] and world["frame_size"] == [IMAGE_SIZE, 2 * IMAGE_SIZE]
    assert world["state"] == {"names": ["lift", "grip"], "units": ["mm", ""], "low": [0.0, 0.0], "high": [2.0, 10.0]}
    plain = serve().ask("GET", "/api/world")[1]
    assert plain["cameras"] is None and plain["state"] is None


def test_a_policy_gets_the_states_of_a_plain_rollout(served, arm):
    starts = make_arm_starts(knows_state=False)
    status, answer = served.ask("POST", "/api/sessions", {"start": 0, "seed": 3})
    assert status == 201 and answer["observation"]["shape"] == [IMAGE_SIZE, 2 * IMAGE_SIZE, 3]
    np.testing.assert_allclose(answer["state"], starts.states[0, -1], rtol=1e-6)
    path, rollout = f"/api/sessions/{answer['session']}/step", plain_rollout(arm, starts, 0, 3)
    for step in range(4):
        action = [100.0 + 40 * step, 350.0]
        _, answer = served.ask("POST", path, {"action": action})
        expected = rollout.step(torch.tensor([action])).state[0]
        np.testing.assert_allclose(answer["state"], expected, rtol=1e-3, atol=1e-4)


def test_a_player_gets_states_with_every_frame(served):
    with served.play("?start=1&seed=2") as socket:
        hello = json.loads(socket.recv())
        assert hello["type"] == "hello" and hello["state"]["names"] == ["lift", "grip"]
        first, _ = next_frame(socket)
        assert first["step"] == 0 and first["state"] == [1.0, 5.0]  # not known: the mean of the data
        send(socket, type="action", action=[100, 200])
        later, _ = next_frame(socket, lambda header: header["step"] > 2)
        assert len(later["state"]) == 2 and later["state"] != first["state"]


def test_numbers_that_are_lost_are_null():
    shown = SessionFrame(
        np.zeros((2, 4, 3), np.uint8), np.zeros(1), 1, 0, 7, state=np.float32([np.nan, 0.123456789, np.inf])
    )
    assert frame_as_json(shown)["state"] == [None, pytest.approx(0.12345679), None]
    message = pack_frame(shown, "png", 90)
    header = message[4 : 4 + int.from_bytes(message[:4], "little")]
    assert json.loads(header)["state"][0] is None and b"NaN" not in header


def test_the_remote_environment_gives_pixels_and_state(served):
    from dreamer_hf.envs.remote import RemoteWorldEnv

    env = RemoteWorldEnv(served.url)
    try:
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        check_env(env, skip_render_check=True)
        first, _ = env.reset(seed=1, options={"start": 0})
        second, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(second) and second["pixels"].shape == (IMAGE_SIZE, 2 * IMAGE_SIZE, 3)
        assert not np.array_equal(first["state"], second["state"])
        assert env.metadata["state_names"] == ["lift", "grip"]
    finally:
        env.close()

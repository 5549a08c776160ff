"""A server whose rows run on ONNX Runtime: players and policies come and go, and see the dreams of PyTorch."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dreamer_hf.onnx import OnnxWorld
from dreamer_hf.seeded_noise import SeededNoise
from serve.serving import MeasuringPlayer, next_frame, send, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def served(export_folder):
    world = OnnxWorld.from_pretrained(export_folder, threads=1)
    with serving(world, world.starts) as server:
        yield server


def test_a_policy_sees_the_dream_of_pytorch(served, world, starts):
    rollout = world.start_rollout(starts[1], generator=[SeededNoise(7)])
    status, answer = served.ask("POST", "/api/sessions", {"start": 1, "seed": 7})
    assert status == 201
    for value in (100.0, 200.0, 300.0):
        status, frame = served.ask("POST", f"/api/sessions/{answer['session']}/step", {"action": [value, value]})
        assert status == 200 and frame["action"] == [value, value]
        observation = frame["observation"]
        data = np.frombuffer(base64.b64decode(observation["data"]), np.uint8)
        expected = rollout.step([[value, value]]).pixel_values[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(data.reshape(observation["shape"]) - expected).max() <= 1.01


def test_players_that_come_and_go_take_no_frame_from_the_others(served):
    with MeasuringPlayer(served) as player:
        for _ in range(4):
            with served.play("?start=0&seed=1&format=png") as other:
                _, image = next_frame(other)
                assert np.asarray(Image.open(io.BytesIO(image))).shape == (16, 16, 3)
                send(other, type="input", axes=[0.5, 0.5])
                next_frame(other, lambda header: header["step"] >= 3)
            player.wait_for_frames(3)
        player.check()

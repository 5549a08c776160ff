"""States found in frames against the true state of the simulator. Errors are in pixels of the simulator's 512."""

import cv2
import numpy as np
import pytest
import torch

from dreamer_hf.pusht.state import find_pusht_state
from dreamer_hf.pusht.state_errors import is_pusht, state_errors
from dreamer_hf.pusht.task import make_pusht_env, tee_center

NUM_STATES = 150


def draw(states, size=64) -> torch.Tensor:
    """Return the simulator's frames (F, 3, S, S) of states (agent x, y, block x, y, angle), and the true ones (F, 5).

    They are drawn at 128 pixels and reduced as the converter does it.
    """
    env = make_pusht_env(128)
    frames, true = [], []
    for state in states:
        observation, _ = env.reset(options={"reset_to_state": state})
        frames.append(cv2.resize(observation["pixels"], (size, size), interpolation=cv2.INTER_AREA))
        true.append([*env.agent.position, *env.block.position, env.block.angle])
    env.close()
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255, np.array(true)


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    states = np.concatenate(
        [rng.uniform(30, 480, (400, 2)), rng.uniform(90, 420, (400, 2)), rng.uniform(-np.pi, np.pi, (400, 1))], axis=1
    )
    # On request, the simulator draws an agent inside the block, but it never gets there by itself.
    apart = [state for state in states if np.linalg.norm(state[:2] - tee_center(state[2:])) > 95]
    return draw(apart[:NUM_STATES])


def errors(state, true):
    """Return the distances of agents and blocks (pixels) and angles (degrees)."""
    centers = np.array([tee_center(pose) for pose in true[:, 2:]])
    turn = (state.angle.numpy() - true[:, 4] + np.pi) % (2 * np.pi) - np.pi
    agent, block = (np.linalg.norm(a - b, axis=1) for a, b in ((state.agent, true[:, :2]), (state.block, centers)))
    return agent, block, np.degrees(np.abs(turn))


def blurred(frames, deviation):
    images = [cv2.GaussianBlur(frame.permute(1, 2, 0).numpy(), (0, 0), deviation) for frame in frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_real_states_are_found_to_a_fraction_of_a_pixel(scenes):
    """A pixel of these frames is eight of the simulator's."""
    agent, block, angle = errors(find_pusht_state(scenes[0]), scenes[1])
    assert np.median(agent) < 1.5 and agent.max() < 6
    assert np.median(block) < 1.5 and block.max() < 6
    assert np.median(angle) < 0.5 and angle.max() < 6


def test_blur_and_noise_as_in_dreams_cost_little(scenes):
    noisy = blurred(scenes[0], 1.0) + 0.03 * torch.randn(scenes[0].shape, generator=torch.Generator().manual_seed(0))
    agent, block, angle = errors(find_pusht_state(noisy.clamp(0, 1)), scenes[1])
    assert np.isfinite(agent).mean() > 0.99 and np.isfinite(block).mean() > 0.99
    assert np.nanmedian(agent) < 3 and np.nanquantile(agent, 0.95) < 6
    assert np.nanmedian(block) < 3 and np.nanquantile(block, 0.95) < 8
    assert np.nanmedian(angle) < 2 and np.nanquantile(angle, 0.9) < 8


@pytest.mark.parametrize("size", [32, 96])
def test_other_frame_sizes(size):
    frames, true = draw([[100, 120, 300, 200, 0.3], [400, 420, 150, 300, -2.0]], size)
    agent, block, angle = errors(find_pusht_state(frames), true)
    assert agent.max() < 5 and block.max() < 5 and angle.max() < 5


def test_faded_things_are_not_found(scenes):
    frames, true = draw([[100, 120, 300, 200, 0.3]])
    without_agent, _ = draw([[100, 120, 300, 200, 0.3]])
    without_agent[:, :, 10:20, 7:18] = 1.0
    without_block, _ = draw([[100, 120, 900, 900, 0.3]])
    assert torch.isnan(find_pusht_state(without_agent).agent).all() and errors(find_pusht_state(frames), true)[0] < 3
    assert torch.isnan(find_pusht_state(without_block).block).all()
    faded = 0.25 * frames + 0.75 * without_agent
    state = find_pusht_state(faded)
    assert torch.isnan(state.agent).all() and errors(state, true)[1] < 3, "a quarter of an agent does not count"
    bluish = torch.tensor([73, 117, 213]).div(255).view(3, 1, 1).expand(1, 3, 64, 64)
    assert torch.isnan(find_pusht_state(bluish).agent).all() and torch.isnan(find_pusht_state(bluish).block).all()


def test_errors_moves_and_things_that_are_not_found():
    """In a video, the block is moved by 60 pixels at the third frame; in a dream of it, one frame later."""
    at_rest, moved = [100, 120, 300, 200, 0.3], [130, 120, 360, 200, 0.3]
    real, _ = draw([at_rest, at_rest, moved, moved])
    late, _ = draw([at_rest, at_rest, at_rest, moved])
    late[1, :, 10:22, 6:20] = 1.0  # the dream loses the agent once
    values, moved = state_errors({"dream": late[None], "still": real[None, :1]}, real[None], real[:1])
    assert moved.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(values["block_error"]["dream"][0], [0, 0, 60 / 5.12, 0], atol=0.4)
    np.testing.assert_allclose(values["block_error"]["still"][0], [0, 0, 60 / 5.12, 60 / 5.12], atol=0.4)
    assert values["agent_found"]["dream"].tolist() == [[1, 0, 1, 1]]
    np.testing.assert_allclose(values["agent_error"]["dream"][0], [0, np.inf, 30 / 5.12, 0], atol=0.4)
    assert values["angle_error"]["dream"].max() < 2
    nothing = torch.ones_like(real)
    unknown, moved = state_errors({"dream": late[None]}, nothing[None], nothing[:1])
    assert (
        np.isnan(moved).all()
        and np.isnan(unknown["block_error"]["dream"]).all()
        and np.isnan(unknown["agent_found"]["dream"]).all()
    )


def test_pusht_is_distinguished_from_other_frames(scenes):
    assert is_pusht((scenes[0] * 255).round().byte())
    assert not is_pusht(
        torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )
    assert not is_pusht(torch.full((8, 3, 16, 16), 255, dtype=torch.uint8))

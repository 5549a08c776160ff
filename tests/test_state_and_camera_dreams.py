"""Dreams with a state or several cameras: as dreams, in play, as environments, and recorded."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dreamer_hf.dreams import Dreams
from dreamer_hf.envs.vector import DreamerWorldVectorEnv
from dreamer_hf.envs.world import DreamerWorldEnv
from dreamer_hf.media import to_uint8
from dreamer_hf.play.session import PlaySession
from dreamer_hf.seeded_noise import SeededNoise
from dreamer_hf.start_frames import StartFrames
from tiny import IMAGE_SIZE, make_starts, make_world

FIELDS = {
    "camera_names": ["front", "wrist"],
    "num_latent_tokens": 8,
    "state_dim": 2,
    "state_names": ["lift", "grip"],
    "state_stats": {"mean": [1.0, 5.0], "std": [0.5, 2.0], "min": [0.0, 0.0], "max": [2.0, 10.0]},
}
ACTION = np.float32([100, 200])


@pytest.fixture(scope="module")
def world():
    return make_world(**FIELDS)


def starts(knows_state=True) -> StartFrames:
    one = make_starts()
    frames = torch.stack([one.pixel_values_videos, one.pixel_values_videos.flip(-1)], dim=2)
    states = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 3, [knows_state] * 3])
    return StartFrames(frames, one.actions, one.action_mask, states, mask)


def test_a_dream_shows_its_cameras_side_by_side_and_knows_its_state(world):
    given = starts(knows_state=False)
    dreams = Dreams(world, given)
    first, second = dreams.begin([0, 1], seeds=[5, 6])
    assert dreams.frame_size == (IMAGE_SIZE, 2 * IMAGE_SIZE) == first.frame.shape[:2]
    expected = torch.cat(list(given.pixel_values_videos[0, -1]), dim=-1).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(first.frame, expected)
    np.testing.assert_array_equal(first.state, given.states[0, -1].numpy())
    np.testing.assert_array_equal(second.state, [1, 5])  # not known: the mean of the data
    (moment,) = dreams.clone([first])
    dreams.step([first], [ACTION])
    output = world.start_rollout(given[0], generator=[SeededNoise(5)]).step(ACTION[None])
    np.testing.assert_allclose(first.state, output.state[0].numpy(), rtol=1e-4, atol=1e-4)
    frame = to_uint8(torch.cat(list(output.pixel_values[0]), dim=-1)[None])[0]
    assert np.abs(first.frame.astype(int) - frame).max() <= 1
    after = first.state
    dreams.rewind([first], [moment])
    np.testing.assert_array_equal(first.state, given.states[0, -1].numpy())
    dreams.step([first], [ACTION])
    np.testing.assert_allclose(first.state, after, rtol=1e-4, atol=1e-4)


def test_observations_are_pixels_and_state(world):
    env = DreamerWorldEnv(world, start=starts())
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    assert env.observation_space["pixels"].shape == (IMAGE_SIZE, 2 * IMAGE_SIZE, 3)
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=3)
    second, *_ = env.step(ACTION)
    assert first["state"].shape == (2,) and not np.array_equal(first["state"], second["state"])
    rows = DreamerWorldVectorEnv(world, 2, start=starts(), max_episode_steps=2, autoreset_mode="SameStep")
    observations, _ = rows.reset(seed=3)
    np.testing.assert_array_equal(observations["state"][0], first["state"])
    observations, *_ = rows.step(np.stack([ACTION, ACTION]))
    np.testing.assert_allclose(observations["state"][0], second["state"], rtol=1e-4, atol=1e-4)
    observations, _, _, truncated, infos = rows.step(np.stack([ACTION, ACTION]))
    assert truncated.all() and rows.observation_space.contains(observations)
    assert infos["final_obs"][0]["state"].shape == (2,)
    assert isinstance(DreamerWorldEnv(make_world(), start=make_starts()).observation_space, gymnasium.spaces.Box)


def test_a_reward_can_look_at_the_state(world):
    env = DreamerWorldEnv(world, start=starts(), reward_fn=lambda transition: transition.states[:, 0])
    env.reset(seed=0)
    observation, reward, *_ = env.step(ACTION)
    assert reward == pytest.approx(float(observation["state"][0]))


def test_a_session_is_recorded_with_the_state_as_lerobot_reads_it(world, tmp_path):
    pytest.importorskip("lerobot")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from dreamer_hf.play.recorders import DatasetRecorder

    class Constant:
        def action(self, step):
            return ACTION

        def resume_from(self, action):
            pass

    dreams = Dreams(world, starts())
    recorder = DatasetRecorder(tmp_path / "dream", dreams.space, 20, 1, dreams.state_space)
    shown = []
    with PlaySession(dreams, Constant(), [recorder]) as session:
        for _ in range(4):
            shown.append(session.dream.state)
            session.advance()
    data = LeRobotDataset("dreamer_hf/dream", root=tmp_path / "dream")
    assert data.meta.features["observation.state"]["names"] == ["lift", "grip"]
    np.testing.assert_allclose(np.stack([data[i]["observation.state"].numpy() for i in range(4)]), np.stack(shown))
    assert data[0]["observation.image"].shape == (3, IMAGE_SIZE, 2 * IMAGE_SIZE)


def test_the_window_has_gauges_of_the_state(world, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    from dreamer_hf.play.window import GAUGE, PlayWindow, View, open_display

    open_display()
    dreams = Dreams(world, starts())
    window = PlayWindow(dreams.frame_size, dreams.space, state_space=dreams.state_space)
    frame, filled = np.zeros((*dreams.frame_size, 3), np.uint8), []
    for state in ([0.0, 0.0], [1.0, 0.0], [2.0, 10.0]):
        window.draw(View((frame,), ACTION, "frame 1", state=np.float32(state)))
        pixels = pygame.surfarray.array3d(window.surface)
        filled.append(int((pixels == GAUGE).all(axis=2).sum()))
    window.close()
    assert filled[0] == 0 < filled[1] < filled[2]
    assert filled[2] == pytest.approx(4 * filled[1], rel=0.1)

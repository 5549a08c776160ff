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
from tiny import ARM, IMAGE_SIZE, make_arm_starts, make_starts, make_world

ACTION = np.float32([100, 200])


@pytest.fixture(scope="module")
def world():
    return make_world(**ARM)


def test_a_dream_shows_its_cameras_side_by_side_and_knows_its_state(world):
    given = make_arm_starts(knows_state=False)
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
    env = DreamerWorldEnv(world, start=make_arm_starts())
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    assert env.observation_space["pixels"].shape == (IMAGE_SIZE, 2 * IMAGE_SIZE, 3)
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=3)
    second, *_ = env.step(ACTION)
    assert first["state"].shape == (2,) and not np.array_equal(first["state"], second["state"])
    rows = DreamerWorldVectorEnv(world, 2, start=make_arm_starts(), max_episode_steps=2, autoreset_mode="SameStep")
    observations, _ = rows.reset(seed=3)
    np.testing.assert_array_equal(observations["state"][0], first["state"])
    observations, *_ = rows.step(np.stack([ACTION, ACTION]))
    np.testing.assert_allclose(observations["state"][0], second["state"], rtol=1e-4, atol=1e-4)
    observations, _, _, truncated, infos = rows.step(np.stack([ACTION, ACTION]))
    assert truncated.all() and rows.observation_space.contains(observations)
    assert infos["final_obs"][0]["state"].shape == (2,)
    assert isinstance(DreamerWorldEnv(make_world(), start=make_starts()).observation_space, gymnasium.spaces.Box)


def test_a_reward_can_look_at_the_state(world):
    env = DreamerWorldEnv(world, start=make_arm_starts(), reward_fn=lambda transition: transition.states[:, 0])
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

    dreams = Dreams(world, make_arm_starts())
    recorder = DatasetRecorder(tmp_path / "dream", dreams.space, 20, 1, dreams.state_space, dreams.engine.camera_names)
    shown = []
    with PlaySession(dreams, Constant(), [recorder]) as session:
        for _ in range(4):
            shown.append((session.dream.state, session.dream.frame))
            session.advance()
    data = LeRobotDataset("dreamer_hf/dream", root=tmp_path / "dream")
    assert data.meta.features["observation.state"]["names"] == ["lift", "grip"]
    states = np.stack([data[i]["observation.state"].numpy() for i in range(4)])
    np.testing.assert_allclose(states, np.stack([state for state, _ in shown]))
    assert data.meta.camera_keys == ["observation.images.front", "observation.images.wrist"]
    for index, key in enumerate(data.meta.camera_keys):
        views = np.stack([frame[:, IMAGE_SIZE * index :][:, :IMAGE_SIZE] for _, frame in shown])
        stored = np.stack([255 * data[i][key].permute(1, 2, 0).numpy() for i in range(4)])
        assert np.abs(stored - views).max() < 0.5


def test_a_recorded_dream_can_be_started_from(world, tmp_path):
    """The columns of the cameras have the names that the world looks for."""
    pytest.importorskip("lerobot")
    from dreamer_hf.play.recorders import DatasetRecorder
    from dreamer_hf.start_frames import read_start_frames

    dreams = Dreams(world, make_arm_starts())
    engine = dreams.engine
    recorder = DatasetRecorder(tmp_path / "dream", dreams.space, 20, 1, dreams.state_space, engine.camera_names)
    (dream,) = dreams.begin([0], [0])
    for _ in range(6):
        before, state = dream.frame, dream.state
        dreams.step([dream], [ACTION])
        recorder.add(before, ACTION, dream.frame, (state, dream.state))
    recorder.close()
    starts = read_start_frames(tmp_path / "dream", world.config)
    assert starts.pixel_values_videos.shape[2:] == (2, 3, IMAGE_SIZE, IMAGE_SIZE) and starts.states.shape[-1] == 2
    assert len(Dreams(world, starts).begin([0], [0])) == 1


def test_the_window_has_gauges_of_the_state(world, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    from dreamer_hf.play.window import GAUGE, PlayWindow, View, open_display

    open_display()
    dreams = Dreams(world, make_arm_starts())
    window = PlayWindow(dreams.frame_size, dreams.space, state_space=dreams.state_space)
    frame, filled = np.zeros((*dreams.frame_size, 3), np.uint8), []
    for state in ([0.0, 0.0], [1.0, 0.0], [2.0, 10.0]):
        window.draw(View((frame,), ACTION, "frame 1", state=np.float32(state)))
        pixels = pygame.surfarray.array3d(window.surface)
        filled.append(int((pixels == GAUGE).all(axis=2).sum()))
    window.close()
    assert filled[0] == 0 < filled[1] < filled[2]
    assert filled[2] == pytest.approx(4 * filled[1], rel=0.1)


def test_reset_takes_frames_of_every_camera_and_their_states(world):
    env = DreamerWorldEnv(world)
    given = make_arm_starts()[0]
    frames = given.pixel_values_videos[0].movedim(-3, -1).numpy()
    actions, mask, states = given.actions[0].numpy(), given.action_mask[0].numpy(), given.states[0].numpy()
    options = {"frames": frames, "actions": actions, "action_mask": mask, "states": states}
    observation, _ = env.reset(seed=1, options=options)
    np.testing.assert_array_equal(observation["pixels"], np.concatenate(list(frames[-1]), axis=1))
    np.testing.assert_array_equal(observation["state"], states[-1])
    after = env.step(ACTION)[0]["state"]
    unknown, _ = env.reset(seed=1, options=options | {"state_mask": np.zeros(3, bool)})
    np.testing.assert_array_equal(unknown["state"], [1, 5])  # the mean of the data
    assert np.abs(env.step(ACTION)[0]["state"] - after).max() > 1e-4
    rows = DreamerWorldVectorEnv(world, 2)
    observations, _ = rows.reset(options={"frames": np.stack([frames, frames[:, ::-1]]), "states": states})
    np.testing.assert_array_equal(observations["pixels"][1], np.concatenate(list(frames[-1, ::-1]), axis=1))
    np.testing.assert_array_equal(observations["state"], [states[-1]] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((3, 16, 16, 3), np.uint8)}, r"give uint8 \(C, 2, H, W, 3\).*camera \(front, wrist\)"),
        ({"frames": np.zeros((3, 3, 16, 16, 3), np.uint8)}, r"3 camera\(s\) but the world has 2 \(front, wrist\)"),
        ({"states": np.zeros((3, 4))}, r"states of width 4 but the world has 2 \(lift, grip\)"),
        ({"states": np.full((3, 2), np.nan)}, "NaN or infinity"),
        ({"states": np.zeros(2)}, "states of shape .* are not for 1 rows"),
        ({"state": np.zeros((3, 2))}, "reset knows no option 'state'"),
    ],
)
def test_frames_and_states_that_do_not_fit_are_refused(world, change, message):
    options = {"frames": np.zeros((3, 2, 16, 16, 3), np.uint8)} | change
    with pytest.raises(ValueError, match=message):
        DreamerWorldEnv(world).reset(options=options)


def test_a_world_without_a_state_refuses_states(world):
    options = {"frames": np.zeros((3, 16, 16, 3), np.uint8), "states": np.zeros((3, 2))}
    with pytest.raises(ValueError, match="the world has no state"):
        DreamerWorldEnv(make_world()).reset(options=options)

"""The parts of the plug-ins, in this process: actions, states, rewards, images, fits, and the environment itself."""

import time

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.lerobot.action_targets import ActionTargets, are_absolute
from dreamer_hf.lerobot.camera_images import CameraImages
from dreamer_hf.lerobot.config_dreamer_env import DreamerEnvConfig
from dreamer_hf.lerobot.config_dreamer_robot import DreamerRobotConfig
from dreamer_hf.lerobot.config_dreamer_scripted import DreamerScriptedConfig
from dreamer_hf.lerobot.dreamer_robot import DreamerRobot
from dreamer_hf.lerobot.dreamer_scripted import DreamerScripted
from dreamer_hf.lerobot.episode_scores import make_scores
from dreamer_hf.lerobot.policy_facts import PolicyFacts, read_policy_facts
from dreamer_hf.lerobot.policy_fit import check_policy_fits
from dreamer_hf.lerobot.state_readers import make_state_reader, state_kind
from dreamer_hf.lerobot.world_facts import read_world_facts
from dreamer_hf.pusht.simulator import PushTSimulator
from dreamer_hf.pusht.target_lag import target_ahead
from dreamer_hf.reward_functions import reward_function
from tiny import make_world, save_world

pytestmark = pytest.mark.slow


def changes_space(reach=36.0):
    low, relative = np.full(2, -reach, np.float32), np.array([True, True])
    return ActionSpace(("x", "y"), low, -low, relative, ~relative)


def make_env(world, num_rows=2, **options):
    fields = {"world": str(world), "engine": "torch", "threads": 1, "episode_length": 3, **options}
    return DreamerEnvConfig(**fields).create_envs(num_rows)["dreamer"][0]


# Actions


def test_positions_become_the_changes_that_lead_there():
    targets = ActionTargets(changes_space(), 2, absolute=True)
    targets.restart([0, 1], np.array([[100.0, 100.0], [np.nan, np.nan]]))
    raw, clipped = targets.to_world([[120, 90], [300, 200]])
    np.testing.assert_allclose(raw, [[20, -10], [0, 0]])  # an unknown place is where the first action leads
    assert not clipped.any()
    raw, clipped = targets.to_world([[220, 90], [310, 200]])
    np.testing.assert_allclose(raw, [[36, 0], [10, 0]])
    assert clipped.tolist() == [True, False]
    raw, _ = targets.to_world([[220, 90], [310, 200]])  # the row that was clipped catches up
    np.testing.assert_allclose(raw, [[36, 0], [0, 0]])
    assert targets.clipped.tolist() == [2, 0]
    targets.restart([0], np.array([[0.0, 0.0]]))
    assert targets.clipped.tolist() == [0, 0]


def test_actions_of_the_world_are_passed_on():
    targets = ActionTargets(changes_space(), 1, absolute=False)
    raw, clipped = targets.to_world([[40, -5]])
    assert raw.tolist() == [[36, -5]] and clipped.tolist() == [True]
    with pytest.raises(ValueError, match="not finite: check its normalization statistics"):
        targets.to_world([[np.nan, 0]])


def test_what_actions_are_follows_from_how_far_they_spread():
    space = changes_space()
    assert are_absolute("auto", space) and are_absolute("auto", space, np.array([90.0, 80.0]))
    assert not are_absolute("auto", space, np.array([12.0, 11.0])) and not are_absolute("world", space)
    with pytest.raises(ValueError, match="unknown form of actions 'up': choose one of auto, absolute, world"):
        are_absolute("up", space)


def test_the_target_of_pusht_is_ahead_of_a_moving_agent():
    simulator = PushTSimulator(32, relative=True)
    distances = []
    for seed in range(6):
        starts = simulator.reset(seed, num_frames=8)
        changes = np.where(starts.action_mask[0][:, None], starts.actions[0], 0)
        ahead = simulator.target - simulator.agent
        distances.append(np.linalg.norm(ahead))
        assert np.linalg.norm(target_ahead(changes) - ahead) < 0.05 * max(distances[-1], 20)
    assert max(distances) > 20  # so that the test would fail without the lag
    simulator.close()


# States and images


def test_a_state_is_read_from_images_of_pusht():
    facts = read_world_facts("pusht-tiny")
    assert facts.is_pusht and state_kind("auto", facts) == "pusht"
    reader = make_state_reader("pusht", facts, 2)
    simulator = PushTSimulator(64, relative=True)
    simulator.reset(3, num_frames=4)
    white = np.full((64, 64, 3), 255, np.uint8)
    found = reader.read([0, 1], np.stack([simulator.render(), white]), np.zeros((2, 0)))
    assert np.linalg.norm(found[0] - simulator.agent) < 4
    assert found[1].tolist() == [256, 256]  # not found yet: the middle
    held = reader.read([0, 1], np.stack([white, simulator.render()]), np.zeros((2, 0)))
    assert held[0].tolist() == found[0].tolist() and np.linalg.norm(held[1] - simulator.agent) < 4
    simulator.close()


def test_a_world_without_a_state_has_none(bare_world):
    facts = read_world_facts(str(bare_world))
    with pytest.raises(ValueError, match="has no state: train one on data with a state"):
        state_kind("world", facts)
    assert state_kind("none", facts) == "none"


def test_images_are_cut_by_camera_and_resized():
    frames = np.zeros((2, 16, 32, 3), np.uint8)
    frames[:, :, 16:] = 200
    cut = CameraImages(["front", "wrist"], (16, 16), (8, 24)).cut(frames)
    assert cut["front"].shape == (2, 8, 24, 3) and cut["front"].max() == 0 and cut["wrist"].min() == 200
    assert CameraImages([], (16, 32)).cut(frames).shape == frames.shape
    assert CameraImages(["front", "wrist"], (16, 16)).by_camera(frames).shape == (2, 2, 16, 16, 3)


# Rewards


@pytest.mark.parametrize("name", ["pusht:coverage", "pusht:push:right", "pusht:reach:200,220"])
def test_rewards_of_pusht_are_those_of_the_whole_episode(name):
    simulator = PushTSimulator(64, relative=True)
    frames = []
    for seed in (0, 1):
        simulator.reset(seed, num_frames=1)
        rng = np.random.default_rng(seed)
        frames.append([simulator.render()])
        for _ in range(6):
            simulator.step(rng.uniform(-30, 30, 2))
            frames[-1].append(simulator.render())
    simulator.close()
    frames = np.array(frames)
    scores = make_scores(name, 2)
    scores.restart([0, 1], frames[:, 0], np.zeros((2, 0)))
    ours = [scores.step(frames[:, step], np.zeros((2, 0))) for step in range(1, 7)]
    for row in range(2):
        signal = reward_function(name)(frames[row])
        expected = np.nan_to_num(signal.rewards)[1:]
        np.testing.assert_allclose([rewards[row] for rewards, _ in ours], expected, atol=1e-5)
        assert [bool(solved[row]) for _, solved in ours] == signal.successes[1:].tolist()


# The fit of a policy and a world


def test_misfits_name_both_sides_and_what_helps(arm_world, bare_world):
    arm, bare = read_world_facts(str(arm_world)), read_world_facts(str(bare_world))
    images = ["observation.images.front", "observation.images.wrist"]

    def refused(world, sentence, policy, shown=("observation.image",), state=(), rename=None):
        with pytest.raises(ValueError) as error:
            check_policy_fits(world, PolicyFacts("me/policy", **policy), list(shown), state, rename or {})
        assert sentence in str(error.value) and "me/policy" in str(error.value) and world.model in str(error.value)

    refused(bare, "gives actions of 6 numbers, but", {"images": {}, "action_size": 6})
    refused(bare, "no state: train a world on data with a state", {"images": {}, "state_size": 2})
    refused(bare, "needs observation.environment_state", {"images": {}, "needs_environment_state": True})
    sentence = "needs observation.state of 6 numbers, but the state of the world"
    refused(arm, sentence, {"images": {}, "state_size": 6}, images, arm.state.names)
    sentence = "expects observation.images.top, but"
    refused(bare, sentence, {"images": {"observation.images.top": (8, 8)}})
    both = {"images": {f"observation.images.{name}": (8, 8) for name in ("a", "b", "c")}}
    refused(arm, "trained on all cameras of the policy", both, images)
    rename = {images[0]: "observation.images.top"}
    check_policy_fits(arm, PolicyFacts("p", {"observation.images.top": (8, 8)}), images, (), rename)


def test_a_policy_is_described_by_its_files(dot_policy, tmp_path):
    facts = read_policy_facts(str(dot_policy))
    assert facts.images == {"observation.image": (32, 32)} and facts.action_size == facts.state_size == 2
    np.testing.assert_allclose(facts.action_spread, [100, 100])
    assert read_policy_facts(str(dot_policy / "nowhere")) is None
    damaged = tmp_path / "config.json"
    for text in ("{", "[]", '{"input_features": {"a": {"type": "VISUAL"}}}'):
        damaged.write_text(text)
        assert read_policy_facts(str(tmp_path)) is None


# The environment


def test_the_environment_is_what_lerobot_asks_for(arm_world):
    env = make_env(arm_world, observation_height=24, observation_width=32)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and env.metadata["render_fps"] == 20
    observations, _ = env.reset(seed=[7, 8], options={"lerobot_new_rollout": True})
    assert observations["pixels"]["wrist"].shape == (2, 24, 32, 3) and observations["agent_pos"].shape == (2, 2)
    assert observations["pixels"]["wrist"].dtype == np.uint8 and env.observation_space.contains(observations)
    assert env.call("_max_episode_steps") == (3, 3) and env.call("task") == ("", "")
    with pytest.raises(AttributeError, match="have no attribute 'gripper'"):
        env.get_attr("gripper")
    again, _ = make_env(arm_world, observation_height=24, observation_width=32).reset(seed=7)
    np.testing.assert_array_equal(again["pixels"]["front"], observations["pixels"]["front"])
    with pytest.raises(ValueError, match="reset knows no option 'speed'"):
        env.reset(options={"speed": 3})
    with pytest.raises(ValueError, match="there are 3 seeds for 2 rows"):
        env.reset(seed=[1, 2, 3])


def test_rows_end_and_start_again_in_the_same_step(bare_world):
    env = make_env(bare_world)
    env.reset(seed=1)
    for step in range(3):
        frames, rewards, terminated, truncated, info = env.step(np.full((2, 2), 900, np.float32))
        assert rewards.tolist() == [0, 0] and not terminated.any() and truncated.tolist() == [step == 2] * 2
        assert info["is_success"].tolist() == [False, False]
    final = info["final_info"]
    assert final["is_success"].tolist() == [False, False] and final["clipped"].tolist() == [3, 3]
    assert not np.array_equal(info["final_obs"][0]["pixels"], frames["pixels"][0])
    _, _, _, truncated, info = env.step(np.full((2, 2), 250, np.float32))
    assert not truncated.any() and info["clipped"].tolist() == [0, 0] and "final_info" not in info


def test_it_dreams_what_the_plain_environment_dreams(bare_world):
    import gymnasium

    import dreamer_hf.envs  # noqa: F401  (registers it)

    plain = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=bare_world, threads=1)
    ours = make_env(bare_world, num_rows=1)
    expected, _ = plain.reset(seed=4)
    frames, _ = ours.reset(seed=[4])
    np.testing.assert_array_equal(frames["pixels"][0], expected)
    for action in ([100, 200], [30, 400]):
        expected, *_ = plain.step(np.array(action, np.float32))
        frames, *_ = ours.step(np.array([action], np.float32))
        np.testing.assert_array_equal(frames["pixels"][0], expected)


# The robot and the teleoperator


def test_a_robot_keeps_the_rate_of_its_world(tmp_path):
    """Actions that come faster than frames wait for the next frame, or give way to later ones."""
    world = save_world(tmp_path / "world", make_world(fps=1))
    robot = DreamerRobot(DreamerRobotConfig(world=str(world), engine="torch", threads=1, calibration_dir=tmp_path))
    assert robot.observation_features == {"image": (16, 16, 3)} and not robot.is_connected
    assert robot.action_features == {"target_x.pos": float, "target_y.pos": float}
    with pytest.raises(ConnectionError, match="connect the robot first"):
        robot.get_observation()
    robot.connect()
    started, steps = time.perf_counter(), 0
    for _ in range(10):
        before = robot.get_observation()["image"]
        robot.send_action({"target_x.pos": torch.tensor(100.0), "target_y": 50.0})
        steps += not np.array_equal(before, robot.get_observation()["image"])
    assert 1 <= steps <= 2 + (time.perf_counter() - started)  # one frame per second
    robot.disconnect()
    assert not robot.is_connected


def test_what_is_sent_is_what_is_applied(bare_world, tmp_path):
    config = DreamerRobotConfig(
        world=str(bare_world), engine="torch", threads=1, calibration_dir=tmp_path, realtime=False, seed=3
    )
    with DreamerRobot(config) as robot:
        applied = robot.send_action({"target_x": 100, "target_y": 700})
        assert applied == {"target_x.pos": 100, "target_y.pos": 500}
        with pytest.raises(ValueError, match=r"the dream takes target_x\.pos, target_y\.pos, but was given x: "):
            robot.send_action({"x": 1})


def test_a_script_is_played_again_and_again(tmp_path):
    (tmp_path / "script.csv").write_text("a,b.vel\n1,2\n3,4\n")
    teleop = DreamerScripted(DreamerScriptedConfig(file=str(tmp_path / "script.csv"), calibration_dir=tmp_path))
    assert teleop.action_features == {"a.pos": float, "b.vel": float}
    assert [teleop.get_action()["a.pos"] for _ in range(3)] == [1, 3, 1]
    (tmp_path / "script.csv").write_text("a,b\n1,two\n")
    with pytest.raises(ValueError, match="holds no actions: write their names in the first line"):
        DreamerScripted(DreamerScriptedConfig(file=str(tmp_path / "script.csv"), calibration_dir=tmp_path))


def test_a_random_walk_stays_in_the_range_and_repeats(bare_world, tmp_path):
    def walk():
        config = DreamerScriptedConfig(world=str(bare_world), seed=2, step=0.5, calibration_dir=tmp_path)
        teleop = DreamerScripted(config)
        return np.array([list(teleop.get_action().values()) for _ in range(50)])

    actions = walk()
    np.testing.assert_array_equal(actions, walk())
    assert (actions >= [0, 10]).all() and (actions <= [512, 500]).all() and actions.std(axis=0).min() > 50


def test_the_camera_of_a_world_can_be_named(bare_world):
    config = DreamerEnvConfig(world=str(bare_world), camera_name="top")
    assert config.features_map["observation.images.top"] == "observation.images.top"
    (env,) = config.create_envs(1)["dreamer"].values()
    assert list(env.reset(seed=0)[0]["pixels"]) == ["top"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"state": "world"}, "has no state: train one on data with a state"),
        ({"state": "smell"}, "unknown state 'smell': choose one of auto, world, pusht, none"),
        ({"actions": "sideways"}, "unknown form of actions 'sideways': choose one of auto, absolute, world"),
        ({"engine": "abacus"}, "unknown engine 'abacus': choose one of auto, torch, onnx"),
        ({"episode_length": 0}, "expected a positive number for --env.episode_length, got 0"),
        ({"reward": "verdicts"}, "there is no reward function 'verdicts': choose one of pusht:coverage"),
    ],
)
def test_bad_options_are_refused(bare_world, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_env(bare_world, **options)

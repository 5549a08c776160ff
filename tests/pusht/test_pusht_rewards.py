"""Reward functions of PushT against the simulator and by hand."""

import cv2
import numpy as np
import pytest

from dreamer_hf.pusht.rewards import TEE_AREA, agent_positions, block_poses
from dreamer_hf.pusht.task import GOAL_POSE, make_pusht_env, tee_center
from dreamer_hf.reward_functions import reward_function

EMPTY = np.zeros((3, 64, 64, 3), np.uint8)
CENTER = np.array([64, 160, *GOAL_POSE])


@pytest.fixture(scope="module")
def scenes():
    """Frames (F, 64, 64, 3), states (F, 5) and coverages (F,) of the simulator, from far to near the goal."""
    env = make_pusht_env(128)
    rng = np.random.default_rng(0)
    frames, states, coverages = [], [], []
    for spread in np.linspace(1.0, 0.0, 60):
        pose = np.array(GOAL_POSE) + rng.uniform(-1, 1, 3) * (100, 100, np.pi) * spread
        env.reset(options={"reset_to_state": [40, 40, *pose]})
        # A reset turns the block around its center of mass after placing it, which moves it off the pose.
        env.block.angle, env.block.position = pose[2], tuple(pose[:2])
        env.space.reindex_shapes_for_body(env.block)
        frames.append(cv2.resize(env.get_obs()["pixels"], (64, 64), interpolation=cv2.INTER_AREA))
        states.append([*env.agent.position, *env.block.position, env.block.angle])
        coverages.append(env._get_coverage())
    env.close()
    return np.stack(frames), np.array(states), np.array(coverages)


def test_coverage_of_states_is_that_of_the_simulator(scenes):
    frames, states, coverages = scenes
    signal = reward_function("pusht:coverage")(frames, states)
    assert coverages.min() < 0.2 and coverages.max() > 0.95
    np.testing.assert_allclose(signal.rewards, coverages, atol=1e-6)
    np.testing.assert_array_equal(signal.successes, coverages > 0.95)


def test_coverage_of_frames_is_close_to_that_of_the_simulator(scenes):
    frames, _, coverages = scenes
    error = np.abs(reward_function("pusht:coverage")(frames).rewards - coverages)
    assert np.median(error) < 0.02 and error.max() < 0.08


def test_poses_found_in_frames_are_those_of_the_simulator(scenes):
    frames, states, _ = scenes
    assert np.abs(agent_positions(frames) - states[:, :2]).max() < 6
    poses = block_poses(frames)
    turn = (poses[:, 2] - states[:, 4] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(poses[:, :2] - states[:, 2:4]).max() < 8 and np.abs(turn).max() < 0.1


def test_the_area_of_the_t_is_that_of_its_pieces():
    assert TEE_AREA == 6300.0


def test_reach_falls_linearly_with_the_distance():
    states = np.array([[100, 100], [100, 124], [130, 140], [500, 500]], np.float32)
    signal = reward_function("pusht:reach:100,100")(np.zeros((4, 64, 64, 3), np.uint8), states)
    np.testing.assert_allclose(signal.rewards, [1, 1 - 24 / 300, 1 - 50 / 300, 0], atol=1e-6)
    np.testing.assert_array_equal(signal.successes, [True, True, False, False])
    assert signal.rewards.dtype == np.float32 and signal.successes.dtype == bool


@pytest.mark.parametrize(
    ("direction", "rewards"),
    [("right", [0, 0.5, 1]), ("left", [0, -0.5, -1]), ("down", [0, 0.2, 0]), ("up", [0, -0.2, 0])],
)
def test_push_counts_the_movement_since_the_previous_frame(direction, rewards):
    states = np.stack([CENTER, CENTER + np.array([0, 0, 5, 2, 0]), CENTER + np.array([0, 0, 45, 2, 0])])
    signal = reward_function(f"pusht:push:{direction}")(EMPTY, states)
    np.testing.assert_allclose(signal.rewards, rewards, atol=1e-6)
    np.testing.assert_array_equal(signal.successes, [False, False, direction == "right"])


def test_push_measures_the_center_of_the_t_not_its_origin():
    turned = CENTER + np.array([0, 0, 0, 0, 1.0])
    states = np.stack([CENTER, turned, turned])
    signal = reward_function("pusht:push:right")(EMPTY, states)
    moved = tee_center(turned[2:])[0] - tee_center(CENTER[2:])[0]
    assert signal.rewards[1] == pytest.approx(np.clip(moved / 10, -1, 1))


@pytest.mark.parametrize("name", ["pusht:coverage", "pusht:reach:10,10", "pusht:push:up"])
def test_nothing_in_the_frame_is_nan_and_no_success(name):
    signal = reward_function(name)(EMPTY)
    assert np.isnan(signal.rewards).all() and not signal.successes.any()


def test_the_first_of_several_cameras_is_read(scenes):
    frames, _, _ = scenes
    both = np.stack([frames[:3], np.zeros_like(frames[:3])], axis=1)
    np.testing.assert_array_equal(agent_positions(both), agent_positions(frames[:3]))


def test_frames_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="square uint8 frames"):
        reward_function("pusht:coverage")(np.zeros((3, 64, 48, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pusht:nothing", "choose one of pusht:coverage"),
        ("pusht:push:sideways", "choose one of pusht:coverage"),
        ("pusht:reach:12", "names no spot"),
        ("pusht:reach:nan,3", "names no spot"),
        ("pusht:reach:900,3", "names no spot"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        reward_function(name)

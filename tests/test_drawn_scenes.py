"""The drawn robots of `examples/drawn_scenes.py`, and their recorder."""

import sys
from pathlib import Path

import numpy as np
import pytest

from commands import run_command

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))

from drawn_scenes import FPS, HEIGHT, SCENES, VIEWS, WIDTH  # noqa: E402


@pytest.mark.parametrize("name", SCENES)
def test_the_same_seed_gives_the_same_episode_and_the_robot_follows_its_targets(name):
    scene = SCENES[name]
    episode, again, other = (scene.simulate(np.random.default_rng(seed), 40) for seed in (1, 1, 2))
    np.testing.assert_array_equal(episode.actions, again.actions)
    assert not np.array_equal(episode.actions, other.actions)
    assert episode.states.shape == episode.actions.shape == (40, len(scene.names))
    before = np.abs(episode.actions[:-1] - episode.states[:-1])
    after = np.abs(episode.actions[:-1] - episode.states[1:])
    # Fingers stop at a block that is wider than their target.
    assert (after[:, :2] <= before[:, :2] + 1e-5).all()


@pytest.mark.parametrize("name", SCENES)
def test_every_camera_shows_every_movement(name):
    scene = SCENES[name]
    poses = scene.simulate(np.random.default_rng(0), 40).poses
    for camera in VIEWS:
        frames = np.stack([scene.draw(pose, camera) for pose in poses])
        assert frames.shape == (40, HEIGHT, WIDTH, 3)
        assert frames.dtype == np.uint8
        moved = np.abs(np.diff(poses, axis=0)).max(axis=1) > 0.05 * np.ptp(poses, axis=0).max()
        assert moved.sum() > 5
        changed = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3)) > 20
        assert changed[moved].all()


def test_the_gripper_carries_blocks_and_leaves_them():
    scene, rng = SCENES["gripper"], np.random.default_rng(0)
    carried = left = 0
    for _ in range(5):
        poses = scene.simulate(rng, 80).poses
        moves = np.abs(np.diff(poses[:, 3:].reshape(-1, 2, 2), axis=0)).max(axis=2) > 0
        assert not (moves[:, 0] & moves[:, 1]).any()  # one block at a time
        gripper = np.diff(poses[:, :2], axis=0)
        for block in range(2):
            steps = moves[:, block]
            offsets = np.diff(poses[:, 3 + 2 * block : 5 + 2 * block], axis=0)[steps]
            np.testing.assert_allclose(offsets, gripper[steps], atol=1e-4)
        carried += moves.any(axis=1).sum()
        left += (~moves.any(axis=1)).sum()
    assert carried > 40
    assert left > 40


@pytest.mark.slow
def test_recording_two_cameras(tmp_path):
    pytest.importorskip("lerobot")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = tmp_path / "gripper"
    command = [EXAMPLES / "record_scene.py", "--scene", "gripper", "--cameras", "2", "--repo_id", "me/gripper"]
    command += ["--root", str(root), "--episodes", "2", "--frames_per_episode", "6"]
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    dataset = LeRobotDataset("me/gripper", root=root)
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (2, 12, FPS)
    expected = SCENES["gripper"].simulate(np.random.default_rng(0), 6)
    item = dataset[3]
    np.testing.assert_allclose(item["observation.state"], expected.states[3])
    np.testing.assert_allclose(item["action"], expected.actions[3])
    for view in VIEWS:
        shown = item[f"observation.images.{view}"].permute(1, 2, 0).numpy() * 255
        assert np.abs(shown - SCENES["gripper"].draw(expected.poses[3], view)).mean() < 4
    again = run_command(*command)
    assert (again.returncode, "already exists: choose another --root" in again.stderr) == (2, True)

"""Scripted play in the simulator, and recordings of it."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dreamer_hf.pusht.player import PushTPlayer
from dreamer_hf.pusht.record import record_pusht
from dreamer_hf.pusht.task import draw_reset_options, make_pusht_env
from dreamer_hf.real_time import leave_real_time


def play(seed, frames=100):
    """Return the positions of agent and block, and the commands, without drawing frames."""
    env = make_pusht_env(16)
    env.obs_type = "state"
    rng = np.random.default_rng(seed)
    state, _ = env.reset(seed=int(rng.integers(2**31)), options=draw_reset_options(rng))
    player = PushTPlayer(rng)
    player.reset(state[:2])
    states, actions = [], []
    for _ in range(frames):
        pose = np.array([*env.block.position, env.block.angle % (2 * np.pi)])
        action = player.act(state[:2], pose)
        states.append(np.concatenate([state[:2], pose]))
        actions.append(action)
        state, *_ = env.step(action)
    return np.array(states), np.array(actions)


def test_play_is_smooth_stays_inside_and_moves_the_block():
    episodes = [play([0, number]) for number in range(8)]
    states = np.stack([states for states, _ in episodes])
    actions = np.stack([actions for _, actions in episodes])
    assert actions.min() >= 0 and actions.max() <= 512 and actions.dtype == np.float32
    assert np.linalg.norm(np.diff(actions, axis=1), axis=-1).max() < 40  # pixels per frame: no jumps
    moving = np.linalg.norm(np.diff(states[..., 2:4], axis=1), axis=-1) > 0.5
    assert 0.15 < moving.mean() < 0.8
    assert (np.ptp(states[..., :2], axis=(0, 1)) > 350).all()  # the agent goes everywhere


def test_recording_is_a_lerobot_dataset_that_depends_on_the_seed_alone(tmp_path):
    tables = []
    for name in ("first", "second"):
        root = record_pusht("tests/pusht", tmp_path / name, episodes=2, frames_per_episode=12, seed=3, image_size=32)
        assert leave_real_time() == 0  # the AV1 encoder of root's processes was undone
        tables.append(pq.read_table(root / "data/chunk-000/file-000.parquet").to_pydict())
    info = json.loads((root / "meta/info.json").read_text())
    assert info["fps"] == 10 and info["total_frames"] == 24 and info["codebase_version"] == "v3.0"
    assert info["features"]["action"]["names"] == ["target_x", "target_y"]
    assert info["features"]["action"]["units"] == "px of 512"
    assert info["features"]["observation.image"]["dtype"] == "video"
    assert tables[0] == tables[1]
    np.testing.assert_allclose(tables[0]["observation.state"][3], play([3, 0], 12)[0][3, :2], atol=1e-3)
    with pytest.raises(ValueError, match="expected a positive int for --episodes, got 0"):
        record_pusht("tests/pusht", tmp_path / "none", episodes=0)
    with pytest.raises(FileExistsError, match="exists already"):
        record_pusht("tests/pusht", root, episodes=1)

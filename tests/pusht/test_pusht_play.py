"""Many players and many renderings: what `dreamer record --output_dir` stores."""

import numpy as np
import pytest

from dreamer_hf.cli import main
from dreamer_hf.data import ShardDataset
from dreamer_hf.pusht.play_source import PushTPlaySource
from dreamer_hf.pusht.players import PLAYERS, TRAINING_PLAYERS
from dreamer_hf.pusht.renderings import RENDERINGS
from dreamer_hf.pusht.stage import RGB_OF_BGRA, PushTStage
from dreamer_hf.pusht.task import draw_reset_options, make_pusht_env


def play(name, episode, frames=80):
    """Return the positions of the agent, the poses of the block and the commands of an episode."""
    stage, rng = PushTStage(), np.random.default_rng([5, episode])
    stage.reset(rng)
    player = PLAYERS[name](rng)
    player.reset(stage.agent)
    agents, poses, targets = [], [], []
    for _ in range(frames):
        agents.append(stage.agent)
        poses.append(stage.block_pose)
        targets.append(player.act(stage.agent, stage.block_pose))
        stage.tick(targets[-1])
    return np.array(agents), np.array(poses), np.array(targets)


def speeds(positions):
    return np.linalg.norm(np.diff(positions, axis=0), axis=1)


def test_the_stage_moves_and_looks_exactly_like_gym_pusht():
    env, stage = make_pusht_env(96), PushTStage()
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    observation, _ = env.reset(seed=int(rng.integers(2**31)), options=draw_reset_options(rng))
    stage.reset(twin)
    player = PLAYERS["bold"](rng)
    player.reset(observation["agent_pos"])
    for _ in range(25):
        frame = RENDERINGS["own"].reduce(stage.draw(), 96)[..., RGB_OF_BGRA]
        np.testing.assert_array_equal(frame, observation["pixels"])
        np.testing.assert_array_equal(stage.agent, observation["agent_pos"])
        target = player.act(stage.agent, stage.block_pose)
        stage.tick(target)
        observation, *_ = env.step(target)
    np.testing.assert_array_equal(stage.block_pose[:2], env.block.position)


@pytest.mark.parametrize("name", PLAYERS)
def test_players_stay_in_the_range_of_the_simulator_and_repeat_themselves(name):
    _, _, targets = play(name, 1, frames=40)
    assert targets.dtype == np.float32 and targets.min() >= 0 and targets.max() <= 512
    np.testing.assert_array_equal(play(name, 1, frames=40)[2], targets)


def test_every_player_shows_what_it_is_for():
    turns = [np.abs(np.angle(np.exp(1j * np.diff(play("turning", episode)[1][:, 2])))).sum() for episode in range(3)]
    assert np.mean(turns) > np.deg2rad(90)
    assert np.percentile(speeds(play("bold", 0)[2]), 90) > 36
    assert np.mean(speeds(play("still", 0)[2])) < 6
    agents = np.concatenate([play("walls", episode)[0] for episode in range(3)])
    assert agents.min() < 15 or agents.max() > 497  # beyond the walls by a radius
    assert (speeds(play("hand", 0)[2]) > 0.1).mean() > 0.9  # tremor
    assert "strokes" not in TRAINING_PLAYERS


def test_renderings_differ_a_little_and_codecs_lose_a_little():
    def frames(rendering):
        source = PushTPlaySource(1, 6, seed=3, players=("varied",), renderings=(rendering,))
        (episode,) = source.read([0], 1)
        return np.stack(list(episode.frames)).astype(np.float64)

    for name, rendering in RENDERINGS.items():
        clean = frames("averaged" if rendering.averaged else "own")
        error = np.square(frames(name) - clean).mean()
        assert error == 0 if rendering.codec is None else 0 < error < 60, name
    assert 1 < np.square(frames("own") - frames("averaged")).mean() < 100


def test_recorded_shards(tmp_path):
    def record(folder, *flags):
        size = ("--episodes", "2", "--frames_per_episode", "5")
        main("record", arguments=["--output_dir", str(tmp_path / folder), *size, *flags])
        return ShardDataset(tmp_path / folder, None, split="all", action_offset=0)

    data = record("mixed", "--seed", "4", "--num_workers", "1")
    assert data.image_size == (96, 96) and data.fps == 10 and data.relative_actions == [True, True]
    assert data.state_names == ["agent_x", "agent_y"] and data.action_units == ["px of 512"] * 2
    own = record("own", "--seed", "4", "--renderings", "own", "--image_size", "64", "--num_workers", "1")
    assert own.image_size == (64, 64)
    first, twin = data.episode(1), own.episode(1)
    np.testing.assert_array_equal(first["actions"], twin["actions"])  # other renderings, the same play
    np.testing.assert_array_equal(first["states"], twin["states"])
    assert "players" in data.metadata.conversion["source"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output_dir", "x", "--players", "nobody"), "there is no player 'nobody'"),
        (("--output_dir", "x", "--renderings", "oil"), "expected some of own, averaged,"),
        (("--output_dir", "x", "--image_size", "65"), "expected an even --image_size of at least 64"),
        (("--output_dir", "x", "--episodes", "0"), "expected a positive int for --episodes, got 0"),
        (("--output_dir", "x", "--root", "y"), "expected either --output_dir for shards, or"),
        (("--episodes", "3"), "expected either --output_dir for shards, or"),
        (("--root", "y"), "a LeRobotDataset needs a name"),
        (("--root", "y", "--repo_id", "me/y", "--renderings", "own"), "are for shards"),
        (
            ("--root", "y", "--repo_id", "me/y", "--players", "nobody"),
            "there is no player 'nobody'",
        ),
    ],
)
def test_bad_options_are_refused_in_one_sentence(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        main("record", arguments=list(flags))
    assert ending.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""The player with a goal brings the block nearer to it, and skill is graded."""

import numpy as np
import pytest

from dreamer_hf.pusht.goal_player import make_player
from dreamer_hf.pusht.simulator import PushTSimulator
from dreamer_hf.pusht.task import GOAL_POSE, tee_center

SEEDS = range(6)


def distance_gained(name: str) -> float:
    simulator, gained = PushTSimulator(32, relative=False), []
    for seed in SEEDS:
        simulator.reset(seed, 2)
        player = make_player(name, np.random.default_rng(seed))
        player.reset(simulator.target)
        before = distance(simulator)
        for _ in range(60):
            target, action = simulator.target, player.act(simulator.agent, simulator.block_pose)
            assert np.abs(action - target).max() < 35.5 and action.min() >= 0 and action.max() <= 512
            simulator.step(action)
        gained.append(before - distance(simulator))
    return float(np.mean(gained))


def distance(simulator) -> float:
    return float(np.linalg.norm(tee_center(simulator.block_pose) - tee_center(np.array(GOAL_POSE))))


def test_more_skill_brings_the_block_farther():
    push, half, rest = (distance_gained(name) for name in ("push", "push:0.5", "rest"))
    assert push > half + 10 and half > rest and abs(rest) < 5


def test_players_of_one_seed_play_the_same_and_share_their_noise():
    agent, pose = np.array([100.0, 200.0]), np.array([300.0, 300.0, 1.0])

    def play(name):
        player = make_player(name, np.random.default_rng(3))
        player.reset(agent)
        return np.array([player.act(agent, pose) for _ in range(5)])

    assert (play("push:0.5") == play("push:0.5")).all()
    assert (play("random") == play("push:0")).all() and (play("push:1") == play("push")).all()


def test_unknown_players_and_skills_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"no player 'pull': choose one of varied, .*push, rest, random"):
        make_player("pull", rng)
    for skill in ("2", "-1", "much", "nan"):
        with pytest.raises(ValueError, match="skill from 0 to 1"):
            make_player(f"push:{skill}", rng)

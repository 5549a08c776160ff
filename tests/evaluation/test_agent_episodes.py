"""Agents and scripts in the real simulator: floors, ceiling, table and video."""

import json

import numpy as np
import pytest

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.evaluation.agent_episodes import evaluate_agents
from dreamer_hf.evaluation.agent_options import AgentEvaluationOptions
from dreamer_hf.pusht.real_episodes import AgentPolicy, run_episodes
from dreamer_hf.pusht.scripted_policies import Resting, ScriptedPlay, StraightLine, UniformlyRandom
from dreamer_hf.reward_functions import reward_function
from tiny import PUSHES, tiny_agent, tiny_world

SPOTS = [(128, 128), (384, 384)]
FUNCTIONS = [reward_function(f"pusht:reach:{x},{y}") for x, y in SPOTS]
CONFIG = tiny_world(dynamics_changes=PUSHES | {"fps": 10.0}).config


def run(policy, steps=30):
    return run_episodes(policy, CONFIG, FUNCTIONS, seeds=[1, 2], num_steps=steps)


def test_a_straight_line_arrives_and_resting_stays():
    line, rest = run(StraightLine(SPOTS)), run(Resting())
    assert line.ends_solved.all() and (np.diff(rest.rewards, axis=1) == 0).all()
    assert line.mean_reward.min() > rest.mean_reward.max()
    np.testing.assert_array_equal(line.rewards[:, 0], rest.rewards[:, 0])
    np.testing.assert_array_equal(line.frames[:, 0], rest.frames[:, 0])


def test_random_actions_and_play_move_the_agent_and_repeat():
    space = ActionSpace.from_config(CONFIG.dynamics_config)
    for make in (lambda: UniformlyRandom(space), lambda: ScriptedPlay(3)):
        first, second = run(make(), steps=8), run(make(), steps=8)
        np.testing.assert_array_equal(first.rewards, second.rewards)
        assert (np.diff(first.rewards, axis=1) != 0).any()


@pytest.fixture(scope="module")
def agent():
    tasks = {"num_tasks": 2, "task_names": [function.name for function in FUNCTIONS]}
    return tiny_agent(dynamics_changes={"fps": 10.0}, **tasks)


def test_an_agent_acts_by_its_seed_and_inside_the_range(agent):
    first, second = (run(AgentPolicy(agent, [0, 1], seed=5), steps=4) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    other = run(AgentPolicy(agent, [0, 1], seed=6), steps=4)
    assert (other.frames != first.frames).any()


def test_the_table_compares_runs_with_scripts(agent, tmp_path):
    agent.save_pretrained(tmp_path / "agent")
    entries = tuple(f"{name}={tmp_path / 'agent'}" for name in ("ours", "ours", "theirs"))
    options = {"agents": entries, "episodes": 2, "steps": 3, "output_dir": str(tmp_path / "result")}
    text = evaluate_agents(AgentEvaluationOptions(**options, baselines=True, planner_episodes=1))
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["resting", "uniformly random", "scripted play", "straight line", "planner", "ours", "theirs"]
    assert " 1 | 1 | " in next(line for line in text.splitlines() if line.startswith("| planner"))
    figures = json.loads((tmp_path / "result" / "agents.json").read_text())
    assert len(figures["ours"]) == 2 and len(figures["ours"][0]["mean_reward"]) == 2
    assert all((tmp_path / "result" / f"agents.{suffix}").stat().st_size for suffix in ("md", "mp4", "gif", "png"))


def test_what_cannot_act_in_pusht_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded as an agent"):
        evaluate_agents(AgentEvaluationOptions(agents=(f"a={tmp_path / 'nothing'}",)))
    config = tiny_world(dynamics_changes={"action_dim": 3}).config
    with pytest.raises(ValueError, match="choose an agent of PushT"):
        run_episodes(Resting(), config, FUNCTIONS, [1, 2], 1)

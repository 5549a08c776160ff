"""The reward head as the reward of dream environments, and as the cost of the planner."""

import gymnasium
import numpy as np
import pytest
import torch

from dreamer_hf.action_space import ActionSpace
from dreamer_hf.agent_episode import latent_rollout_of
from dreamer_hf.planning import CrossEntropyPlanner
from dreamer_hf.start_frames import StartFrames
from tiny import CAMERAS, STATE, rand, randn, tiny_agent, tiny_states


@pytest.fixture(autouse=True)
def registered():
    import dreamer_hf.envs  # noqa: F401


def starts_of(agent, count=2):
    config = agent.world.dynamics.config
    cameras = (config.num_cameras,) if config.num_cameras > 1 else ()
    frames = (255 * rand(count, 2, *cameras, 3, 16, 16)).byte()
    mask = torch.ones(count, 2, dtype=torch.bool)
    states = (tiny_states(count, 2), mask) if config.state_dim else ()
    return StartFrames(frames, (10 * randn(count, 2, 2)).clamp(-30, 30), mask, *states)


@pytest.mark.parametrize("world", [{}, STATE, CAMERAS], ids=["plain", "state", "cameras"])
def test_rewards_of_an_environment_are_those_of_the_agent(world):
    agent = tiny_agent(dynamics_changes=world, num_tasks=2)
    options = {"model": agent.world, "start": starts_of(agent), "reward_fn": agent.reward_fn(1)}
    env = gymnasium.make_vec("dreamer_hf/DreamerWorld-v0", num_envs=2, max_episode_steps=3, **options)
    env.reset(seed=0)
    actions = np.array([[5.0, -5.0], [20.0, 20.0]], np.float32)
    rewards = [env.step(actions)[1] for _ in range(6)]
    assert (rewards[3] == 0).all(), "both rows start again in the fourth step"
    assert np.isfinite(rewards).all() and (np.std(rewards[:3] + rewards[4:], axis=1) > 0).all()
    again = gymnasium.make_vec(
        "dreamer_hf/DreamerWorld-v0", num_envs=2, max_episode_steps=3, **options | {"reward_fn": agent.reward_fn(1)}
    )
    again.reset(seed=0)
    np.testing.assert_array_equal(rewards, [again.step(actions)[1] for _ in range(6)])


def test_an_episode_of_the_agent_from_the_same_frames_expects_the_same_rewards():
    agent = tiny_agent()
    starts, noise = starts_of(agent, 1), torch.Generator().manual_seed(0)
    env = gymnasium.make("dreamer_hf/DreamerWorld-v0", model=agent.world, start=starts, reward_fn=agent.reward_fn())
    frame, _ = env.reset(seed=0)
    first = torch.from_numpy(frame).permute(2, 0, 1)[None, None]
    episode = agent.start_from_latents(agent.world.encode(first).latents, generator=noise)
    for step in range(3):
        action = np.array([5.0 * step, -3.0], np.float32)
        reward = env.step(action)[1]
        latents = env.unwrapped._rows.rows[0].latents[None]
        episode.observe_latents(latents, action[None])
        assert reward == pytest.approx(episode.rewards.item(), rel=1e-4, abs=1e-5)


def test_unknown_tasks_are_refused_when_the_function_is_made():
    with pytest.raises(ValueError, match="from 0 to 0"):
        tiny_agent().reward_fn(1)


@pytest.mark.parametrize("decode", [True, False])
def test_the_planner_pays_what_the_agent_does_not_reward(decode):
    agent = tiny_agent()
    space = ActionSpace.from_config(agent.world.dynamics.config)
    settings = {"horizon": 2, "num_candidates": 12, "num_elites": 4, "cost_reads": "rollout"}
    planner = CrossEntropyPlanner(space, lambda rollout: -agent.rewards(rollout), **settings)
    episode = agent.start(rand(1, 2, 3, 16, 16), generator=torch.Generator().manual_seed(0), decode=decode)
    candidates = (10 * randn(3, 2, 2)).clamp(-30, 30).numpy()
    futures = episode.clone(rows=[0] * 3)
    latent_rollout_of(futures).generator = [torch.Generator().manual_seed(7) for _ in candidates]
    costs = []
    for actions in candidates.swapaxes(0, 1):
        futures.rollout.step(actions)
        costs.append(-futures.rewards)
    expected = torch.stack(costs).mean(0).numpy()
    np.testing.assert_allclose(planner.costs(episode.rollout, candidates, noise_seed=7), expected, rtol=1e-5)
    plan = planner.plan(episode.rollout)
    assert plan.actions.shape == (2, 2) and np.isfinite(plan.cost)


def test_an_unknown_cost_is_refused():
    space = ActionSpace.from_config(tiny_agent().world.dynamics.config)
    with pytest.raises(ValueError, match="'frames' or 'rollout'"):
        CrossEntropyPlanner(space, None, cost_reads="latents")

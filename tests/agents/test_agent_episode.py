"""Acting: one pass over all frames, frames one by one, and dreams with given noise agree."""

import numpy as np
import pytest
import torch

from dreamer_hf import SeededNoise
from dreamer_hf.start_frames import StartFrames
from tiny import CAMERAS, STATE, rand, randn, tiny_agent, tiny_states

LEVEL, LEVEL_ID = 0.9, 14
"""Signal level at which the agent sees the past, and its index on the grid of 16."""
WORLDS = {"plain": {}, "state": STATE, "cameras": CAMERAS}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class NoNoise(SeededNoise):
    """Noise of zero, where the order of draws would differ."""

    def normal(self, shape):
        return np.zeros(shape, np.float32)


def one_each(count, first=0):
    return [seeded(first + row) for row in range(count)]


def known_in_one_pass(agent, latents, actions, mask, noise, tasks=None, of_state=None):
    """What the agent knows at every frame (B,T,D), by one pass without a cache: the plain reference."""
    noisy = (1 - LEVEL) * noise + LEVEL * latents
    ids = torch.full(latents.shape[:2], LEVEL_ID)
    given = {}
    if of_state is not None:
        states, state_noise = of_state
        states = agent.world.dynamics.normalize_states(states)
        given["states"] = (1 - LEVEL) * state_noise + LEVEL * states
    with torch.no_grad():
        return agent(noisy, ids, torch.zeros_like(ids), actions, mask, tasks, **given).agent_states


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_frames_one_by_one_are_one_pass_over_all(world):
    agent = tiny_agent(dynamics_changes=world, num_tasks=2)
    tokens = agent.world.dynamics.config.num_latent_tokens
    latents, actions = randn(2, 9, tokens, 5), 20 * randn(2, 9, 2, seed=1)
    mask = torch.arange(9).expand(2, -1) > 0
    noise, states = randn(2, 9, tokens, 5, seed=2), tiny_states(2, 9) if world is STATE else None
    state_noise = randn(2, 9, 3, seed=3)
    tasks = torch.tensor([0, 1])
    of_state = None if states is None else (states, state_noise)
    actions = actions.clamp(-30, 30)
    expected = known_in_one_pass(agent, latents, actions, mask, noise, tasks, of_state)
    of_context = {} if states is None else {"states": states[:, :2]}
    given = {"context_noise": noise[:, :2], "context_state_noise": state_noise[:, :2]} | of_context
    episode = agent.start_from_latents(latents[:, :2], actions[:, :2], mask[:, :2], tasks, **given)
    torch.testing.assert_close(episode.agent_states, expected[:, 1], atol=1e-5, rtol=1e-4)
    for frame in range(2, 9):
        given = {"commit_noise": noise[:, frame]}
        if states is not None:
            given |= {"states": states[:, frame], "commit_state_noise": state_noise[:, frame]}
        episode.rollout.observe(latents[:, frame], actions[:, frame], **given)
        torch.testing.assert_close(episode.agent_states, expected[:, frame], atol=1e-5, rtol=1e-4)


def test_dreams_are_those_of_the_world_and_the_agent_knows_them():
    agent = tiny_agent()
    context, actions = randn(2, 3, 3, 5), (10 * randn(2, 8, 2, seed=1)).clamp(-30, 30)
    noise = randn(2, 8, 3, 5, seed=2)
    start = randn(2, 8, 3, 5, seed=3)
    mask = torch.ones(2, 8, dtype=torch.bool)
    episode = agent.start_from_latents(context, actions[:, :3], context_noise=noise[:, :3])
    alone = agent.world.dynamics.start_rollout(context, actions[:, :3], context_noise=noise[:, :3])
    frames = [context]
    for frame in range(3, 8):
        given = start[:, frame], noise[:, frame]
        dreamed = episode.dream(actions[:, frame], None, *given).latents
        expected = alone.step(actions[:, frame], None, *given).latents
        torch.testing.assert_close(dreamed, expected, atol=1e-4, rtol=1e-4)
        frames.append(dreamed[:, None])
    expected = known_in_one_pass(agent, torch.cat(frames, 1), actions, mask, noise)
    torch.testing.assert_close(episode.agent_states, expected[:, -1], atol=1e-4, rtol=1e-3)


def test_observing_real_frames_is_starting_with_them():
    agent, frames = tiny_agent(), rand(2, 6, 3, 16, 16)
    actions = (10 * randn(2, 6, 2)).clamp(-30, 30)
    mask = torch.arange(6).expand(2, -1) > 0
    whole = agent.start(frames, actions, mask, generator=NoNoise(0))
    stepwise = agent.start(frames[:, :2], actions[:, :2], mask[:, :2], generator=NoNoise(0))
    for frame in range(2, 6):
        stepwise.observe(frames[:, frame], actions[:, frame])
    assert stepwise.frame_index == whole.frame_index == 6
    torch.testing.assert_close(stepwise.agent_states, whole.agent_states, atol=1e-4, rtol=1e-3)
    dreams = [episode.dream(actions[:, 0]).pixel_values for episode in (stepwise, whole)]
    torch.testing.assert_close(*dreams, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_restarted_row_is_a_new_episode_and_the_others_continue(world):
    agent = tiny_agent(dynamics_changes=world, num_tasks=2)
    cameras = (2,) if world is CAMERAS else ()
    frames, new = rand(3, 4, *cameras, 3, 16, 16), rand(1, 2, *cameras, 3, 16, 16, seed=1)
    episode = agent.start(frames, tasks=torch.tensor([0, 1, 0]), generator=one_each(3))
    undisturbed = agent.start(frames, tasks=torch.tensor([0, 1, 0]), generator=one_each(3))
    steps = 20 * (rand(5, 3, 2, seed=2) - 0.5)
    seen = rand(5, 3, *cameras, 3, 16, 16, seed=3)
    for each in (episode, undisturbed):
        each.observe(seen[0], steps[0])
    episode.restart(new, tasks=1, rows=[1], generator=one_each(1, first=7))
    alone = agent.start(new, tasks=1, generator=one_each(1, first=7))
    torch.testing.assert_close(episode.act()[1:2], alone.act())
    for step in range(1, 5):
        episode.observe(seen[step], steps[step])
        undisturbed.observe(seen[step], steps[step])
        alone.observe(seen[step, 1:2], steps[step, 1:2])
    torch.testing.assert_close(episode.agent_states[1:2], alone.agent_states, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(episode.agent_states[[0, 2]], undisturbed.agent_states[[0, 2]], atol=1e-4, rtol=1e-3)
    first, second = episode.dream().pixel_values, alone.dream().pixel_values
    torch.testing.assert_close(first[1:2], second, atol=1e-4, rtol=1e-3)


def test_act_changes_nothing_and_follows_the_noise_of_the_row():
    agent, frames = tiny_agent(), rand(2, 2, 3, 16, 16)
    episode = agent.start(frames, generator=one_each(2))
    action = episode.act()
    assert torch.equal(action, episode.act()) and action.shape == (2, 2)
    best = episode.act(deterministic=True)
    assert torch.equal(best, agent.actions.decode(agent.actions.mode(agent.policy_head.nearest(episode.agent_states))))
    assert torch.equal(episode.act(temperature=1e-4), best)
    again = agent.start(frames[1:], generator=one_each(1, first=1))
    assert torch.equal(again.act(), action[1:])
    by_agent, by_hand = episode.clone(), episode.clone()
    torch.testing.assert_close(by_agent.dream().latents, by_hand.dream(action).latents)


def test_the_dream_of_a_row_does_not_depend_on_who_acts():
    """The noise of the world is drawn in the same order whether the agent acts or a person does."""
    agent = tiny_agent()
    first, second = (agent.start(rand(1, 2, 3, 16, 16), generator=one_each(1)) for _ in range(2))
    for _ in range(4):
        action = first.act()
        first.dream()
        second.dream(action)
    assert torch.equal(first.agent_states, second.agent_states)


def test_clones_branch_join_and_return():
    agent = tiny_agent()
    episode = agent.start(rand(2, 3, 3, 16, 16), generator=one_each(2))
    kept = episode.clone()
    swapped = episode.clone(rows=[1, 0])
    straight = [episode.dream().latents for _ in range(4)]
    for expected in straight:
        torch.testing.assert_close(swapped.dream().latents, expected.flip(0), atol=1e-5, rtol=1e-4)
    parts = [kept.clone(rows=[0]), kept.clone(rows=[1])]
    joined = type(episode).join(parts)
    for expected in straight:
        torch.testing.assert_close(joined.dream().latents, expected, atol=1e-5, rtol=1e-4)
    episode.copy_(kept)
    assert torch.equal(episode.dream().latents, straight[0])
    many = kept.clone(rows=[0] * 6)
    assert len(many.act().unique(dim=0)) == 1
    many.set_generator(one_each(6))
    assert len(many.act().unique(dim=0)) > 1


def test_another_task_is_seen_with_the_next_frame():
    agent = tiny_agent(num_tasks=2, task_names=["left", "right"])
    frames = rand(1, 2, 3, 16, 16)
    first, second = (agent.start(frames, tasks="left", generator=seeded()) for _ in range(2))
    second.set_tasks("right")
    assert torch.equal(first.agent_states, second.agent_states)
    outputs = [episode.dream([[1.0, 2.0]]).latents for episode in (first, second)]
    assert torch.equal(*outputs) and not torch.allclose(first.agent_states, second.agent_states, atol=1e-3)


def test_start_frames_bring_their_actions():
    agent = tiny_agent()
    frames, actions = (255 * rand(2, 3, 3, 16, 16)).byte(), (10 * randn(2, 3, 2)).clamp(-30, 30)
    mask = torch.ones(2, 3, dtype=torch.bool)
    start = agent.start(StartFrames(frames, actions, mask), generator=seeded())
    assert torch.equal(start.agent_states, agent.start(frames, actions, mask, generator=seeded()).agent_states)


def test_episodes_in_latent_space_return_no_frames_and_dream_the_same():
    agent, frames = tiny_agent(), rand(1, 2, 3, 16, 16)
    shown, hidden = (agent.start(frames, generator=seeded(), decode=decode) for decode in (True, False))
    first, second = shown.dream(), hidden.dream()
    assert first.pixel_values.shape == (1, 3, 16, 16) and second.pixel_values is None
    assert torch.equal(first.latents, second.latents)


def test_an_episode_that_dreams_refuses_real_frames():
    agent = tiny_agent()
    episode = agent.start(rand(1, 2, 3, 16, 16))
    branch = episode.clone()
    branch.dream()
    with pytest.raises(ValueError, match="has dreamed since its last real frame"):
        branch.observe(rand(1, 3, 16, 16), [[0.0, 0.0]])
    episode.observe(rand(1, 3, 16, 16), [[0.0, 0.0]])


def test_a_refused_frame_leaves_the_episode_unchanged():
    agent = tiny_agent()
    first, second = (agent.start(rand(1, 2, 3, 16, 16), generator=one_each(1)) for _ in range(2))
    with pytest.raises(ValueError, match="actions of shape"):
        first.observe(rand(1, 3, 16, 16), [[0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="finite"):
        first.dream([[float("nan"), 0.0]])
    for episode in (first, second):
        episode.observe(rand(1, 3, 16, 16, seed=1), [[1.0, 1.0]])
    assert torch.equal(first.agent_states, second.agent_states) and torch.equal(first.act(), second.act())


def test_a_cache_holds_agent_tokens_of_all_frames_or_of_none():
    agent = tiny_agent()
    dynamics, ids = agent.world.dynamics, torch.zeros(1, 1, dtype=torch.int64)
    with_agent = agent.start_from_latents(randn(1, 2, 3, 5)).rollout.cache
    with pytest.raises(ValueError, match="agent tokens of all frames"):
        dynamics(randn(1, 1, 3, 5), ids, ids, past_key_values=with_agent)
    alone = dynamics.start_rollout(randn(1, 2, 3, 5)).cache
    with pytest.raises(ValueError, match="agent tokens of all frames"):
        agent(randn(1, 1, 3, 5), ids, ids, past_key_values=alone, num_commit_frames=0)
    with pytest.raises(ValueError, match="agent tokens"):
        rollouts = agent.start_from_latents(randn(1, 2, 3, 5)).rollout, dynamics.start_rollout(randn(1, 2, 3, 5))
        type(rollouts[0]).join(rollouts)


@pytest.mark.parametrize("actions", ["bins", "joint", "normal"])
def test_imagined_trajectories(actions):
    fields = {"joint": {"joint_action_bins": True}, "normal": {"action_distribution": "normal"}}.get(actions, {})
    agent = tiny_agent(predicts_continue=True, **fields)
    given = randn(4, 3, 3, 5), 10 * rand(4, 3, 2)
    dream = agent.imagine(*given, horizon=5, num_inference_steps=2, generator=one_each(4), return_latents=True)
    assert dream.agent_states.shape == (4, 6, 160) and dream.latents.shape == (4, 5, 3, 5)
    assert dream.values.shape == (4, 6) and dream.rewards.shape == dream.continues.shape == (4, 5)
    assert torch.equal(agent.actions.decode(dream.action_choices), dream.actions)
    assert torch.equal(agent.rewards_of(dream.agent_states[:, 1:]), dream.rewards)
    assert ((dream.continues > 0) & (dream.continues < 1)).all()
    alone = agent.imagine(given[0][2:3], given[1][2:3], horizon=5, num_inference_steps=2, generator=one_each(1, 2))
    torch.testing.assert_close(alone.agent_states, dream.agent_states[2:3], atol=1e-4, rtol=1e-3)
    log_prob = agent.actions.log_prob(agent.policy_head.nearest(dream.agent_states[:, :-1]), dream.action_choices)
    assert log_prob.shape == (4, 5) and log_prob.requires_grad


def test_the_prior_dreams_with_the_noise_of_the_policy():
    agent = tiny_agent()
    given = {"latents": randn(2, 3, 3, 5), "horizon": 4}
    policy = agent.imagine(**given, generator=seeded())
    other = agent.imagine(**given, generator=seeded(), use_prior=True)
    assert torch.equal(policy.agent_states[:, 0], other.agent_states[:, 0])
    assert not torch.equal(policy.actions, other.actions)
    agent.keep_policy_as_prior()
    assert torch.equal(policy.actions, agent.imagine(**given, generator=seeded(), use_prior=True).actions)


def test_the_reward_of_a_rollout_is_that_of_its_last_frame():
    agent = tiny_agent()
    episode = agent.start(rand(2, 2, 3, 16, 16), generator=seeded())
    episode.dream()
    expected = agent.rewards_of(episode.agent_states)
    for rollout in (episode, episode.rollout, episode.rollout.latent_rollout):
        assert torch.equal(agent.rewards(rollout), expected)
    assert torch.equal(agent.values(episode), episode.values) and (episode.continues == 1).all()

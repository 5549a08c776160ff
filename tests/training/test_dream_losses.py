"""Learning in dreams, in a world that is a table: action 1 leads to state 1, which is worth 1, action 0 to state 0."""

import pytest
import torch

from dreamer_hf.agent_losses import two_hot_mean
from dreamer_hf.imagination import ImaginedTrajectories
from dreamer_hf.training.agent_arguments import DreamsObjectiveArguments
from dreamer_hf.training.dream_losses import dream_losses
from dreamer_hf.training.trained_agent import TrainedAgent
from tiny import randn, tiny_agent

STATES = randn(2, 160, seed=5)
"""What the agent knows in either state."""


def table_agent():
    """An agent of one action of two classes, whose policy and value know nothing yet."""
    fields = {"action_dim": 1, "action_num_classes": [2], "action_stats": None}
    fields |= {"action_names": None, "relative_actions": None}
    agent = tiny_agent(dynamics_changes=fields, value_range=5, discount=0.5)
    for head in (agent.policy_head, agent.prior_head, agent.value_head):
        for output in head.outputs:
            torch.nn.init.zeros_(output.weight)
            torch.nn.init.zeros_(output.bias)
    agent.keep_policy_as_prior()
    agent.requires_grad_(False)
    agent.policy_head.requires_grad_(True)
    agent.value_head.requires_grad_(True)
    return TrainedAgent(agent, with_slow_value=True)


@torch.no_grad()
def dream(agent, generator, batch=32, horizon=4):
    state = torch.randint(2, (batch,), generator=generator)
    known, choices, rewards = [STATES[state]], [], []
    for _ in range(horizon):
        probability = agent.policy_head.nearest(known[-1]).softmax(-1)[:, 1]
        state = (torch.rand(batch, generator=generator) < probability).long()
        known.append(STATES[state])
        choices.append(state[:, None])
        rewards.append(state.float())
    rewards = torch.stack(rewards, dim=1)
    return ImaginedTrajectories(
        agent_states=torch.stack(known, dim=1),
        action_choices=torch.stack(choices, dim=1),
        rewards=rewards,
        continues=torch.ones_like(rewards),
    )


def learned(steps=200, **options):
    trained, generator = table_agent(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    options = DreamsObjectiveArguments(**options)
    for _ in range(steps):
        trained.update_slow_value(options.slow_value_decay)
        terms, extras = dream_losses(trained, trained, dream(trained.agent, generator), options)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    return trained.agent.requires_grad_(False), extras


def test_the_policy_learns_what_is_rewarded():
    agent, extras = learned()
    assert agent.policy_head.nearest(STATES).softmax(-1)[:, 1].min() > 0.95
    assert agent.prior_head.nearest(STATES).softmax(-1)[:, 1].max() == pytest.approx(0.5)
    assert extras["kl"] > 0.3 and extras["imagined_reward"] > 0.9


def test_a_strong_leash_keeps_it_at_the_prior():
    agent, _ = learned(steps=60, prior_weight=100.0)
    assert agent.policy_head.nearest(STATES).softmax(-1)[:, 1] == pytest.approx(0.5, abs=0.03)


def test_the_value_learns_the_discounted_rewards():
    agent, _ = learned(steps=400)
    values = two_hot_mean(agent.value_head.nearest(STATES), agent.value_bins)
    # Nearly all actions are the rewarded one by then.
    assert values == pytest.approx(1 / (1 - 0.5), rel=0.2)


def test_what_follows_the_end_of_an_episode_teaches_nothing():
    trained, generator = table_agent(), torch.Generator().manual_seed(1)
    ended = dream(trained.agent, generator)
    ended.continues[:, 0] = 0
    options = DreamsObjectiveArguments()
    terms, _ = dream_losses(trained, trained, ended, options)
    terms["value"].backward()
    whole = [p.grad.clone() for p in trained.agent.value_head.parameters()]
    trained.zero_grad()
    ended.rewards[:, 1:] = 7
    dream_losses(trained, trained, ended, options)[0]["value"].backward()
    for before, parameter in zip(whole, trained.agent.value_head.parameters()):
        torch.testing.assert_close(parameter.grad, before)


def test_the_first_states_of_a_dream_count_until_it_ends():
    trained = table_agent()
    given = dream(trained.agent, torch.Generator().manual_seed(1))
    whole = dream_losses(trained, trained, given, DreamsObjectiveArguments())[0]["value"]
    given.continues[:, 1] = 0
    assert dream_losses(trained, trained, given, DreamsObjectiveArguments())[0]["value"] < whole

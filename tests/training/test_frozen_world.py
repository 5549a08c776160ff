"""What an agent sees of a frozen world against the agent's own pass."""

import pytest
import torch

from dreamer_hf.losses import FrameConditions
from dreamer_hf.training.frozen_world import agent_states, world_memory
from tiny import STATE, randn, tiny_agent, tiny_states


@pytest.mark.parametrize("num_agent_tokens", [1, 2])
@pytest.mark.parametrize("fields", [{}, STATE, {"num_key_value_heads": 2}], ids=["plain", "state", "grouped"])
def test_the_states_are_those_of_the_whole_pass(num_agent_tokens, fields):
    agent = tiny_agent(dynamics_changes=fields, num_tasks=3, num_agent_tokens=num_agent_tokens)
    dynamics, tasks = agent.world.dynamics, torch.tensor([2, 0])
    latents, actions = randn(2, 7, 3, 5, seed=1), randn(2, 7, 2, seed=2)
    levels = torch.full((2, 7), 14)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 0] = False
    states = dynamics.normalize_states(tiny_states(2, 7)) if dynamics.config.state_dim else None
    conditions = FrameConditions(levels, torch.zeros_like(levels), actions, mask)
    memory = world_memory(dynamics, latents, conditions, states)
    given = {} if states is None else {"states": states}
    expected = agent(latents, levels, torch.zeros_like(levels), actions, mask, tasks=tasks, **given).agent_states
    torch.testing.assert_close(agent_states(agent, memory, tasks), expected, atol=2e-5, rtol=1e-5)


def test_gradients_reach_only_the_agent():
    agent = tiny_agent(num_tasks=2)
    agent.world.requires_grad_(False)
    levels = torch.full((1, 4), 14)
    memory = world_memory(agent.world.dynamics, randn(1, 4, 3, 5), FrameConditions(levels, levels * 0))
    agent_states(agent, memory, torch.tensor([1])).square().sum().backward()
    assert agent.agent_tokens.base.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in agent.world.parameters())

"""What an agent can learn and what it cannot: the next action follows from what it has seen, never from what comes."""

import math

import pytest
import torch

from dreamer_hf.agent_losses import policy_loss, reward_loss
from tiny import randn, tiny_agent

STEPS, WINDOWS, FRAMES = 120, 16, 6
BINARY = {"action_dim": 1, "action_num_classes": [2], "action_stats": None, "action_names": None}
BINARY |= {"relative_actions": None}


def colors_and_latents(seed):
    """A color of each frame, 0 or 1 (B,T), and latents that show it."""
    colors = (randn(WINDOWS, FRAMES, seed=seed) > 0).long()
    latents = 0.3 * randn(WINDOWS, FRAMES, 3, 5, seed=seed + 1000) + (2.0 * colors - 1)[..., None, None]
    return colors, latents


def train(agent, actions_of, loss_of, steps=STEPS):
    """Trains agent tokens and heads on made-up windows; returns the mean loss of the last steps."""
    agent.world.requires_grad_(False)
    optimizer = torch.optim.Adam([part for part in agent.parameters() if part.requires_grad], lr=1e-2)
    losses = []
    for step in range(steps):
        colors, latents = colors_and_latents(step)
        actions, mask = actions_of(colors)
        ids = torch.full((WINDOWS, FRAMES), 14)
        output = agent(latents, ids, torch.zeros_like(ids), actions[..., None].float(), mask)
        loss = loss_of(agent, output, colors, actions, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-15:]) / 15


def cloning(agent, output, colors, actions, mask):
    choices = agent.actions.encode(actions[..., None].float())
    return policy_loss(agent.actions, output.policy_logits[:, :, :1], choices, mask)


def of_previous_frame(colors):
    """The action that leads to a frame says which color the frame before had; the first frame has none."""
    mask = torch.arange(FRAMES).expand(WINDOWS, -1) > 0
    return torch.cat([torch.zeros_like(colors[:, :1]), colors[:, :-1]], dim=1), mask


def of_its_frame(colors):
    """The action that leads to a frame says which color that frame has: it cannot be known before."""
    return colors, torch.arange(FRAMES).expand(WINDOWS, -1) > 0


@pytest.mark.slow
def test_actions_that_follow_from_the_past_are_learned():
    assert train(tiny_agent(dynamics_changes=BINARY), of_previous_frame, cloning) < 0.1


@pytest.mark.slow
def test_actions_that_only_the_future_shows_are_not_learned():
    assert train(tiny_agent(dynamics_changes=BINARY), of_its_frame, cloning) > 0.9 * math.log(2)


@pytest.mark.slow
def test_the_reward_of_a_frame_is_learned_from_the_frame_and_its_action():
    def loss_of(agent, output, colors, actions, mask):
        rewards = (colors == actions).float()
        return reward_loss(output.reward_logits[:, :, :1], rewards, mask, agent.value_bins)

    def random_actions(colors):
        return colors.roll(1, 0), torch.arange(FRAMES).expand(WINDOWS, -1) > 0

    agent = tiny_agent(dynamics_changes=BINARY, num_value_bins=11)
    assert train(agent, random_actions, loss_of, steps=320) < 0.2

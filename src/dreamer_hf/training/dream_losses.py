"""What an agent learns from a dream: PMPO with a frozen prior for the policy, lambda-returns for the value.

Source: arXiv 2509.24527, section 4.1. The slow copy of the value is DreamerV3's (arXiv 2301.04104).

Shapes: B dreams, H dreamed frames, W logits of an action, M value bins.
"""

import torch
from torch import nn

from ..agent_losses import lambda_returns, pmpo_loss, two_hot_loss, two_hot_mean
from ..imagination import ImaginedTrajectories
from .agent_arguments import DreamsObjectiveArguments
from .trained_agent import TrainedAgent

Scalars = dict[str, torch.Tensor]


def dream_losses(
    model: nn.Module, trained: TrainedAgent, dream: ImaginedTrajectories, options: DreamsObjectiveArguments
) -> tuple[Scalars, Scalars]:
    """Return the losses of policy and value, and what to log about them.

    Args:
        model: `trained`, which may be wrapped for distributed training.
        trained: the agent, with or without a slow copy of its value head.
        dream: what the agent did and expects.
        options: lambda, weights and so on.

    Returns:
        Terms `policy` and `value`, scalars with gradient, and scalars without.
    """
    agent, discount, bins = trained.agent, trained.config.discount, trained.agent.value_bins
    policy_logits, value_logits = model(agent_states=dream.agent_states)
    values = two_hot_mean(value_logits.detach(), bins)
    returns = lambda_returns(dream.rewards, values, dream.continues, discount, options.lambda_return)
    advantages = returns - values[:, :-1]
    states, policy_logits, value_logits = dream.agent_states[:, :-1], policy_logits[:, :-1], value_logits[:, :-1]
    # What comes after a possible end of the episode counts in proportion to its probability.
    alive = torch.cat([torch.ones_like(dream.continues[:, :1]), dream.continues[:, :-1]], dim=1).cumprod(dim=1)
    value_loss = two_hot_loss(value_logits, returns, bins)
    if trained.slow_value is not None:
        slow = two_hot_mean(trained.slow_value.nearest(states), bins)
        value_loss = value_loss + two_hot_loss(value_logits, slow, bins)
    log_prob = agent.actions.log_prob(policy_logits, dream.action_choices)
    divergence = agent.actions.kl(policy_logits, agent.prior_head.nearest(states))
    policy_loss = pmpo_loss(log_prob, advantages, options.alpha, alive, _global_sizes(advantages))
    policy_loss = policy_loss + options.prior_weight * (alive * divergence).mean()
    earned = dream.rewards.flatten().float()
    extras = {
        "imagined_reward": earned.mean(),
        "imagined_reward_low": earned.quantile(0.05),
        "imagined_reward_high": earned.quantile(0.95),
        "imagined_return": returns[:, 0].mean(),
        "good_share": (advantages >= 0).float().mean(),
        "kl": divergence.mean(),
        "entropy": agent.actions.entropy(policy_logits).mean(),
        "value_mean": values.mean(),
        "value_error": advantages.abs().mean(),
    }
    return {"policy": policy_loss, "value": (alive * value_loss).mean()}, {n: v.detach() for n, v in extras.items()}


def _global_sizes(advantages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return how many states of all processes have good and bad actions, per process; None for a single process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return None
    good = (advantages >= 0).float().sum()
    sizes = torch.stack([good, advantages.numel() - good])
    torch.distributed.all_reduce(sizes)
    return tuple(sizes / torch.distributed.get_world_size())


__all__ = ["dream_losses"]

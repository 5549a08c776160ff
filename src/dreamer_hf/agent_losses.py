"""The losses of an agent: behavior cloning and rewards by multi-token prediction, values, and learning in dreams.

Source: arXiv 2509.24527, sections 3.3 and 4.1; the two-hot bins are those of DreamerV3 (arXiv 2301.04104).

One rule aligns everything: what the agent knows at frame t, it knows from frames and actions up to t. The policy at t
predicts the action that leads to frame t+1, and the reward head predicts what arriving at frame t was worth.

Shapes: B rows, T frames, L prediction distances, M bins, C choices of an action, W logits of an action, H steps.
"""

from functools import lru_cache

import torch

from .agent_distributions import ActionDistribution


@lru_cache(maxsize=32)
def symexp_bins(num_bins: int, value_range: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the bins of rewards and values, float32 (M,): symexp of an even grid from -S to S.

    `symexp(x) = sign(x) (exp(|x|) - 1)`. The upper half is the mirror image of the lower one, so the mean of a uniform
    distribution is exactly 0.

    Args:
        num_bins: M, odd.
        value_range: S.
        device: where to put them.
    """
    lower = 0 - torch.expm1(torch.linspace(value_range, 0, num_bins // 2 + 1, dtype=torch.float64))
    return torch.cat([lower, -lower[:-1].flip(0)]).float().to(device)


def two_hot(values: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Return the distribution over two neighboring bins whose mean is each value, float32.

    It is interpolated in the space of the values, not of the bins' logarithms: the mean of several targets is then the
    mean of their values.

    Args:
        values: (...) float; those outside the bins are clipped to the ends.
        bins: (M,), ascending.

    Returns:
        (..., M), weights that sum to 1.
    """
    values = values.float().clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, values.contiguous(), right=True).clamp(1, len(bins) - 1)
    below, above = bins[upper - 1], bins[upper]
    weight = (values - below) / (above - below)
    target = torch.zeros(*values.shape, len(bins), device=values.device)
    target.scatter_(-1, upper[..., None] - 1, 1 - weight[..., None])
    return target.scatter_(-1, upper[..., None], weight[..., None])


def two_hot_mean(logits: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Return the mean (...) float32 of the distributions over bins (M,) that logits (..., M) give.

    Mirrored bins are added first, so that a symmetric distribution has a mean of exactly 0.
    """
    weighted, half = logits.float().softmax(-1) * bins, len(bins) // 2
    pairs = weighted[..., :half] + weighted[..., half + 1 :].flip(-1)
    return pairs.sum(-1) + weighted[..., half]


def two_hot_loss(logits: torch.Tensor, values: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy (...) of logits (..., M) with the two-hot targets of values (...)."""
    return -(two_hot(values, bins) * logits.float().log_softmax(-1)).sum(-1)


def future_targets(
    values: torch.Tensor, mask: torch.Tensor, num_steps: int, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each frame predicts about the frames after it (multi-token prediction).

    Args:
        values: (B,T,...), a value of each frame.
        mask: (B,T) bool, False where there is none.
        num_steps: L.
        first: frames ahead at distance 0: 1 for actions, 0 for rewards.

    Returns:
        Targets (B,T,L,...), of which [:, t, n] is that of frame t + first + n, and (B,T,L) bool, whether it exists: it
        lies in the window and its mask is True. Targets that do not exist hold some other value of the window.
    """
    length = mask.shape[1]
    index = torch.arange(length, device=mask.device)[:, None] + torch.arange(num_steps, device=mask.device) + first
    inside, index = index < length, index.clamp(max=length - 1)
    return values[:, index], mask[:, index] & inside


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values where the mask is True, a scalar; 0 with a gradient of 0 if it never is."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def policy_nll(
    distribution: ActionDistribution, logits: torch.Tensor, choices: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the negative log-likelihood of the actions that each frame predicts, and which of them exist.

    Args:
        distribution: the agent's.
        logits: (B,T,L,W); [:, t, n] predicts the action of frame t + 1 + n.
        choices: (B,T,C) of the window's actions, by `distribution.encode`.
        mask: (B,T) bool, False where a frame has no action (or none that is to be imitated).

    Returns:
        (B,T,L) float32 and (B,T,L) bool; see `future_targets`.
    """
    targets, exists = future_targets(choices, mask, logits.shape[2], first=1)
    return -distribution.log_prob(logits, targets), exists


def policy_loss(
    distribution: ActionDistribution, logits: torch.Tensor, choices: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return the loss of behavior cloning, a scalar: the mean of `policy_nll` over the pairs that exist."""
    return masked_mean(*policy_nll(distribution, logits, choices, mask))


def reward_loss(logits: torch.Tensor, rewards: torch.Tensor, mask: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the rewards that each frame predicts, a scalar.

    Args:
        logits: (B,T,L,M); [:, t, n] predicts the reward of frame t + n.
        rewards: (B,T), what arriving at each frame was worth; any number where there is none.
        mask: (B,T) bool, False where a frame has no reward.
        bins: (M,), see `symexp_bins`.
    """
    rewards = rewards.float().masked_fill(~mask, 0)
    targets, exists = future_targets(rewards, mask, logits.shape[2], first=0)
    return masked_mean(two_hot_loss(logits, targets, bins), exists)


def continue_loss(logits: torch.Tensor, continues: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy, a scalar, of logits (B,T) with whether the episode continues after each
    frame, (B,T) of 0 and 1, where the mask (B,T) is True."""
    errors = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), continues.float().masked_fill(~mask, 0), reduction="none"
    )
    return masked_mean(errors, mask)


@torch.no_grad()
def lambda_returns(
    rewards: torch.Tensor, values: torch.Tensor, continues: torch.Tensor, discount: float, lambda_: float
) -> torch.Tensor:
    """Return the lambda-returns R_0..R_{H-1} of imagined trajectories, (B,H) float32, without gradient.

    `R_H = v_H`, and `R_t = r_{t+1} + discount c_{t+1} ((1 - lambda) v_{t+1} + lambda R_{t+1})`.

    Args:
        rewards: (B,H), r_1..r_H.
        values: (B,H+1), v_0..v_H.
        continues: (B,H), c_1..c_H: 1, or 0 (or a probability) where the episode ends at a frame.
        discount: per frame.
        lambda_: 0 trusts the next value, and 1 only the last one.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    steps = rewards.shape[1]
    if continues.shape != rewards.shape or values.shape != (len(rewards), steps + 1):
        raise ValueError(
            f"expected values of shape (B, H + 1) for rewards and continues (B, H), got {tuple(values.shape)}, "
            f"{tuple(rewards.shape)} and {tuple(continues.shape)}."
        )
    returns = [values[:, -1].float()]
    for step in reversed(range(steps)):
        ahead = (1 - lambda_) * values[:, step + 1].float() + lambda_ * returns[-1]
        returns.append(rewards[:, step].float() + discount * continues[:, step].float() * ahead)
    return torch.stack(returns[:0:-1], dim=1)


def pmpo_loss(
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    alpha: float = 0.5,
    weights: torch.Tensor | None = None,
    counts: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the policy's loss in dreams, a scalar (PMPO, section 4.1), without its KL divergence from the prior.

    `(1 - alpha) / |D-| sum over D- of ln pi(a|s)  -  alpha / |D+| sum over D+ of ln pi(a|s)`, where D+ are the states
    with an advantage of at least 0 and D- the others: only the sign counts. An empty set contributes 0.

    Args:
        log_prob: (...) log-probability of the action taken in each state, with gradient.
        advantages: (...) return less value; no gradient flows.
        alpha: weight of D+.
        weights: (...) of the states, such as the probability that the episode still runs; 1 by default.
        counts: sizes of D+ and D-, if they are those of a batch that is spread over processes; those of the given
            states by default.
    """
    weights = torch.ones_like(log_prob) if weights is None else weights.detach()
    is_good = advantages.detach() >= 0
    sets = [torch.where(chosen, weights, 0) for chosen in (is_good, ~is_good)]
    sizes = [chosen.sum() for chosen in (is_good, ~is_good)] if counts is None else counts
    good, bad = ((each * log_prob).sum() / size.clamp(min=1) for each, size in zip(sets, sizes))
    return (1 - alpha) * bad - alpha * good


__all__ = [
    "continue_loss",
    "future_targets",
    "lambda_returns",
    "masked_mean",
    "pmpo_loss",
    "policy_loss",
    "policy_nll",
    "reward_loss",
    "symexp_bins",
    "two_hot",
    "two_hot_loss",
    "two_hot_mean",
]

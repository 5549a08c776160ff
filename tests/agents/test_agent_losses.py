"""The agent's losses against numbers by hand and double loops."""

import pytest
import torch

from dreamer_hf.agent_losses import (
    continue_loss,
    future_targets,
    lambda_returns,
    masked_mean,
    pmpo_loss,
    policy_loss,
    policy_nll,
    reward_loss,
    symexp_bins,
    two_hot,
    two_hot_loss,
    two_hot_mean,
)
from tiny import action_distribution as distribution
from tiny import rand, randn


def test_bins_are_mirrored_and_end_at_symexp_of_the_range():
    bins = symexp_bins(255, 5.0)
    assert torch.equal(bins, -bins.flip(0)) and bins[127] == 0 and (bins.diff() > 0).all()
    torch.testing.assert_close(bins[-1], torch.tensor(5.0).exp() - 1)


def test_two_hot_is_exact_at_bins_linear_between_and_clipped_outside():
    bins = symexp_bins(7, 3.0)
    assert torch.equal(two_hot(bins, bins), torch.eye(7))
    quarter = two_hot(bins[2] + 0.25 * (bins[3] - bins[2]), bins)
    torch.testing.assert_close(quarter, torch.tensor([0, 0, 0.75, 0.25, 0, 0, 0]))
    assert two_hot(torch.tensor([-1e9, 1e9]), bins).argmax(-1).tolist() == [0, 6]


def test_values_survive_two_hot_and_uniform_logits_mean_exactly_zero():
    bins = symexp_bins(255, 20.0)
    values = 100 * randn(50)
    torch.testing.assert_close(two_hot_mean(two_hot(values, bins).log(), bins), values, atol=1e-3, rtol=1e-4)
    assert (two_hot_mean(torch.full((3, 255), 0.7), bins) == 0).all()


def test_the_best_logits_of_a_random_reward_have_its_mean():
    """Interpolating between logarithms of values would be biased."""
    bins, rewards = symexp_bins(31, 5.0), 20 * rand(4000)
    best = two_hot(rewards, bins).mean(0).clamp(min=1e-12).log()
    torch.testing.assert_close(two_hot_mean(best, bins), rewards.mean(), atol=1e-3, rtol=1e-4)
    worse = two_hot_loss((best + 0.1 * randn(31)).expand(4000, -1), rewards, bins).mean()
    assert two_hot_loss(best.expand(4000, -1), rewards, bins).mean() < worse


def test_each_frame_predicts_the_next_actions_and_its_own_reward_within_the_window():
    numbers, mask = torch.arange(5).expand(2, -1).clone(), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 0] = False
    actions, exists = future_targets(numbers, mask, 3, first=1)
    assert actions[0, 0].tolist() == [1, 2, 3] and exists[0, 2].tolist() == [True, True, False]
    assert not exists[:, 4].any()
    rewards, exists = future_targets(numbers, mask, 3, first=0)
    assert rewards[0, 1].tolist() == [1, 2, 3] and exists[1, 0].tolist() == [False, True, True]


def test_losses_of_a_window_are_those_of_its_pairs_one_by_one():
    actions, mask = distribution(), rand(2, 5) < 0.7
    logits, choices = randn(2, 5, 3, actions.num_logits), actions.encode(30 * randn(2, 5, 2))
    rewards, reward_logits, bins = randn(2, 5), randn(2, 5, 3, 7), symexp_bins(7, 3.0)
    policy, reward = [], []
    for row in range(2):
        for frame in range(5):
            for distance in range(3):
                if frame + 1 + distance < 5 and mask[row, frame + 1 + distance]:
                    chosen = choices[row, frame + 1 + distance]
                    policy.append(-actions.log_prob(logits[row, frame, distance], chosen))
                if frame + distance < 5 and mask[row, frame + distance]:
                    log_probs = reward_logits[row, frame, distance].log_softmax(-1)
                    reward.append(-(two_hot(rewards[row, frame + distance], bins) * log_probs).sum())
    torch.testing.assert_close(policy_loss(actions, logits, choices, mask), torch.stack(policy).mean())
    missing = rewards.masked_fill(~mask, torch.nan)
    torch.testing.assert_close(reward_loss(reward_logits, missing, mask, bins), torch.stack(reward).mean())
    nll, exists = policy_nll(actions, logits, choices, mask)
    assert int(exists.sum()) == len(policy) and nll.shape == (2, 5, 3)


def test_batches_without_targets_have_a_loss_and_a_gradient_of_zero():
    actions, logits = distribution(), randn(2, 4, 3, 10).requires_grad_()
    loss = policy_loss(actions, logits, torch.zeros(2, 4, 2, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not logits.grad.any()
    assert masked_mean(torch.full((2,), torch.nan), torch.zeros(2, dtype=torch.bool)) == 0


def test_continue_loss_counts_the_frames_that_have_a_flag():
    logits, flags = torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[1.0, 0.0, torch.nan]])
    mask = torch.tensor([[True, True, False]])
    expected = -(torch.tensor(0.0).sigmoid().log() + torch.tensor(-2.0).sigmoid().log()) / 2
    torch.testing.assert_close(continue_loss(logits, flags, mask), expected)


@pytest.mark.parametrize("steps", [1, 6])
def test_lambda_returns_equal_the_sum_over_all_lengths(steps):
    rewards, values, continues = randn(3, steps), randn(3, steps + 1, seed=1), rand(3, steps, seed=2)
    discount, lambda_ = 0.9, 0.8
    expected = torch.zeros(3, steps)
    for start in range(steps):
        for length in range(1, steps - start + 1):  # n-step returns, weighted by (1 - lambda) lambda^(n - 1)
            total, factor = 0, 1
            for step in range(start, start + length):
                total = total + factor * rewards[:, step]
                factor = factor * discount * continues[:, step]
            total = total + factor * values[:, start + length]
            weight = lambda_ ** (length - 1) * (1 - lambda_ if start + length < steps else 1)
            expected[:, start] += weight * total
    torch.testing.assert_close(lambda_returns(rewards, values, continues, discount, lambda_), expected)


def test_nothing_after_the_end_of_an_episode_counts():
    continues = torch.tensor([[1.0, 0.0, 1.0]])
    returns = lambda_returns(torch.ones(1, 3), torch.full((1, 4), 50.0), continues, 1.0, 1.0)
    assert returns.tolist() == [[2.0, 1.0, 51.0]]
    with pytest.raises(ValueError, match="H \\+ 1"):
        lambda_returns(torch.ones(1, 3), torch.ones(1, 3), torch.ones(1, 3), 1.0, 1.0)


def test_pmpo_by_hand():
    log_prob, advantages = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0.0, -0.1, 9.0])
    assert pmpo_loss(log_prob, advantages, alpha=0.25).item() == pytest.approx(0.75 * -2 - 0.25 * (-1 - 4) / 2)
    assert pmpo_loss(log_prob, advantages.abs()).item() == pytest.approx(-0.5 * -7 / 3)
    weighted = pmpo_loss(log_prob, advantages, weights=torch.tensor([1.0, 0.5, 0.0]))
    assert weighted.item() == pytest.approx(0.5 * -1 - 0.5 * -1 / 2)
    spread = pmpo_loss(log_prob, advantages, counts=(torch.tensor(4), torch.tensor(2)))
    assert spread.item() == pytest.approx(0.5 * -2 / 2 - 0.5 * -5 / 4)


def test_two_hot_and_policy_pull_towards_what_was_good():
    log_prob = torch.zeros(2, requires_grad=True)
    pmpo_loss(log_prob, torch.tensor([1.0, -1.0])).backward()
    assert log_prob.grad.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize(("beta", "low", "high"), [(0.3, 0.95, 1.0), (100.0, 0.45, 0.6)])
def test_the_leash_decides_how_far_a_policy_leaves_its_prior(beta, low, high):
    """One state and a binary action, of which the second one is rewarded."""
    world = {"action_dim": 1, "action_num_classes": [2], "action_stats": None}
    actions = distribution(world)
    logits, prior = torch.zeros(2, requires_grad=True), torch.zeros(2)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for step in range(200):
        choices = actions.sample(logits.detach().expand(64, -1), randn(64, 1, seed=step))
        advantages = choices[:, 0].float() - 0.5
        loss = pmpo_loss(actions.log_prob(logits.expand(64, -1), choices), advantages)
        loss = loss + beta * actions.kl(logits, prior)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert low <= logits.softmax(-1)[1].item() <= high

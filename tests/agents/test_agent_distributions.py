"""Actions as choices: every action has a class, every class an action, and probabilities sum to 1."""

import math

import pytest
import torch

from tiny import PUSHES, rand, randn
from tiny import action_distribution as distribution

MIXED = {
    "action_dim": 4,
    "action_num_classes": [0, 2, 5, 0],
    "action_stats": {name: [value] * 4 for name, value in {"mean": 1.0, "std": 2.0, "min": -3.0, "max": 7.0}.items()},
    "action_names": None,
    "relative_actions": [False, False, False, True],
}
"""Two continuous components, one of them a displacement, a binary one and a categorical one."""
CONFIGS = {
    "independent": (PUSHES, {}),
    "joint": (PUSHES, {"joint_action_bins": True, "num_action_bins": [3, 7]}),
    "mu-law": (PUSHES, {"action_bin_mu": 10.0}),
    "mixed": (MIXED, {}),
    "mixed and joint": (MIXED, {"joint_action_bins": True}),
}


def all_choices(actions):
    """All combinations of choices of an `ActionDistribution` without normal parts, (N, C)."""
    return torch.cartesian_prod(*(torch.arange(part.num_logits) for part in actions.parts)).reshape(
        -1, actions.num_choices
    )


@pytest.mark.parametrize(("dynamics", "fields"), CONFIGS.values(), ids=CONFIGS)
def test_every_choice_is_an_action_in_range_that_is_encoded_as_it(dynamics, fields):
    actions = distribution(dynamics, **fields)
    choices = all_choices(actions)
    values = actions.decode(choices)
    low, high = torch.from_numpy(actions.space.low), torch.from_numpy(actions.space.high)
    assert ((values >= low) & (values <= high)).all()
    assert torch.equal(actions.encode(values), choices)
    assert torch.equal(values.amin(0), low) and torch.equal(values.amax(0), high)


@pytest.mark.parametrize(("dynamics", "fields"), CONFIGS.values(), ids=CONFIGS)
def test_probabilities_of_all_choices_sum_to_one(dynamics, fields):
    actions = distribution(dynamics, **fields)
    choices = all_choices(actions)
    logits = 3 * randn(actions.num_logits)
    log_probs = actions.log_prob(logits.expand(len(choices), -1), choices)
    torch.testing.assert_close(log_probs.exp().sum(), torch.tensor(1.0))
    entropy = -(log_probs.exp() * log_probs).sum()
    torch.testing.assert_close(actions.entropy(logits), entropy)
    prior = randn(actions.num_logits, seed=1)
    of_prior = actions.log_prob(prior.expand(len(choices), -1), choices)
    torch.testing.assert_close(actions.kl(logits, prior), (log_probs.exp() * (log_probs - of_prior)).sum())
    best = choices[log_probs.argmax()]
    assert torch.equal(actions.mode(logits), best)


def test_no_motion_has_a_bin_although_the_range_is_not_symmetric():
    actions = distribution()
    middle = actions.encode(torch.zeros(2))
    assert middle.tolist() == [2, 2] and torch.equal(actions.decode(middle), torch.zeros(2))
    assert actions.decode(torch.tensor([3, 1])).tolist() == [18.0, -15.0]


def test_the_middle_of_positions_is_that_of_their_range():
    actions = distribution(MIXED)
    assert actions.decode(actions.encode(torch.tensor([2.0, 1, 4, 0]))).tolist() == [2.0, 1, 4, 0]


def test_mu_law_bins_are_finer_near_the_middle():
    values = distribution(action_bin_mu=10.0, num_action_bins=9).scale.from_bins(torch.arange(9)[:, None].expand(9, 2))
    steps = values[:, 0].diff()
    assert (steps[:4].diff() < 0).all() and (steps[4:].diff() > 0).all() and values[4, 0] == 0


def test_an_action_outside_the_range_becomes_the_nearest_and_is_reported():
    actions = distribution()
    wild = torch.tensor([[100.0, -100.0], [36.01, 0.0]])
    assert actions.decode(actions.encode(wild))[0].tolist() == [36.0, -30.0]
    assert actions.is_outside(wild).tolist() == [True, False]


def test_a_component_that_never_moved_has_its_value_in_every_bin():
    stats = {name: [2.0] for name in ("mean", "min", "max")} | {"std": [0.0]}
    actions = distribution({"action_dim": 1, "action_stats": stats})
    assert actions.encode(torch.tensor([[2.0], [5.0]])).tolist() == [[2], [4]]
    assert actions.decode(torch.arange(5)[:, None]).unique().tolist() == [2.0]


@pytest.mark.parametrize("joint", [False, True])
def test_samples_follow_the_probabilities_and_the_noise_decides(joint):
    actions = distribution(joint_action_bins=joint)
    logits, noise = randn(actions.num_logits).expand(20000, -1), randn(20000, actions.num_choices)
    samples = actions.sample(logits, noise)
    assert torch.equal(samples, actions.sample(logits, noise))
    first = samples[:, 0].bincount(minlength=actions.parts[0].num_logits) / len(samples)
    expected = logits[0, : actions.parts[0].num_logits].softmax(-1)
    torch.testing.assert_close(first, expected, atol=0.015, rtol=0)
    cold = actions.sample(logits, noise, temperature=1e-3)
    assert torch.equal(cold, actions.mode(logits))


def test_extreme_noise_gives_a_class():
    actions = distribution()
    samples = actions.sample(randn(2, actions.num_logits), torch.tensor([[-40.0, 40.0], [40.0, -40.0]]))
    assert samples.min() >= 0 and samples.max() <= 4


def test_normal_actions_have_the_density_of_a_normal_distribution():
    actions = distribution(MIXED, action_distribution="normal")
    logits, raw = randn(6, actions.num_logits), torch.tensor([1.0, 1, 3, -2]).expand(6, -1)
    choices = actions.encode(raw)
    torch.testing.assert_close(actions.decode(choices), raw)
    mean, std = logits[:, [0, 2]].tanh(), 0.1 + 0.9 * logits[:, [1, 3]].sigmoid()
    expected = torch.distributions.Normal(mean, std).log_prob(choices[:, :2]).sum(-1)
    expected = expected + logits[:, 4:6].log_softmax(-1)[:, 1] + logits[:, 6:].log_softmax(-1)[:, 3]
    torch.testing.assert_close(actions.log_prob(logits, choices), expected)
    prior = randn(6, actions.num_logits, seed=1)
    other = torch.distributions.Normal(prior[:, [0, 2]].tanh(), 0.1 + 0.9 * prior[:, [1, 3]].sigmoid())
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), other).sum(-1)
    for start, end in ((4, 6), (6, 11)):
        both = (torch.distributions.Categorical(logits=of[:, start:end]) for of in (logits, prior))
        kl = kl + torch.distributions.kl_divergence(*both)
    torch.testing.assert_close(actions.kl(logits, prior), kl)
    torch.testing.assert_close(actions.sample(logits, torch.zeros(6, 4))[:, :2], mean)


def test_policies_that_are_equal_have_no_divergence_and_no_gradient_of_it():
    actions = distribution()
    logits = randn(4, actions.num_logits).requires_grad_()
    divergence = actions.kl(logits, logits.detach())
    divergence.sum().backward()
    torch.testing.assert_close(divergence, torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


def test_uniform_policies_have_the_entropy_of_all_cells():
    assert math.isclose(distribution().entropy(torch.zeros(10)), math.log(25), rel_tol=1e-6)


def test_random_actions_come_to_their_nearest_bin():
    actions = distribution()
    raw = rand(1000, 2) * 72 - 36
    raw[:, 1] = raw[:, 1].clamp(min=-30)
    values = actions.decode(torch.arange(5)[:, None].expand(5, 2))
    nearest = (raw[:, None] - values).abs().amin(1)
    torch.testing.assert_close((actions.decode(actions.encode(raw)) - raw).abs(), nearest, atol=1e-4, rtol=0)


BAD = {
    "a world whose actions are known too late": ({"action_offset": 0}, {}, "action_offset=1"),
    "no statistics": ({"action_stats": None}, {}, "no action_stats"),
    "even bins": ({}, {"num_action_bins": 4}, "odd"),
    "too many cells": ({}, {"num_action_bins": 101, "joint_action_bins": True}, "10201 cells"),
    "bins of another number of components": ({}, {"num_action_bins": [3, 3, 3]}, "one for each of 2"),
    "an unknown distribution": ({}, {"action_distribution": "beta"}, "'bins' or 'normal'"),
    "joint normals": ({}, {"action_distribution": "normal", "joint_action_bins": True}, "goes with"),
    "names of other tasks": ({}, {"num_tasks": 2, "task_names": ["one"]}, "num_tasks=2"),
    "numbers and vectors": ({}, {"num_tasks": 2, "task_dim": 2}, "numbers or vectors"),
    "an impossible discount": ({}, {"discount": 1.5}, "discount"),
    "values without end": ({}, {"value_range": 100.0}, "value_range"),
}


@pytest.mark.parametrize(("dynamics", "fields", "reason"), BAD.values(), ids=BAD)
def test_impossible_agents_are_refused(dynamics, fields, reason):
    with pytest.raises(Exception, match=reason):
        distribution(PUSHES | dynamics, **fields)

"""The logistic model, its cross-validation and the area under the ROC curve, on data that are easy to check."""

import numpy as np
import pytest

from dreamer_hf.evaluation.logistic import auroc, cross_validated, fit_logistic, log_loss, ranks


def test_a_fitted_model_finds_the_probabilities_that_drew_the_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (20000, 2))
    truth = 1 / (1 + np.exp(-(1.5 * features[:, 0] - 0.5 * features[:, 1] - 3)))
    model = fit_logistic(features, rng.random(len(truth)) < truth)
    np.testing.assert_allclose(model.weights, [1.5, -0.5], atol=0.06)
    assert model.bias == pytest.approx(-3, abs=0.15)
    assert np.abs(model.probability(features) - truth).max() < 0.03


def test_separable_data_have_a_finite_model():
    features = np.array([[0.0], [1.0], [2.0], [3.0]])
    model = fit_logistic(features, np.array([False, False, True, True]))
    assert np.isfinite(model.weights).all()
    assert (model.probability(features) > 0.5).tolist() == [False, False, True, True]


def test_auroc_counts_pairs():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert auroc(scores, labels) == 0.75  # of four pairs one is in the wrong order
    assert auroc(np.zeros(4), labels) == 0.5
    assert np.isnan(auroc(scores, np.zeros(4, bool)))
    assert ranks(np.array([5.0, 1.0, 5.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


def test_cross_validation_never_sees_the_episode_that_it_judges():
    """Labels that only the identity of the episode explains cannot be predicted for other episodes."""
    groups = np.repeat(np.arange(10), 50)
    labels = groups % 2 == 1
    features = np.eye(10)[groups]  # knows the episode, and nothing about another one
    inside = fit_logistic(features, labels).probability(features)
    assert auroc(inside, labels) == 1
    outside = cross_validated(features, labels, groups, num_folds=10)
    assert auroc(outside, labels) < 0.6


def test_log_loss_of_known_probabilities():
    assert log_loss(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(np.log(2))
    assert log_loss(np.array([0.9, 0.2]), np.array([True, False])) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)

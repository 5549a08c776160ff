"""The statistics of a ranking against values computed by hand."""

import numpy as np
import pytest

from dreamer_hf.ranking.rank_statistics import mmrv, pearson, rank_of, spearman
from dreamer_hf.ranking.scoring import EpisodeScores, filled

REAL = np.array([0.1, 0.5, 0.9])


def test_pearson_of_three_policies():
    assert pearson(np.array([1.0, 2.0, 3.0]), REAL) == pytest.approx(1)
    # deviations (-1, 1, 0) and (-0.4, 0, 0.4): 0.4 / sqrt(2 * 0.32)
    assert pearson(np.array([1.0, 3.0, 2.0]), REAL) == pytest.approx(0.5)
    assert np.isnan(pearson(np.ones(3), REAL))


def test_spearman_uses_mean_ranks():
    assert rank_of(np.array([3.0, 1.0, 3.0, 0.0])).tolist() == [3.5, 2, 3.5, 1]
    assert spearman(np.array([1.0, 10.0, 1000.0]), REAL) == pytest.approx(1)
    assert spearman(np.array([3.0, 2.0, 1.0]), REAL) == pytest.approx(-1)


def test_mmrv_takes_the_largest_violation_of_each_policy():
    assert mmrv(np.array([1.0, 2.0, 3.0]), REAL) == 0
    # The last two are exchanged: they violate by 0.4, the first one by nothing.
    assert mmrv(np.array([1.0, 3.0, 2.0]), REAL) == pytest.approx((0 + 0.4 + 0.4) / 3)
    # All reversed: the first and the last violate by 0.8, the middle one by 0.4.
    assert mmrv(np.array([3.0, 2.0, 1.0]), REAL) == pytest.approx((0.8 + 0.4 + 0.8) / 3)


def test_statistics_take_resamples_in_front():
    ours = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])
    real = np.stack([REAL, REAL])
    for statistic in (pearson, spearman, mmrv):
        assert statistic(ours, real).tolist() == [statistic(ours[0], real[0]), statistic(ours[1], real[1])]


def test_summaries_of_an_episode_at_every_horizon():
    rewards = np.array([[0.5, 0.7, 0.2, 0.9]])
    scores = EpisodeScores(rewards, np.array([[False, False, True, False]]))
    for summary, expected in (
        ("gain", [0.2, -0.3, 0.4]),
        ("last", [0.7, 0.2, 0.9]),
        ("mean", [0.7, 0.45, 0.6]),
        ("best", [0.7, 0.7, 0.9]),
        ("success", [0, 1, 1]),
    ):
        np.testing.assert_allclose(scores.by_horizon(summary), [expected])


def test_episodes_are_held_after_their_first_frames():
    scores = EpisodeScores(np.array([[0.0, 1, 2, 3], [4, 5, 6, 7]]), np.array([[False, True, False, False]] * 2))
    held = scores.held(np.array([0, 2]))
    assert held.rewards.tolist() == [[0, 0, 0, 0], [4, 5, 6, 6]]
    assert held.successes.tolist() == [[False] * 4, [False, True, False, False]]


def test_frames_in_which_nothing_is_found_have_the_value_before():
    nan = np.nan
    np.testing.assert_array_equal(filled(np.array([[nan, 1, nan, 3], [2, nan, nan, 4]])), [[1, 1, 1, 3], [2, 2, 2, 4]])

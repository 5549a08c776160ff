import numpy as np
import pytest

from dreamer_hf.evaluation.bootstrap import Bootstrap, mean, median
from dreamer_hf.evaluation.frechet import frechet_by_band, frechet_distance

NAN, INF = np.nan, np.inf


def test_means_ignore_infinite_values_and_medians_count_them():
    values = np.array([[1, NAN, NAN], [3, 2, NAN], [INF, 4, NAN], [INF, NAN, NAN], [5, 6, NAN]], float)
    np.testing.assert_array_equal(mean(values), [3, 4, NAN])
    np.testing.assert_array_equal(median(values), [5, 4, NAN])
    np.testing.assert_array_equal(median(values[:4]), [INF, 3, NAN])
    random = np.random.default_rng(0).normal(size=(7, 6, 4))
    np.testing.assert_allclose(median(random), np.median(random, axis=1))


def test_intervals_cover_the_truth_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        estimate = Bootstrap(30, seed, num_resamples=300).estimate(mean, rng.normal(1.0, 2.0, size=(30, 1)))
        covered.append(estimate.low[0] <= 1.0 <= estimate.high[0])
    assert 0.88 < np.mean(covered) < 0.99


def test_differences_are_taken_between_the_same_episodes():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, size=(40, 1))  # episodes differ much, the two candidates little
    estimate = Bootstrap(40).estimate(lambda a, b: mean(a) - mean(b), hard + 1, hard)
    assert (
        estimate.value == pytest.approx(1) and estimate.low == pytest.approx(1) and estimate.high == pytest.approx(1)
    )


def test_the_interval_of_a_median_that_can_be_infinite_is_not_interpolated():
    values = np.where(np.arange(20)[:, None] < 11, 2.0, INF)
    estimate = Bootstrap(20).estimate(median, values)
    assert estimate.value == 2 and estimate.low == 2 and estimate.high == INF


def test_frechet_distance_of_known_normal_distributions():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200_000, 2)) * [1, 2]
    other = rng.normal(size=(200_000, 2)) * [3, 2] + [0, 1]
    assert frechet_distance(one, other) == pytest.approx(1 + (3 - 1) ** 2, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_frechet_bands_need_more_frames_than_features():
    features = np.random.default_rng(0).normal(size=(4, 20, 17))
    assert set(frechet_by_band(features, features + 1)) == {"1-16"}
    assert frechet_by_band(features, features + 1)["1-16"] == pytest.approx(17, rel=1e-6)

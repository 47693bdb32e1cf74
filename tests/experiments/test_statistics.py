"""Means, interquartile means and intervals."""

import itertools

import numpy as np
import pytest

from experiments.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_and_error,
    probability_of_improvement,
)


def test_mean_and_standard_error():
    mean, error = mean_and_error(np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_allclose(mean, [2.0, 0.0])
    np.testing.assert_allclose(error, [1.0, 0.0])  # sd sqrt(2), over sqrt(2)
    assert np.isnan(mean_and_error(np.array([[1.0]]))[1])


def test_interquartile_mean_leaves_out_the_outer_quarters():
    estimate = interquartile_mean(np.array([0.0, 0.0, 2.0, 3.0, 4.0, 5.0, 100.0, 100.0]))
    assert estimate.value == 3.5  # of 2, 3, 4 and 5: two runs of eight are left out on each side
    assert estimate.low < 3.5 < estimate.high
    curves = interquartile_mean(np.arange(24.0).reshape(8, 3))
    np.testing.assert_allclose(curves.value, [10.5, 11.5, 12.5])
    assert curves.low.shape == (3,)
    few = interquartile_mean(np.array([0.4, 0.6]))
    assert few.value == 0.5
    assert np.isnan(few.low)
    assert not np.isnan(interquartile_mean(np.array([0.4, 0.5, 0.6])).low)


def test_the_interval_equals_that_of_a_slow_bootstrap():
    runs_ = np.random.default_rng(1).random(10)
    rng = np.random.default_rng(2)
    slow = []
    for _ in range(4000):
        chosen = np.sort(rng.choice(runs_, 10))
        slow.append(chosen[2:8].mean())
    estimate = interquartile_mean(runs_)
    np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(slow, [2.5, 97.5]), atol=0.03)


def test_scenarios_are_resampled_separately():
    low, high = np.zeros(4), np.ones(4)  # resampled together, their mean would vary
    for several in (high, np.ones(9)):  # scenarios have equal weight
        estimate = interquartile_mean(low, several)
        assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_probability_of_improvement_counts_pairs():
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(first, second)])
    assert probability_of_improvement(first, second).value == pytest.approx(by_hand)
    assert probability_of_improvement(first + 10, first).low == 1.0


def test_area_under_the_curve_is_the_mean_height():
    steps = np.array([0.0, 10.0, 40.0])
    np.testing.assert_allclose(area_under_curve(steps, np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])), [35 / 40, 2.0])


def test_intervals_are_the_same_each_time():
    runs_ = np.random.default_rng(1).random(10)
    one, other = interquartile_mean(runs_), interquartile_mean(runs_)
    assert (one.low, one.high) == (other.low, other.high)


def test_a_curve_that_begins_late_has_the_mean_height_too():
    np.testing.assert_allclose(area_under_curve(np.array([10.0, 20.0]), np.array([[1.0, 3.0]])), [2.0])

"""Statistics against scipy, statsmodels or a published example."""

from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from digitlab.analysis import statistics

STEP = 1e-4
# Student 1908: hours of sleep gained by ten patients with two drugs; t = -4.0621, p = 0.002833, -2.46 to -0.70.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def accuracies(seed: int, count: int, mean: float = 0.99, spread: float = 0.001) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, count).round(4)


def test_wilson_is_the_published_interval():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20
    assert statistics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert statistics.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (7, 20), (9912, 10_000), (10_000, 10_000), (0, 10_000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_wilson_matches_scipy(correct, total, confidence):
    theirs = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert statistics.wilson(correct, total, confidence) == pytest.approx(tuple(theirs), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_of_a_mean_matches_statsmodels(count):
    values = accuracies(0, count)
    assert statistics.t_interval(values) == pytest.approx(DescrStatsW(values).tconfint_mean(0.05), rel=1e-12)
    assert statistics.t_interval(values, 0.9) == pytest.approx(DescrStatsW(values).tconfint_mean(0.1), rel=1e-12)


def test_the_paired_t_test_matches_students_example_of_1908():
    found = statistics.paired_t(FIRST, SECOND, STEP)
    assert found == pytest.approx((-1.58, -2.4599, -0.7001, 0.002833), abs=5e-5)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_paired_t_test_matches_scipy(count):
    one, other = accuracies(1, count), accuracies(2, count, 0.988)
    expected = stats.ttest_rel(one, other)
    found = statistics.paired_t(one, other, STEP)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def test_equal_differences_do_not_give_a_p_value_of_zero():
    same = statistics.paired_t([0.98, 0.99], [0.98, 0.99], STEP)
    assert (same.mean, same.p) == (0, 1)
    shifted = statistics.paired_t([0.9801, 0.9901], [0.98, 0.99], STEP)
    assert shifted.low < 0 < shifted.high
    assert shifted.p > 0.05  # one image
    assert statistics.paired_t([0.99, 0.99, 0.99], [0.5, 0.5, 0.5], STEP).p < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_matches_statsmodels(seed):
    draw = np.random.default_rng(seed)
    one, other = draw.random(1000) < 0.97, draw.random(1000) < 0.96
    table = [[np.sum(one & other), np.sum(one & ~other)], [np.sum(~one & other), np.sum(~one & ~other)]]
    assert statistics.mcnemar(one, other) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_mcnemar_of_networks_that_classify_the_same_images_correctly():
    assert statistics.mcnemar(np.array([True, False]), np.array([True, False])) == 1


def test_holm_matches_statsmodels():
    draw = np.random.default_rng(0)
    for count in (1, 2, 10, 105):
        p_values = draw.random(count) ** 6
        np.testing.assert_allclose(statistics.holm(p_values), multipletests(p_values, method="holm")[1], rtol=1e-12)


def test_untested_pairs_do_not_count_in_holms_correction():
    found = statistics.holm([0.01, nan, 0.04])
    assert isnan(found[1])
    np.testing.assert_allclose(found[[0, 2]], [0.02, 0.04])
    assert statistics.holm([]).size == 0


@pytest.mark.parametrize("value", [-1.0, 0.5, 3.0, 12.0])
@pytest.mark.parametrize(("df", "n"), [(1, 2), (4, 5), (60, 8), (inf, 5)])
def test_the_best_of_one_is_students(value, df, n):
    expected = stats.t.sf(value / np.sqrt(1 + 1 / n), df)
    assert statistics.best_tail(value, df, n, 1) == pytest.approx(expected, abs=2e-8, rel=1e-5)


@pytest.mark.parametrize("of", [2, 30, 1000])
def test_the_best_of_several_is_the_largest_of_normal_values_where_mean_and_spread_are_known(of):
    for value in (0.5, 2.0, 4.0):
        assert statistics.best_tail(value, inf, inf, of) == pytest.approx(1 - stats.norm.cdf(value) ** of, abs=1e-6)
    quantile = statistics.best_quantile(0.975, inf, inf, of)
    assert quantile == pytest.approx(stats.norm.ppf(0.975 ** (1 / of)), abs=1e-5)


def test_the_best_of_two_is_the_larger_of_two_of_a_multivariate_t():
    """Both share what is not known of mean and spread, which correlates them."""
    n, df, value = 5, 4, 2.0
    together = stats.multivariate_t(shape=[[1 + 1 / n, 1 / n], [1 / n, 1 + 1 / n]], df=df)
    expected = 1 - together.cdf([value, value], random_state=0, maxpts=400_000)
    assert statistics.best_tail(value, df, n, 2) == pytest.approx(expected, abs=2e-4)


def test_epochs_to_a_target():
    assert statistics.epochs_to([0.5, 0.97, 0.96], 0.97) == 2
    assert statistics.epochs_to([0.5, nan], 0.97) == inf
    assert statistics.epochs_to([], 0.97) == inf


def test_the_pareto_front_is_what_no_point_beats():
    costs, gains = [1, 2, 2, 3, 4, 5], [0.5, 0.7, 0.8, 0.8, 0.6, 0.9]
    assert statistics.pareto_front(costs, gains) == [0, 2, 5]
    beaten = {
        i for i in range(6) for j in range(6)
        if costs[j] <= costs[i] and gains[j] >= gains[i] and (costs[j], gains[j]) != (costs[i], gains[i])
    }  # fmt: skip
    assert set(range(6)) - beaten == {0, 2, 5}

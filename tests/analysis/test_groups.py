"""Two groups of runs, against scipy, statsmodels and simulation."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from digitlab.analysis.groups import difference, paired_difference, runs_needed


def test_it_is_welchs_test():
    a, b = [0.981, 0.984, 0.979, 0.983], [0.986, 0.991, 0.984]
    found, expected = difference(a, b, 1e-4), stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_pairs_are_compared_by_the_paired_test():
    a, b = [0.981, 0.97, 0.979, 0.96], [0.986, 0.974, 0.980, 0.961]
    found, expected = paired_difference(list(zip(a, b, strict=True)), 1e-4), stats.ttest_rel(b, a)
    assert found.p_value == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


@pytest.mark.parametrize(("spread", "detectable"), [(0.001, 0.001), (0.002, 0.001), (0.0005, 0.002), (0.004, 0.003)])
def test_the_runs_needed_are_those_of_statsmodels(spread, detectable):
    exact = TTestIndPower().solve_power(effect_size=detectable / spread, alpha=0.05, power=0.8)
    assert runs_needed(spread, detectable) == max(int(np.ceil(exact)), 2)


@pytest.mark.parametrize(("low", "high"), [(-0.001, 0.001), (-0.002, 0.0025), (-0.0005, 0.0006)])
def test_the_pairs_needed_have_the_power_that_is_promised(low, high):
    """Pairs of runs that share most of what differs; 4,000 repetitions, a standard error of 0.006."""
    detectable, count = 0.002, 4
    found = paired_difference([(0.9, 0.9 + each) for each in (low, high, low, high)], 1e-6)
    more = found.runs_to_show(detectable)
    assert more is not None
    deviation = np.std([low, high, low, high], ddof=1)
    exact = TTestPower().solve_power(effect_size=detectable / deviation, alpha=0.05, power=0.8)
    needed = max(int(np.ceil(exact)), 2)
    assert more == max(needed - count, 0)
    draws = np.random.default_rng(0).normal(detectable, deviation, (4000, needed))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) >= 0.8 - 3 * 0.006


def test_more_than_a_thousand_runs_are_too_many():
    assert runs_needed(0.1, 0.001) is None


def test_equal_runs_are_not_certain():
    found = difference([0.9] * 3, [0.9] * 3, 1e-4)
    assert found.mean == 0
    assert found.p_value == 1
    assert 0 < found.half < 2e-4
    assert not found.is_shown


@pytest.mark.parametrize(
    ("a", "b", "worse"),
    [
        ([0.98, 0.981, 0.982], [0.98, 0.981, 0.982], None),  # the interval is wider than the margin
        ([0.98, 0.9801, 0.9802], [0.98, 0.9801, 0.9802], False),
        ([0.98, 0.9801, 0.9802], [0.97, 0.9701, 0.9702], True),
        ([0.98, 0.9801, 0.9802], [0.99, 0.9901, 0.9902], False),
    ],
)
def test_worse_is_said_only_where_it_is_shown(a, b, worse):
    assert difference(a, b, 1e-4).is_worse(margin=0.001) is worse


def test_a_gate_lets_few_worse_ones_pass_and_stops_few_equal_ones():
    """2,000 gates, n = 5 and 5, spread 0.001, margin 0.002; the Monte Carlo error of 0.025 is 0.0035."""
    draws = np.random.default_rng(0).normal(0.98, 0.001, (2000, 2, 5)).round(4)
    stopped = np.mean([difference(a, b, 1e-4).is_worse(0.002) is True for a, b in draws])
    passed = np.mean([difference(a, b - 0.002, 1e-4).is_worse(0.002) is False for a, b in draws])
    assert stopped <= 0.025 + 3 * 0.0035
    assert passed <= 0.025 + 3 * 0.0035

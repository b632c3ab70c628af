"""Claims that are the mean or the best of several runs: compared with their like, by simulation and by scipy."""

import numpy as np
import pytest
from scipy import stats
from test_verdict import FIVE, at_most, claim, judged, outcome

from digitlab.claims.verdict import judge

MADE = [{"runs": 30, "statistic": "best"}, {"runs": 10}, {"runs": 1, "statistic": "best"}]


def make(runs: int, statistic: str = "mean"):
    return (np.max if statistic == "best" else np.mean), runs


@pytest.mark.parametrize("made", MADE)
def test_the_interval_is_that_of_what_the_claim_is_made_of(made):
    of = outcome(claim(0.9908, **made), FIVE)
    judge([of])
    draw, (combine, runs) = np.random.default_rng(0), make(**made)
    ours = draw.standard_normal((100_000, 5))
    theirs = combine(draw.standard_normal((100_000, runs), dtype=np.float32), axis=1)
    drawn = (theirs - ours.mean(1)) / ours.std(1, ddof=1)
    low, high = (0.9908 + np.std(FIVE, ddof=1) * each for each in np.quantile(drawn, [0.025, 0.975]))
    assert of.verdict.half == pytest.approx((high - low) / 2, rel=0.03)
    assert of.verdict.middle == pytest.approx((high + low) / 2, abs=2e-5)


@pytest.mark.parametrize("made", MADE)
def test_a_true_claim_of_several_runs_is_rarely_called_wrong(made):
    draw, (combine, runs), outside, as_one_run = np.random.default_rng(1), make(**made), 0, 0
    for _ in range(150):
        values = np.round(0.99 + 0.0004 * draw.standard_normal(5 + runs), 4)
        claimed, own = round(float(combine(values[5:])), 4), values[:5].tolist()
        outside += judged(outcome(claim(claimed, **made), own))[0] in ("BETTER", "WORSE")
        as_one_run += judged(outcome(claim(claimed), own))[0] in ("BETTER", "WORSE")
    assert 0 < outside <= 150 * at_most(0.05, 150)
    assert as_one_run > 4 * outside if made == MADE[0] else as_one_run <= outside


def test_a_mean_of_runs_is_tested_as_two_samples_of_one_spread_are():
    of = outcome(claim(0.9925, runs=10), FIVE)
    verdict, reason = judged(of)
    t = (0.99245 - 0.9908) / (np.std(FIVE, ddof=1) * np.sqrt(1 / 10 + 1 / 5))
    assert of.verdict.p_value == pytest.approx(2 * stats.t.sf(t, 4))
    assert verdict == "WORSE"
    assert reason.startswith("our mean is 0.0017 below the claim; the mean of 10 runs of ours lies in 0.9901 to 0.9915")


@pytest.mark.parametrize(("made", "times"), [({"runs": 5}, 5), ({"runs": 5, "statistic": "best"}, 1), ({}, 1)])
def test_a_mean_over_folds_is_of_the_images_of_all_folds(made, times):
    of = outcome(claim(0.9908, folds=5, **made), FIVE)
    judge([of])
    assert of.verdict.resolution == pytest.approx(1.96 * np.sqrt(0.9908 * 0.0092 / (times * 10_000)))


def test_a_best_of_runs_is_compared_with_the_best_of_as_many_of_ours():
    of = outcome(claim(0.9935, runs=30, statistic="best"), FIVE)
    assert judged(of) == ("REPRODUCED", "the best of 30 runs of ours lies in 0.9912 to 0.9939")
    assert (of.claim.claimed, of.excess) == ("0.9935, best of 30", pytest.approx(of.verdict.middle - 0.9935))
    assert judged(outcome(claim(0.9935), FIVE))[0] == "WORSE"
    low = outcome(claim(0.9902, runs=30, statistic="best"), FIVE)
    assert judged(low)[0] == "BETTER"
    assert low.verdict.reason.startswith("the best of 30 of ours would be about 0.0023 above the claim")


def test_an_interval_of_accuracies_ends_where_they_do():
    told = judged(outcome(claim(0.9659, runs=3, statistic="best"), [0.7671, 0.9650, 0.7788, 0.9652, 0.8707]))[1]
    assert "of ours lies in 0.7" in told
    assert " to 1.0000" in told
    width = 2 * float(told.partition("that is, uncut at 0 and 1, ± ")[2].split(",")[0])
    assert width > 1 - float(told.partition("lies in ")[2].split()[0])  # what decides is not what is shown
    assert "lies in 0.0000 to 1.0000" in judged(outcome(claim(0.5), [0.02, 0.98, 0.03, 0.97, 0.5]))[1]


def test_the_difference_of_a_best_is_to_accuracies_that_there_are():
    """Student's t puts the middle of the best of three above 1, though no run of ours reaches the claim."""
    of = outcome(claim(0.9659, runs=3, statistic="best"), [0.7671, 0.9650, 0.7788, 0.9652, 0.8707])
    judge([of])
    low = float(of.verdict.reason.partition("lies in ")[2].split()[0])
    assert of.verdict.middle > 1
    assert of.excess == pytest.approx((low + 1) / 2 - 0.9659, abs=1e-4)

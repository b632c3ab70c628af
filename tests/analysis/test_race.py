"""The rule of a race: against scipy, and by simulation with the spreads of docs/comparison.md."""

import numpy as np
import pytest
from race_simulation import EQUAL, MEANS, lost, simulate
from scipy import stats

from digitlab.analysis import race

STEP = 1e-4


@pytest.mark.parametrize(
    ("max_seeds", "expected"),
    [(3, [3]), (4, [3, 4]), (5, [3, 5]), (7, [3, 5, 7]), (10, [3, 5, 10]), (20, [3, 5, 10, 20]),
     (21, [3, 5, 10, 20, 21]), (50, [3, 5, 10, 20, 40, 50])],
)  # fmt: skip
def test_looks_share_an_error_of_5_percent(max_seeds, expected):
    assert race.looks(max_seeds) == expected
    assert race.level(max_seeds) * len(expected) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("tries", "seed"), [(1000, 1), pytest.param(50_000, 2, marks=pytest.mark.slow)], ids=["fast", "large"]
)
def test_the_truly_best_stays_and_runs_are_saved(tries, seed):
    raced = simulate(MEANS, tries, seed=seed)
    error = 4 * (0.05 * 0.95 / tries) ** 0.5
    assert lost(raced, MEANS) < 0.05
    assert raced.runs.mean() / (len(MEANS) * 20) < 0.6
    assert (raced.left[:, :2].all(axis=1)).mean() > 0.9  # 0.9920 and 0.9919: which is better takes hundreds of runs
    assert raced.left[:, 8:].mean() < 0.01  # those that are a point worse are out
    assert lost(simulate(EQUAL, tries, seed=seed), EQUAL) < 0.05 + error
    assert lost(simulate(EQUAL, tries, alpha=0.05, seed=seed), EQUAL) > 0.1  # what sharing the error is for


def test_fewer_than_four_cells_are_compared_by_welchs_test_corrected_for_all_of_them():
    draw = np.random.default_rng(0)
    values = {name: list(draw.normal(mean, 0.001, n)) for name, mean, n in (("a", 0.99, 5), ("b", 0.989, 5))}
    values["gone"] = [0.95, 0.951, 0.949]  # left before, and counts as a comparison all the same
    a, b, gone = race.stand(values, {"a", "b"}, STEP, 0.01)
    p = 2 * stats.ttest_ind(values["a"], values["b"], equal_var=False, alternative="greater").pvalue
    assert (a.is_best, a.p, b.is_best, gone.p, gone.is_left) == (True, None, False, None, False)
    assert b.p == pytest.approx(p, rel=1e-9)
    assert b.is_left == (p >= 0.01)
    assert (b.n, b.mean, gone.n) == (5, pytest.approx(np.mean(values["b"])), 3)


def test_a_race_is_over_with_one_cell_or_with_equivalent_ones():
    close = {"a": [0.9901, 0.9899, 0.99], "b": [0.99, 0.9899, 0.99]}
    found = race.stand(close, set(close), STEP, 0.05, margin=0.001)
    difference = np.mean(close["a"]) - np.mean(close["b"])
    variances = [max(np.var(each, ddof=1), STEP**2 / 12) / 3 for each in close.values()]
    error = sum(variances) ** 0.5
    df = sum(variances) ** 2 / sum(each**2 / 2 for each in variances)
    assert found[1].p_equivalent == pytest.approx(stats.t.sf((0.001 - difference) / error, df))
    assert race.why_over(found, 0.05, 0.001) == "all cells left are equivalent within 0.001"
    assert race.why_over(race.stand(close, set(close), STEP, 0.05), 0.05, None) == ""
    far = {"a": [0.99, 0.991, 0.99], "b": [0.9, 0.901, 0.899]}
    assert race.why_over(race.stand(far, set(far), STEP, 0.05, 0.001), 0.05, 0.001) == "one cell is left"
    assert race.why_over(race.stand({"a": [0.99, 0.991, 0.99]}, {"a"}, STEP, 0.05), 0.05, None) == "one cell is left"

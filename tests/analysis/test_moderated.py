"""The rule for the best and its ties: against limma, scipy and Demšar's table, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from digitlab.analysis import aggregate, moderated

STEP = 1e-4
# docs/comparison.md: means and half 95 % intervals of three seeds of fifteen cells
MEANS = np.array([9920, 9919, 9907, 9907, 9904, 9901, 9900, 9900, 9832, 9827, 9817, 9710, 9705, 9635, 9419]) / 1e4
HALVES = np.array([15, 27, 11, 12, 12, 5, 22, 21, 14, 41, 48, 17, 35, 24, 19]) / 1e4
SPREADS = HALVES * np.sqrt(3) / stats.t.ppf(0.975, 2)
LIMMA = ((np.arange(1, 25) * 37) % 97 + 1) / 64


@pytest.mark.parametrize(
    ("variances", "df", "prior_df", "scale"),
    [
        # limma's squeezeVar(c(0.5, 1.3, 7.8), df = 3), as InMoose's tests have it
        ([0.5, 1.3, 7.8], [3.0] * 3, 2.830777, 1.676927),
        # limma 3.66.0: i <- 1:24; fitFDist((((i * 37) %% 97) + 1) / 64, df1 = rep(4, 24)); df1 = rep(c(2, 4, 7, 11), 6)
        (LIMMA, [4.0] * 24, 8.773643845753776, 0.6408375594922414),
        (LIMMA, [2.0, 4.0, 7.0, 11.0] * 6, 8.830849273819364, 0.6428534666574643),
    ],
)
def test_the_prior_is_that_of_limma(variances, df, prior_df, scale):
    found = moderated.fit_prior(np.array(variances), np.array(df))
    assert [float(each) for each in found] == pytest.approx([prior_df, scale], rel=1e-6)


def test_moderated_variances_are_those_of_limma_and_never_below_a_cells_own():
    posterior = moderated.moderate(LIMMA, np.full(24, 5), STEP)
    expected = np.maximum([0.6260923356357317, 0.8071291664667967, 0.5135559272812861], LIMMA[:3])
    np.testing.assert_allclose(posterior.variance[:3], expected, rtol=1e-9)
    np.testing.assert_allclose(posterior.df, 4 + 8.773643845753776)
    assert (posterior.variance >= LIMMA).all()


def test_below_four_cells_it_is_welchs_test():
    draw = np.random.default_rng(0)
    cells = [draw.normal(mean, spread, n) for mean, spread, n in ((0.99, 0.001, 4), (0.98, 0.02, 3), (0.985, 0.003, 6))]
    counts = np.array([len(cell) for cell in cells])
    spread = moderated.moderate(np.array([cell.var(ddof=1) for cell in cells]), counts, STEP)
    means = np.array([cell.mean() for cell in cells])
    found = moderated.against_best(means, spread, counts, counts > 1)
    best = means.argmax()
    for index in set(range(3)) - {int(best)}:
        p = stats.ttest_ind(cells[best], cells[index], equal_var=False, alternative="greater").pvalue
        assert found[index] == pytest.approx(min(1, 2 * p), rel=1e-9)
    assert np.isnan(found[best])


def test_a_single_run_takes_the_variance_of_the_others_and_is_not_the_best():
    counts = np.array([3, 3, 3, 3, 1])
    spread = moderated.moderate(np.array([1e-6, 1e-6, 2e-6, 3e-6, np.nan]), counts, STEP)
    assert 1e-6 < spread.variance[4] < 3e-6
    found = moderated.against_best(np.array([0.98, 0.98, 0.98, 0.98, 0.99]), spread, counts, counts > 1)
    assert np.isnan(found[0])
    assert found[4] == 1


def kept(means, spreads, n: int, tries: int) -> np.ndarray:
    """Return which cells are the best or tied, bool (tries, K), of drawn runs whose accuracies are rounded."""
    draw = np.random.default_rng(n)
    values = np.round(means + draw.normal(size=(n, tries, len(spreads))) * spreads, 4)
    counts = np.full(len(spreads), n)
    spread = moderated.moderate(values.var(axis=0, ddof=1), counts, STEP)
    return ~(moderated.against_best(values.mean(axis=0), spread, counts, counts > 1) < 0.05)


@pytest.mark.parametrize("tries", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("n", "ties", "half_point", "coverage"), [(3, 5.6, 0.07, 0.94), (5, 3.7, 0.01, 0.95), (10, 2.2, 0.0, 0.95)]
)
def test_the_table_of_the_documentation(n, ties, half_point, coverage, tries):
    sizes = kept(MEANS, SPREADS, n, tries).sum(axis=1)
    assert sizes.mean() == pytest.approx(ties, abs=0.06 + 4 * sizes.std() / tries**0.5)
    worse = kept(np.array([0.992] + [0.987] * 14), SPREADS, n, tries)[:, 1:].mean()
    assert worse == pytest.approx(half_point, abs=0.006 + 4 * (0.07 / tries) ** 0.5)
    equal = kept(np.full(15, 0.99), SPREADS, n, tries).mean(axis=0)
    assert equal.min() > coverage - 4 * (0.05 * 0.95 / tries) ** 0.5  # of the cell that is kept least often


@pytest.mark.parametrize("n", [2, 3])
def test_the_share_of_cases_that_is_said_is_the_simulated_one(n):
    equal = kept(np.full(15, 0.99), SPREADS, n, 10_000).mean(axis=0).min()  # of the cell that is kept least often
    assert moderated.coverage([n] * 15) in (f"about {100 * equal + off:.0f} % of cases" for off in (-0.25, 0.25))


@pytest.mark.parametrize(
    ("n", "cells", "shares"),
    [
        (2, 3, (0.55, 0.73)),
        pytest.param(3, 15, (0.65, 0.81), marks=pytest.mark.slow),
        (5, 3, (0.65, 0.81)),
        (10, 2, (0.65, 0.81)),
    ],
)
def test_the_smallest_difference_is_shown_as_often_as_the_report_says(n, cells, shares):
    draw, counts, shown = np.random.default_rng(1), np.full(cells, n), []
    for _ in range(150):
        runs = draw.normal(size=(n, cells)) * 0.001
        smallest = moderated.smallest_difference(
            moderated.moderate(runs.var(axis=0, ddof=1), counts, STEP), counts, STEP
        )
        others = draw.normal(size=(n, 100, cells)) * 0.001 + np.array([0, -smallest] + [-0.1] * (cells - 2))
        spread = moderated.moderate(others.var(axis=0, ddof=1), counts, STEP)
        shown.append((moderated.against_best(others.mean(axis=0), spread, counts, counts > 1)[:, 1] < 0.05).mean())
    error = 4 * np.std(shown) / len(shown) ** 0.5
    assert shares[0] - error < np.mean(shown) < shares[1] + error


def test_the_smallest_difference_is_exact_where_the_spreads_are_known():
    n, cells = 5, 6
    counts, draw = np.full(cells, n), np.random.default_rng(2)
    known = moderated.Spread(np.full(cells, 1e-6), np.full(cells, n - 1.0))
    runs = draw.normal(size=(n, 4000, cells)) * 0.001
    runs += np.array([0, -moderated.smallest_difference(known, counts, STEP), *[-0.1] * (cells - 2)])
    spread = moderated.moderate(runs.var(axis=0, ddof=1), counts, STEP)
    shown = moderated.against_best(runs.mean(axis=0), spread, counts, counts > 1)[:, 1] < 0.05
    assert shown.mean() == pytest.approx(0.8, abs=4 * (0.8 * 0.2 * 2 / 4000) ** 0.5)


@pytest.mark.parametrize(("n", "cells"), [(2, 15), (3, 6), (5, 15)])
def test_cells_are_kept_as_often_as_the_legend_says_among_single_runs_too(n, cells):
    tries, draw, counts = 4000, np.random.default_rng(n), np.array([n] * (cells - 1) + [1])
    runs = np.round(0.99 + draw.normal(size=(n, tries, cells)) * 0.001, 4)
    means = np.where(counts > 1, runs.mean(axis=0), runs[0])
    spread = moderated.moderate(runs.var(axis=0, ddof=1), counts, STEP)
    kept = ~(moderated.against_best(means, spread, counts, counts > 1) < 0.05)
    assert "92 % of cases or more" in moderated.coverage(counts.tolist())
    assert kept.mean(axis=0).min() > 0.92 - 4 * (0.08 * 0.92 / tries) ** 0.5


def test_the_critical_difference_is_demsars():
    # Demšar 2006, table 5a: q of 0.05 is 2.343 for three classifiers and 2.728 for five
    for arms, q in ((3, 2.343), (5, 2.728)):
        assert aggregate.critical_difference(arms, 14) == pytest.approx(
            q * (arms * (arms + 1) / (6 * 14)) ** 0.5, rel=1e-3
        )


def test_the_interval_of_a_mean_difference_over_networks_covers():
    draw, tries, covered = np.random.default_rng(0), 200, 0
    for _ in range(tries):
        ours, theirs = draw.normal(0.99, 0.001, (2, 5, 3))
        (_, low, high), _ = aggregate.compare_groups(list(ours), list(theirs), 500)
        covered += low <= 0 <= high
    assert covered / tries > 0.93 - 4 * (0.05 * 0.95 / tries) ** 0.5

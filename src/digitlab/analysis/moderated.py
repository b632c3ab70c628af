"""Compare cells with the best one by moderated variances: the spread of a few runs, steadied by that of all cells.

Arrays are (..., K): the last axis is the cells, any others are repetitions, as of a simulation.
docs/statistics.md says how often the rule is right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from digitlab.analysis.cells import ALPHA

DRAWN_SETS = 4000  # of runs, for the smallest difference: its own error is about 1 %
MIN_CELLS = 4  # with two runs or more, that a prior is fitted to; among fewer each cell has its own variance only

# How often the set of the best and its ties holds the truly best cell, by the fewest runs of a cell, as simulated.
COVERAGE = {2: "about 93 % of cases", 3: "about 94 % of cases", 4: "about 94 % of cases"}


class Spread(NamedTuple):
    """The moderated variance of one run of each cell and its degrees of freedom, (..., K)."""

    variance: np.ndarray
    df: np.ndarray


def fit_prior(variances: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return degrees of freedom and scale, (...), of the scaled inverse chi-square distribution of true variances.

    `variances` are above 0, and so are their degrees of freedom `df`. The fit is by the moments of log variance: Smyth
    2004, "Linear models and empirical Bayes methods", as limma's fitFDist does it. Where the variances differ by no
    more than chance, the degrees of freedom are infinite.
    """
    half = np.asarray(df) / 2
    logs = np.log(variances) - scipy.special.digamma(half) + np.log(half)
    excess = np.var(logs, axis=-1, ddof=1) - np.mean(scipy.special.polygamma(1, half), axis=-1)
    differs = excess > 0
    prior = np.where(differs, _inverse_trigamma(np.where(differs, excess, 1)), 1)
    scale = np.exp(np.mean(logs, axis=-1) + scipy.special.digamma(prior) - np.log(prior))
    return np.where(differs, 2 * prior, np.inf), np.where(differs, scale, np.mean(variances, axis=-1))


def moderate(variances: np.ndarray, counts: np.ndarray, step: float | np.ndarray) -> Spread:
    """Return the moderated variance of each cell, never below its own.

    `variances` (..., K) are those of each cell's `counts` runs, (K,) or, where each is above 1, (..., K); that of a
    single run is not looked at, and it gets the variance of the others. Accuracies are multiples of `step`, one or
    (K,), so a variance is at least that of rounding. With fewer than MIN_CELLS cells of several runs each keeps its own
    variance, and a single run gets their mean. Raises ValueError where every cell has one run.
    """
    counts = np.asarray(counts)
    several, df = counts > 1, counts - 1.0
    if not several.any():
        raise ValueError("every cell has one run only")
    own = np.where(several, np.maximum(variances, step**2 / 12), 0.0)
    known, known_df = (own, df) if several.all() else (own[..., several], df[several])
    total = df.sum(axis=-1, keepdims=True)
    if known.shape[-1] < MIN_CELLS:
        variance = np.where(several, own, np.mean(known, axis=-1)[..., None])
        return Spread(variance, np.broadcast_to(np.where(several, df, total), variance.shape))
    prior_df, prior = (each[..., None] for each in fit_prior(known, known_df))
    weight = np.where(np.isinf(prior_df), 1.0, prior_df / (np.where(np.isinf(prior_df), 1.0, prior_df) + df))
    variance = np.maximum(own, weight * prior + (1 - weight) * own)
    return Spread(variance, np.minimum(prior_df + df, total))


def welch(spread: Spread, counts: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return standard error and Satterthwaite's degrees of freedom of the best mean minus each, (..., K).

    `best` (...) is the index of the best cell; its own entries mean nothing.
    """
    squared = spread.variance / counts
    index = np.asarray(best)[..., None]
    ours, ours_df = (np.take_along_axis(each, index, axis=-1) for each in (squared, spread.df))
    df = (squared + ours) ** 2 / (squared**2 / spread.df + ours**2 / ours_df)
    return np.sqrt(squared + ours), df


def against_best(means: np.ndarray, spread: Spread, counts: np.ndarray, may_be_best: np.ndarray) -> np.ndarray:
    """Return the p-value, (..., K), of each cell being at least as good as the best; nan for the best itself.

    The best has the highest of the `means` (..., K) among the cells that `may_be_best` (K,). The test is one-sided and
    corrected by Bonferroni for the number of others. The best and those with p >= 0.05 form a set that holds the truly
    best although the best was picked from the same sample: Gupta's subset selection, Hsu's comparison with the best.
    """
    best = np.argmax(np.where(may_be_best, means, -np.inf), axis=-1)
    error, df = welch(spread, counts, best)
    index = best[..., None]
    t = (np.take_along_axis(means, index, axis=-1) - means) / error
    p = np.minimum(1, (means.shape[-1] - 1) * scipy.special.stdtr(df, -t))
    np.put_along_axis(p, index, np.nan, axis=-1)
    return p


def equivalent_to_best(
    means: np.ndarray, spread: Spread, counts: np.ndarray, best: np.ndarray, margin: float
) -> np.ndarray:
    """Return the p-value, (..., K), of each cell differing from the best by `margin` or more; nan for the best itself.

    By two one-sided tests, corrected by Bonferroni for the number of others. `best` (...) is the index of the best.
    """
    error, df = welch(spread, counts, best)
    index = np.asarray(best)[..., None]
    gap = np.abs(np.take_along_axis(means, index, axis=-1) - means)
    p = np.minimum(1, (means.shape[-1] - 1) * scipy.special.stdtr(df, -(margin - gap) / error))
    np.put_along_axis(p, index, np.nan, axis=-1)
    return p


def coverage(counts: Sequence[int]) -> str:
    """Say in how many cases the best and its ties hold the truly best cell, for cells of so many runs."""
    if min(counts) == 1:
        return (
            "92 % of cases or more, if single runs vary as those of the other cells do, and in fewer if they vary more"
        )
    return COVERAGE.get(min(counts), "95 % of cases") if len(counts) >= MIN_CELLS else "95 % of cases"


def smallest_difference(spread: Spread, counts: np.ndarray, step: float, power: float = 0.8) -> float:
    """Return how far below the best a cell must truly be to be marked worse with this `power`.

    The best is the first cell of several runs, the other one that of the fewest; both are of median variance. Sets of
    runs with the variances (K,) in `spread` are drawn, and for each the difference at which the rule marks the cell:
    the share `power` of them is smaller. nan for fewer than two cells of several runs.
    """
    several = np.flatnonzero(counts > 1)
    if len(several) < 2:
        return float("nan")
    best, other = several[0], min(several[1:], key=lambda index: counts[index])
    variance = spread.variance.copy()
    variance[[best, other]] = np.median(variance[several])
    draw, df = np.random.default_rng(0), counts[several] - 1
    drawn = np.ones((DRAWN_SETS, len(counts)))
    drawn[:, several] = variance[several] * draw.chisquare(df, (DRAWN_SETS, len(several))) / df
    error, error_df = welch(moderate(drawn, counts, step), counts, np.full(DRAWN_SETS, best))
    limit = scipy.special.stdtrit(error_df[:, other], 1 - ALPHA / (len(counts) - 1))
    true_error = np.sqrt((variance / counts)[[best, other]].sum())
    return float(np.quantile(limit * error[:, other] + true_error * draw.normal(size=DRAWN_SETS), power))


class Rank(NamedTuple):
    """The expected rank of a cell, 1 for the best, its 95 % interval, and the probability of being the best."""

    expected: float
    low: int
    high: int
    first: float


def rank(means: np.ndarray, spread: Spread, counts: np.ndarray, draws: int = 10_000) -> list[Rank]:
    """Return what the runs say of the order of the true means (K,), if all means were equally likely before."""
    draw = np.random.default_rng(0)
    errors = np.sqrt(spread.variance / counts)
    ranks = (
        np.argsort(np.argsort(-means - errors * draw.standard_t(spread.df, (draws, len(means))), axis=1), axis=1) + 1
    )
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
    values = ranks.mean(axis=0), low, high, np.mean(ranks == 1, axis=0)
    return [Rank(float(a), int(b), int(c), float(d)) for a, b, c, d in zip(*values, strict=True)]


def _inverse_trigamma(values: np.ndarray) -> np.ndarray:
    """Solve trigamma(y) = value for y, by Newton's method on 1 / trigamma, which is convex and nearly linear."""
    y = 0.5 + 1 / np.asarray(values, dtype=float)
    for _ in range(50):
        trigamma = scipy.special.polygamma(1, y)
        change = trigamma * (1 - trigamma / values) / scipy.special.polygamma(2, y)
        y = y + change
        if np.max(np.abs(change) / y) < 1e-10:
            break
    return y

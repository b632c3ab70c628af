"""Intervals, significance tests and summaries: plain values in, numbers out.

scipy loads its parts at first use. scipy.stats takes a second to load; a run needs only `wilson`, which avoids it.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy

BINS = 15  # of confidence, as calibration errors are usually given
MOST_RUNS = 1000  # that are computed to be needed for an answer: more are called too many


class PairedTest(NamedTuple):
    """The mean of paired differences, its interval, and the two-sided p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval (1927) of the proportion `correct` / `total`, as scipy.stats.binomtest gives it."""
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    middle = (correct + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(correct * (total - correct) / total + z**2 / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy on so many images."""
    return wilson(round(accuracy * images), images)


def t_interval(values: Sequence[float], confidence: float = 0.95, step: float = 0) -> tuple[float, float]:
    """Return Student's interval of the mean of two values or more.

    Of values that are multiples of `step`, the standard deviation is taken as at least that of rounding.
    """
    spread = max(float(np.std(values, ddof=1)), step / math.sqrt(12))
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * spread / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def t_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's distribution."""
    return float(scipy.special.stdtrit(df, probability))


def t_tail(value: float, df: float) -> float:
    """Return the probability that Student's distribution has above `value`."""
    return float(scipy.special.stdtr(df, -value))


def best_tail(value: float, df: float, n: float, of: int) -> float:
    """Return the probability that the best of `of` more values is more than `value` deviations above a mean of `n`.

    All are normal with one mean and variance; the deviation is estimated with `df` degrees of freedom, independently of
    the mean. For `of=1` this is `t_tail(value / sqrt(1 + 1 / n), df)`. The integral over what mean and deviation may
    truly be is a sum over Gauss-Hermite nodes and over equal steps of the log of the variance.
    """
    half = min(df, 1e7) / 2  # of infinitely many degrees of freedom, to eight digits
    low, high = scipy.special.gammaincinv(half, 1e-14), scipy.special.gammainccinv(half, 1e-14)
    logs = np.linspace(math.log(low / half), math.log(high / half), 200)  # of the estimated variance over the true one
    density = np.exp(half * (logs - np.exp(logs) + 1))
    nodes, weights = _hermite(32)
    above = value * np.exp(logs[:, None] / 2) + nodes / math.sqrt(n)
    tails = -np.expm1(of * scipy.special.log_ndtr(above))
    return float(density @ tails @ weights / (density.sum() * weights.sum()))


@cache
def _hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.hermite_e.hermegauss(count)


def best_quantile(probability: float, df: float, n: float, of: int) -> float:
    """Return the `value` above which `best_tail` leaves 1 - `probability`."""
    single, bonferroni = (t_quantile(each, df) for each in (probability, 1 - (1 - probability) / of))
    low, high = single * math.sqrt(1 + 1 / n), bonferroni * math.sqrt(1 + 1 / n)
    if of == 1:
        return low
    return float(scipy.optimize.brentq(lambda each: best_tail(each, df, n, of) - 1 + probability, low, high))


def paired_t(one: Sequence[float], other: Sequence[float], step: float, confidence: float = 0.95) -> PairedTest:
    """Compare two paired samples of two values or more by Student's paired t-test.

    Values are multiples of `step`, so all differences may happen to be equal. The standard deviation is therefore
    taken as at least that of rounding, which keeps the p-value above 0. Above it this is scipy.stats.ttest_rel.
    """
    mean, spread, count = *mean_and_spread(one, other, step), len(one)
    error = spread / np.sqrt(count)
    half = scipy.stats.t.ppf((1 + confidence) / 2, count - 1) * error
    return PairedTest(mean, mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / error, count - 1)))


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test; `one` and `other`, bool (N,), say which images each has correct."""
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    return float(scipy.stats.binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def fails_more_often(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the one-sided p of Fisher's exact test that `one`, failures among runs, fails more often than `other`."""
    table = [(failed, total - failed) for failed, total in (one, other)]
    return float(scipy.stats.fisher_exact(table, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p-values, in the order given; nan stays nan and is not counted."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)[: np.sum(~np.isnan(values))]
    adjusted = np.full_like(values, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def epochs_to(curve: Sequence[float] | np.ndarray, target: float) -> float:
    """Return the first epoch, counted from 1, after which `curve` is at `target` or above; infinity if none is."""
    reached = np.flatnonzero(np.asarray(curve) >= target)
    return float(reached[0] + 1) if reached.size else float("inf")


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Return, by rising cost, the indices of the points that no other point beats in both cost and gain."""
    front: list[int] = []
    for index in np.lexsort((-np.asarray(gains), np.asarray(costs))):
        if not front or gains[index] > gains[front[-1]]:
            front.append(int(index))
    return front


def mean_and_spread(one: Sequence[float], other: Sequence[float], step: float) -> tuple[float, float]:
    """Return mean and standard deviation of the differences, the latter at least that of two rounding errors."""
    differences = np.subtract(one, other)
    return float(np.mean(differences)), float(max(np.std(differences, ddof=1), step / np.sqrt(6)))

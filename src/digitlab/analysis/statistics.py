"""Intervals, significance tests and summaries: plain values in, numbers out.

scipy loads its parts at first use. scipy.stats takes a second to load; a run needs only `wilson`, which avoids it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy


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


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of two values or more."""
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval that one more value of the same normal distribution will lie in; for two values or more."""
    spread = np.std(values, ddof=1) * np.sqrt(1 + 1 / len(values))
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * spread
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_t(one: Sequence[float], other: Sequence[float], step: float, confidence: float = 0.95) -> PairedTest:
    """Compare two paired samples of two values or more by Student's paired t-test.

    Values are multiples of `step`, so all differences may happen to be equal. The standard deviation is therefore
    taken as at least that of rounding, which keeps the p-value above 0. Above it this is scipy.stats.ttest_rel.
    """
    mean, spread, count = *_mean_and_spread(one, other, step), len(one)
    error = spread / np.sqrt(count)
    half = scipy.stats.t.ppf((1 + confidence) / 2, count - 1) * error
    return PairedTest(mean, mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / error, count - 1)))


def seeds_needed(
    one: Sequence[float], other: Sequence[float], step: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return how many pairs a paired t-test needs to detect a difference of this size and spread with `power`.

    Infinity where the means are equal or more than a million pairs would be needed.
    """
    mean, spread = _mean_and_spread(one, other, step)
    effect = min(abs(mean) / spread, 30.0)  # above it two pairs are enough, and the distribution is hard to compute

    def is_enough(count: int) -> bool:
        limit, shift = scipy.stats.t.ppf(1 - alpha / 2, count - 1), effect * np.sqrt(count)
        wrong_side = np.nan_to_num(scipy.stats.nct.cdf(-limit, count - 1, shift))  # nan where it is practically 0
        return scipy.stats.nct.sf(limit, count - 1, shift) + wrong_side >= power

    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
        if high > 1e6:
            return float("inf")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of McNemar's exact test; `one` and `other`, bool (N,), say which images each has correct."""
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    return float(scipy.stats.binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p-values, in the order given; nan stays nan and is not counted."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)[: np.sum(~np.isnan(values))]
    adjusted = np.full_like(values, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def against_best(differences: Sequence[float], p_values: Sequence[float]) -> np.ndarray:
    """Return for each other cell the p-value of being at least as good as the best of the sample.

    `differences` are the best minus each other, `p_values` their two-sided p-values. The result is one-sided and
    corrected by Bonferroni for the number of others. The best and those with p >= 0.05 form a set that holds the truly
    best in 95 % of cases, although the best was picked from the same sample: Gupta's subset selection, Hsu's (1984)
    comparison with the best. It has more power than testing every pair.
    """
    one_sided = np.where(np.asarray(differences) > 0, np.asarray(p_values) / 2, 1 - np.asarray(p_values) / 2)
    return np.minimum(one_sided * len(one_sided), 1)


def iqm(groups: Sequence[Sequence[float]], resamples: int = 10_000) -> tuple[float, float, float]:
    """Return the interquartile mean of all values, and its 95 % interval by a bootstrap stratified by group.

    Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice": a group is the runs of one task.
    """

    def middle(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return scipy.stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    samples = [np.asarray(group, dtype=float) for group in groups]
    interval = scipy.stats.bootstrap(
        samples, middle, n_resamples=resamples, batch=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(middle(*samples)), float(interval.low), float(interval.high)


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


def _mean_and_spread(one: Sequence[float], other: Sequence[float], step: float) -> tuple[float, float]:
    """Return mean and standard deviation of the differences, the latter at least that of two rounding errors."""
    differences = np.subtract(one, other)
    return float(np.mean(differences)), float(max(np.std(differences, ddof=1), step / np.sqrt(6)))

"""Say how sure a number is, and which differences are real: plain values in, numbers out.

scipy loads its parts at first use; scipy.stats takes a second that a run, which wants one interval, does without.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy


class Difference(NamedTuple):
    """The mean of paired differences, its interval, and the p-value of there being none."""

    mean: float
    low: float
    high: float
    p: float


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval (1927) of the share `correct` / `total`, as scipy.stats.binomtest gives it."""
    z = float(scipy.special.ndtri((1 + confidence) / 2))
    middle = (correct + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(correct * (total - correct) / total + z**2 / 4)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of two values or more."""
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval in which one more value of the same normal distribution will lie: two values or more."""
    spread = np.std(values, ddof=1) * np.sqrt(1 + 1 / len(values))
    half = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1) * spread
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_t(one: Sequence[float], other: Sequence[float], step: float, confidence: float = 0.95) -> Difference:
    """Compare two paired samples of two values or more by Student's t-test of their differences.

    Values come in multiples of `step`, and two seeds may differ by the same number of images. A spread below that of
    rounding alone is taken as that of rounding. Where it is above, this is scipy's ttest_rel.
    """
    mean, spread, count = *_differences(one, other, step), len(one)
    error = spread / np.sqrt(count)
    half = scipy.stats.t.ppf((1 + confidence) / 2, count - 1) * error
    return Difference(mean, mean - half, mean + half, float(2 * scipy.stats.t.sf(abs(mean) / error, count - 1)))


def seeds_needed(
    one: Sequence[float], other: Sequence[float], step: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return how many pairs show a difference of this size and spread, in `power` of cases, to the paired t-test.

    Infinity where the means are the same, or more than a million pairs were needed.
    """
    mean, spread = _differences(one, other, step)
    effect = min(abs(mean) / spread, 30.0)  # beyond that two pairs are enough, and the distribution hard to compute

    def is_enough(count: int) -> bool:
        limit, shift = scipy.stats.t.ppf(1 - alpha / 2, count - 1), effect * np.sqrt(count)
        wrong_side = np.nan_to_num(scipy.stats.nct.cdf(-limit, count - 1, shift))  # nan where it is as good as 0
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
    """Return the p-value of McNemar's exact test; `one` and `other` (N,) say which of the same images were right."""
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    return float(scipy.stats.binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p-values, in the order given; one that is not a number stays so and does not count."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)[: np.sum(~np.isnan(values))]
    adjusted = np.full_like(values, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def against_best(differences: Sequence[float], p_values: Sequence[float]) -> np.ndarray:
    """Return p-values of each of the others being as good as the best of a sample, or better.

    `differences` are those of the best to each other, `p_values` two-sided. One-sided and corrected for the number of
    others by Bonferroni, so that those with 0.05 or more are, with the best itself, a set that holds the truly best in
    95 % of cases: Gupta's subset selection, Hsu's (1984) comparison with the best. That the best was picked by the
    same sample is allowed for, at a lower price than that of testing every pair.
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
    """Return, by rising cost, the indices of the points that no other one beats in cost and gain."""
    front: list[int] = []
    for index in np.lexsort((-np.asarray(gains), np.asarray(costs))):
        if not front or gains[index] > gains[front[-1]]:
            front.append(int(index))
    return front


def _differences(one: Sequence[float], other: Sequence[float], step: float) -> tuple[float, float]:
    """Return mean and standard deviation of the differences, this at least that of two rounding errors."""
    differences = np.subtract(one, other)
    return float(np.mean(differences)), float(max(np.std(differences, ddof=1), step / np.sqrt(6)))

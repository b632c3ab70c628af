"""Compare two groups of runs: is one better, by how much, and how many more runs would show it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from digitlab.analysis.cells import ALPHA
from digitlab.analysis.moderated import Spread, welch
from digitlab.analysis.statistics import MOST_RUNS, mean_and_spread, paired_t, t_quantile, t_tail

POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """How much more accurate the runs of B are than those of A: mean, half of its 95 % interval, two-sided p-value.

    `spread` is the standard deviation of the runs of a group or, where they are paired, of the differences of pairs.
    """

    mean: float
    half: float
    p_value: float
    counts: tuple[int, int]
    spread: float
    is_paired: bool = False

    @property
    def is_shown(self) -> bool:
        return self.p_value < ALPHA

    def is_worse(self, margin: float) -> bool | None:
        """Say whether B is worse than A: True is shown of any loss, False of one within `margin`; None is neither."""
        if self.mean - self.half > -margin:
            return False
        return True if self.mean + self.half < 0 else None

    def runs_to_show(self, detectable: float) -> int | None:
        """Return how many more runs of each group, or pairs, show a difference of `detectable`; None for too many."""
        needed = runs_needed(self.spread, detectable, self.is_paired)
        return None if needed is None else max(needed - min(self.counts), 0)


def difference(a: Sequence[float], b: Sequence[float], step: float) -> Difference:
    """Compare the accuracies of two groups of two runs or more by Welch's t-test.

    Accuracies are multiples of `step`, so the runs of a group may happen to be equal: their variance is taken as at
    least that of rounding, which keeps the p-value above 0. Above it this is scipy.stats.ttest_ind(equal_var=False).
    """
    counts = len(a), len(b)
    variances = np.array([max(float(np.var(values, ddof=1)), step**2 / 12) for values in (a, b)])
    spread = Spread(variances, np.array(counts) - 1.0)
    error, degrees = (float(each[1]) for each in welch(spread, np.array(counts), np.array(0)))
    mean = float(np.mean(b) - np.mean(a))
    p_value = 2 * t_tail(abs(mean) / error, degrees)
    return Difference(mean, t_quantile(1 - ALPHA / 2, degrees) * error, p_value, counts, float(variances.mean() ** 0.5))


def single_difference(group: Sequence[float], one: float, step: float) -> Difference:
    """Compare one run with two runs or more, as if it were of a group of the same spread."""
    count = len(group)
    spread = max(float(np.std(group, ddof=1)), step / math.sqrt(12))
    error = spread * math.sqrt(1 + 1 / count)
    mean = one - float(np.mean(group))
    half = t_quantile(1 - ALPHA / 2, count - 1) * error
    return Difference(mean, half, 2 * t_tail(abs(mean) / error, count - 1), (count, 1), spread)


def paired_difference(pairs: Sequence[tuple[float, float]], step: float) -> Difference:
    """Compare two runs or more of A with their counterparts of B, given as (a, b), by Student's paired t-test."""
    a, b = zip(*pairs, strict=True)
    found, count = paired_t(b, a, step), len(pairs)
    spread = mean_and_spread(b, a, step)[1]
    return Difference(found.mean, found.high - found.mean, found.p, (count, count), spread, is_paired=True)


def runs_needed(spread: float, detectable: float, is_paired: bool = False) -> int | None:
    """Return how many runs of each of two groups with this standard deviation show a difference with 80 % power.

    Where they are paired, how many pairs whose differences have it. By the noncentral t distribution of Student's
    two-sided test at ALPHA; None where it takes more than 1,000.
    """
    counts, groups = np.arange(2, MOST_RUNS + 1), 1 if is_paired else 2
    degrees = groups * (counts - 1)
    shift = detectable / spread * np.sqrt(counts / groups)
    critical = stats.t.ppf(1 - ALPHA / 2, degrees)
    power = stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift)
    enough = np.flatnonzero(power >= POWER)
    return int(counts[enough[0]]) if enough.size else None

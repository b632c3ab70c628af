"""Predict where what is made of more runs of a cell lies, by moderated variances."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.cells import ALPHA
from digitlab.analysis.statistics import MOST_RUNS, best_quantile, best_tail, t_quantile, t_tail


@dataclass(frozen=True)
class Made:
    """What is predicted: the mean of so many more runs, or the best of them."""

    runs: int = 1
    is_best: bool = False

    def quantile(self, probability: float, df: float, n: float) -> float:
        """Return the quantile, in deviations of one run from the mean of `n` runs."""
        if self.is_best:
            return best_quantile(probability, df, n, self.runs)
        return t_quantile(probability, df) * sqrt(1 / self.runs + 1 / n)

    def tail(self, value: float, df: float, n: float) -> float:
        """Return the probability that it is above `value`, in such deviations."""
        if self.is_best:
            return best_tail(value, df, n, self.runs)
        return t_tail(value / sqrt(1 / self.runs + 1 / n), df)


@dataclass(frozen=True)
class PredictionInterval:
    """Where what is `made` of more runs lies in 95 % of cases.

    `mean` is that of `n` runs, `spread` the deviation of one, estimated with `df` degrees of freedom.
    """

    mean: float
    spread: float
    df: float
    n: int
    made: Made = Made()

    @cached_property
    def middle(self) -> float:
        return sum(self._ends(self.n)) / 2 if self.made.is_best else self.mean

    @cached_property
    def half(self) -> float:
        return self.half_of(self.n)

    def half_of(self, n: float) -> float:
        """Return half of the interval that `n` runs of the same spread give."""
        low, high = self._ends(n)
        return (high - low) / 2

    def p_value(self, value: float, rounding: float) -> float:
        """Return the two-sided p-value of `value`, give or take its `rounding`."""
        low, high = ((value + each - self.mean) / self.spread for each in (-rounding, rounding))
        return min(2 * self.made.tail(low, self.df, self.n), 2 * (1 - self.made.tail(high, self.df, self.n)), 1.0)

    def runs_needed(self, half: float) -> float:
        """Return the fewest runs whose interval is at most ± `half`: infinity where no number is enough.

        MOST_RUNS + 1 stands for any number above MOST_RUNS.
        """
        if self.half_of(inf) >= half:
            return inf
        return self.n + bisect_left(range(self.n, MOST_RUNS + 1), True, key=lambda n: self.half_of(n) <= half)

    def _ends(self, n: float) -> tuple[float, float]:
        low, high = (self.made.quantile(each, self.df + n - self.n, n) for each in (ALPHA / 2, 1 - ALPHA / 2))
        return self.mean + self.spread * low, self.mean + self.spread * high


def predict_intervals(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray, step: np.ndarray, made: Sequence[Made]
) -> list[PredictionInterval]:
    """Return the interval of each cell, arrays (K,), of two runs or more; accuracies are multiples of `step`."""
    spread = moderated.moderate(variances, counts, step)
    columns = zip(means, np.sqrt(spread.variance), spread.df, counts, made, strict=True)
    return [
        PredictionInterval(float(mean), float(deviation), float(df), int(n), each)
        for mean, deviation, df, n, each in columns
    ]

"""Predict where one more run of a cell lies, by moderated variances."""

from dataclasses import dataclass
from itertools import count
from math import inf, sqrt

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.cells import ALPHA
from digitlab.analysis.statistics import MOST_RUNS, t_quantile, t_tail


@dataclass(frozen=True)
class PredictionInterval:
    """Where one more run lies in 95 % of cases: `middle` is the mean of `n` runs, `spread` the deviation of one."""

    middle: float
    spread: float
    df: float
    n: int

    @property
    def half(self) -> float:
        return self.half_of(self.n)

    def half_of(self, n: int) -> float:
        """Return half of the interval that `n` runs of the same spread give."""
        return t_quantile(1 - ALPHA / 2, self.df + n - self.n) * self.spread * sqrt(1 + 1 / n)

    def p_value(self, value: float, rounding: float) -> float:
        """Return the two-sided p-value of `value`, give or take its `rounding`, being one more run."""
        away = max(abs(value - self.middle) - rounding, 0.0)
        return 2 * t_tail(away / (self.spread * sqrt(1 + 1 / self.n)), self.df)

    def runs_needed(self, half: float) -> float:
        """Return the fewest runs whose interval is at most ± `half`: infinity where no number is enough.

        MOST_RUNS + 1 stands for any number above MOST_RUNS.
        """
        if t_quantile(1 - ALPHA / 2, inf) * self.spread >= half:
            return inf
        return next(n for n in count(self.n) if n > MOST_RUNS or self.half_of(n) <= half)


def predict_intervals(
    means: np.ndarray, variances: np.ndarray, counts: np.ndarray, step: np.ndarray
) -> list[PredictionInterval]:
    """Return the interval of each cell, arrays (K,), of two runs or more; accuracies are multiples of `step`."""
    spread = moderated.moderate(variances, counts, step)
    columns = zip(means, np.sqrt(spread.variance), spread.df, counts, strict=True)
    return [PredictionInterval(float(mean), float(deviation), float(df), int(n)) for mean, deviation, df, n in columns]

"""Compare two cells: their difference, its interval, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.cells import ALPHA, Cell
from digitlab.analysis.moderated import Spread
from digitlab.analysis.records import Predict
from digitlab.analysis.statistics import holm, mcnemar, t_quantile, t_tail


@dataclass
class Pair:
    """The difference in test accuracy of two cells: mean, interval, p-value before and after Holm's correction."""

    one: Cell
    other: Cell
    test: str  # moderated t, Welch's t, McNemar, or none
    difference: float
    low: float = nan
    high: float = nan
    p: float = nan
    p_holm: float = nan
    beats: float = nan  # probability that another run of `one` has a higher accuracy than another run of `other`
    p_equivalent: float = nan  # of a difference of the margin or more, by two one-sided tests; not corrected

    @property
    def is_real(self) -> bool:
        return self.p_holm < ALPHA


def compare_pairs(cells: Sequence[Cell], spread: Spread, margin: float | None) -> list[Pair]:
    """Compare each pair of cells by their moderated variances; `one` is the cell that stands first."""
    several = sum(cell.n > 1 for cell in cells)
    test = "moderated t" if several >= moderated.MIN_CELLS else "Welch's t"
    counts = np.array([cell.n for cell in cells], float)
    welch = [moderated.welch(spread, counts, np.array(index)) for index in range(len(cells))]
    pairs = []
    for i, j in combinations(range(len(cells)), 2):
        difference, error, df = cells[i].accuracy - cells[j].accuracy, *(float(each[j]) for each in welch[i])
        half = t_quantile(0.975, df) * error
        predicted = sqrt(error**2 + spread.variance[i] + spread.variance[j])  # of two more runs
        pair = Pair(cells[i], cells[j], test, difference, difference - half, difference + half,
                    p=2 * t_tail(abs(difference) / error, df), beats=t_tail(-difference / predicted, df))  # fmt: skip
        if margin is not None:
            pair.p_equivalent = t_tail((margin - abs(difference)) / error, df)
        pairs.append(pair)
    return _correct(pairs)


def compare_single_runs(cells: Sequence[Cell], predict: Predict) -> list[Pair]:
    """Compare each pair of cells of one run by the predictions of both for the same images, where they are stored."""
    pairs = []
    for one, other in combinations(cells, 2):
        pair = Pair(one, other, "none", one.accuracy - other.accuracy)
        ours, theirs = (predict(cell.runs[0]) for cell in (one, other))
        if ours and theirs and np.array_equal(ours.labels, theirs.labels):
            pair.test, pair.p = "McNemar", mcnemar(ours.correct, theirs.correct)
        pairs.append(pair)
    return _correct(pairs)


def _correct(pairs: list[Pair]) -> list[Pair]:
    for pair, p_holm in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        pair.p_holm = float(p_holm)
    return pairs

"""Decide which cells of a race may still be the best: looks at growing numbers of seeds that share one error.

Arrays are (..., K): the last axis is the cells, any others are repetitions, as of a simulation. Looks are at 3, 5, 10,
20 and so on seeds, and at each a cell is compared with the best one as in `moderated`. A cell leaves at p below the
error divided by the number of looks. The correction is always for all cells, also for those that left: which are left
depends on the same runs. So the truly best leaves in no more than ALPHA of races (Bonferroni over looks and cells).
docs/statistics.md says how often the rule is right, and what it saves.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.cells import ALPHA

FIRST = (3, 5)  # seeds at the first looks; from then on 10 and its doublings
MAX_SEEDS = 20


@dataclass(frozen=True)
class Standing:
    """A cell at a look: its runs, its mean, and what the comparison with the best one came to."""

    name: str
    n: int
    mean: float
    p: float | None  # of being at least as good as the best; None for the best, and for cells that had left before
    p_equivalent: float | None  # of a difference to the best of the margin or more; None where there is no such
    is_left: bool

    @property
    def is_best(self) -> bool:
        return self.is_left and self.p is None


def looks(max_seeds: int) -> list[int]:
    """Return the numbers of seeds at which a race is looked at: 3, 5, 10, 20 and its doublings, `max_seeds` last."""
    found, following = [n for n in FIRST if n < max_seeds], 10
    while following < max_seeds:
        found.append(following)
        following *= 2
    return [*found, max_seeds]


def level(max_seeds: int) -> float:
    """Return the p-value below which a cell leaves at each look."""
    return ALPHA / len(looks(max_seeds))


def look(
    means: np.ndarray,
    variances: np.ndarray,
    counts: np.ndarray,
    is_left: np.ndarray,
    step: float,
    margin: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the cells that are left with the best of them.

    All are (..., K). `counts` of the runs, `means` and `variances` are those that a cell had when it left, or has now.
    Returns p-values of being at least as good as it, nan for itself, and p-values of a difference of `margin` or more,
    nan without one; both corrected for K - 1 comparisons.
    """
    spread = moderated.moderate(variances, counts, step)
    p = moderated.against_best(means, spread, counts, is_left)
    if margin is None:
        return p, np.full(p.shape, np.nan)
    best = np.argmax(np.isnan(p), axis=-1)
    return p, moderated.equivalent_to_best(means, spread, counts, best, margin)


def stand(
    accuracies: Mapping[str, Sequence[float]],
    left: Collection[str],
    step: float,
    alpha: float,
    margin: float | None = None,
) -> list[Standing]:
    """Return how the cells stand at a look.

    `accuracies` are those of the runs of each cell, multiples of `step`, also of those that are not `left` any more. A
    cell leaves at p below `alpha`.
    """
    means, variances, counts = np.array([(np.mean(of), np.var(of, ddof=1), len(of)) for of in accuracies.values()]).T
    is_left = np.array([name in left for name in accuracies])
    p_values, p_equivalent = look(means, variances, counts, is_left, step, margin)
    return [
        Standing(
            name,
            int(n),
            float(mean),
            None if np.isnan(p) or name not in left else float(p),
            None if np.isnan(same) or name not in left else float(same),
            name in left and not p < alpha,
        )
        for name, n, mean, p, same in zip(accuracies, counts, means, p_values, p_equivalent, strict=True)
    ]


def why_over(standings: Sequence[Standing], alpha: float, margin: float | None) -> str:
    """Say why a race needs no more runs after a look; nothing where it does."""
    left = [each for each in standings if each.is_left]
    if len(left) < 2:
        return "one cell is left" if left else "no cell is left"
    others = [each.p_equivalent for each in left if not each.is_best]
    if all(p is not None and p < alpha for p in others):
        return f"all cells left are equivalent within {margin:g}"
    return ""

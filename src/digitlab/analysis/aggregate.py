"""Compare optimizers over several networks: mean paired difference, probability of improvement, ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import scipy

from digitlab.analysis.cells import Cell

MIN_NETWORKS, MIN_SEEDS = 3, 3  # networks, and runs of each, needed to compare optimizers over networks
MIN_RANKED = 5  # networks, needed to test ranks


@dataclass(frozen=True)
class Aggregate:
    """An optimizer over all networks, compared with the best one: each number with its 95 % interval."""

    arm: str
    networks: int
    runs: int
    accuracy: float
    difference: tuple[float, float, float]  # the best minus this one: mean over networks, low, high; nan for the best
    improvement: tuple[float, float, float]  # probability that a run of the best beats one of this on the same network
    rank: float  # mean over networks


@dataclass(frozen=True)
class Aggregates:
    """Optimizers over the networks that each has enough sound runs of, by falling mean accuracy."""

    rows: list[Aggregate]
    networks: list[str]
    left_out: list[str]  # optimizers
    p_ranks: float = nan  # Friedman's test of equal ranks; nan with too few networks or optimizers
    critical_difference: float = nan  # of two mean ranks, Nemenyi


def aggregate(cells: Sequence[Cell]) -> Aggregates:
    """Compare optimizers over the networks for which all of them have enough runs, none of which failed."""
    by_arm: dict[str, dict[str, np.ndarray]] = {cell.arm: {} for cell in cells}
    for cell in cells:
        if cell.is_sound and cell.n >= MIN_SEEDS:
            by_arm[cell.arm][cell.model] = np.array(list(cell.accuracies.values()))
    usable = {arm: of for arm, of in by_arm.items() if len(of) >= MIN_NETWORKS}
    networks = sorted(set.intersection(*map(set, usable.values()))) if usable else []
    if len(usable) < 2 or len(networks) < MIN_NETWORKS:
        return Aggregates([], networks, [])
    groups = {arm: [of[name] for name in networks] for arm, of in usable.items()}
    means = {arm: np.array([values.mean() for values in of]) for arm, of in groups.items()}
    order = sorted(groups, key=lambda arm: -means[arm].mean())
    ranks = scipy.stats.rankdata([-means[arm] for arm in order], axis=0)
    rows = [
        Aggregate(arm, len(networks), sum(map(len, groups[arm])), float(means[arm].mean()),
                  *compare_groups(groups[order[0]], groups[arm]), float(rank.mean()))
        for arm, rank in zip(order, ranks, strict=True)
    ]  # fmt: skip
    left_out = sorted(set(by_arm) - set(usable))
    if len(networks) < MIN_RANKED or len(order) < 3:
        return Aggregates(rows, networks, left_out)
    p = float(scipy.stats.friedmanchisquare(*means.values()).pvalue)
    return Aggregates(rows, networks, left_out, p, critical_difference(len(order), len(networks)))


def compare_groups(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], resamples: int = 4000
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean difference over groups of values and the probability of improvement, each with its 95 % interval.

    Both are means over groups, as many of `ours` as of `theirs`: a group is the runs of one network. The intervals are
    by a bootstrap within each group that draws one value less than there are, which makes the variance unbiased (Rao
    and Wu 1988); without that, groups of three are resampled with two thirds of their variance.
    """
    draw = np.random.default_rng(0)
    differences, wins = [], []
    for one, other in zip(ours, theirs, strict=True):
        mine, others = (draw.choice(values, (resamples, max(len(values) - 1, 1))) for values in (one, other))
        differences.append([one.mean() - other.mean(), *(mine.mean(axis=1) - others.mean(axis=1))])
        wins.append([_win(one, other), *_win(mine, others)])
    return _summarize(differences), _summarize(wins)


def critical_difference(arms: int, networks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of the mean ranks of two of `arms` over `networks` (Demšar 2006)."""
    quantile = scipy.stats.studentized_range.ppf(1 - alpha, arms, np.inf)
    return float(quantile * np.sqrt(arms * (arms + 1) / (12 * networks)))


def _win(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the share of pairs (..., n, m) in which ours is greater; equal ones count half."""
    signs = np.sign(ours[..., :, None] - theirs[..., None, :])
    return (signs.mean(axis=(-2, -1)) + 1) / 2


def _summarize(values: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    estimate, *resampled = np.mean(values, axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(estimate), float(low), float(high)

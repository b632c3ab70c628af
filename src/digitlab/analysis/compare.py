"""Compare networks and optimizers over a set of runs: which is best, and which differences are significant."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, nan
from statistics import mean, median

import numpy as np

from digitlab.analysis.cells import ALPHA, Cell, Rate
from digitlab.analysis.records import RATE, Predict, Result
from digitlab.analysis.statistics import (
    against_best,
    epochs_to,
    holm,
    iqm,
    mcnemar,
    paired_t,
    seeds_needed,
)

TARGETS = (0.97, 0.98, 0.99)  # of val/acc
MIN_NETWORKS, MIN_SEEDS = 5, 5  # networks, and seeds of each, needed to aggregate an optimizer over networks


@dataclass
class Pair:
    """The difference in test accuracy of two cells: mean, interval, p-value before and after Holm's correction."""

    one: Cell
    other: Cell
    test: str  # paired t, McNemar, or none
    n: int  # seeds in common
    difference: float
    low: float = nan
    high: float = nan
    p: float = nan
    p_holm: float = nan
    seeds_needed: float = nan

    @property
    def is_real(self) -> bool:
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Reach:
    """How soon the runs of a cell reached a validation accuracy: medians, in which a run that never did is infinite."""

    cell: Cell
    target: float
    reached: int
    epochs: float
    steps: float
    seconds: float  # nan where no run had its machine to itself


@dataclass(frozen=True)
class Aggregate:
    """An optimizer over all networks: interquartile mean of the test accuracy and its bootstrap interval."""

    optim: str
    networks: int
    runs: int
    value: float
    low: float
    high: float


@dataclass
class Comparison:
    """The comparison of all runs of one data set; cells are in order of falling test accuracy."""

    data: str
    test_images: int
    cells: list[Cell]
    pairs: list[Pair]
    reaches: list[Reach]
    aggregates: list[Aggregate]
    swept: list[str]  # settings that runs of the same network, optimizer and seed differ in

    @property
    def best(self) -> Cell:
        return next(cell for cell in self.cells if cell.is_best)

    @property
    def runs(self) -> list[Result]:
        return [run for cell in self.cells for run in cell.runs]

    @property
    def has_rates(self) -> bool:
        """Say whether several learning rates were tried."""
        return any(cell.rates for cell in self.cells)

    @property
    def models(self) -> list[str]:
        """The networks, that of the best cell first."""
        return list(dict.fromkeys(cell.model for cell in self.cells))

    @property
    def arms(self) -> list[str]:
        return sorted({cell.arm for cell in self.cells})

    @property
    def seeds(self) -> str:
        counts = sorted({cell.n for cell in self.cells})
        return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"

    def against_best(self) -> list[Pair]:
        """The pairs of the best cell and each other, by falling accuracy of these."""
        return [pair for pair in self.pairs if pair.one is self.best]


def compare(results: Sequence[Result], predict: Predict) -> Comparison:
    """Compare the runs of one data set.

    `predict` returns the stored predictions of a run, or None. Among runs of the same settings and seed, the one that
    ended last counts. Raises ValueError without any run, and for runs of several data sets.
    """
    if not results:
        raise ValueError("no run is done, so there is nothing to report")
    counts = Counter(result.data for result in results)
    if len(counts) > 1:
        listed = ", ".join(f"{name} ({count} runs)" for name, count in counts.items())
        raise ValueError(f"mixed data: {listed}: an accuracy on one says nothing about another. Each can be reported "
                         f"alone: report.filter=\"tags.data = '{counts.most_common(1)[0][0]}'\"")  # fmt: skip
    results = sorted(results, key=lambda result: result.ended)
    swept = _swept(results)
    cells = sorted(_choose(results, swept), key=lambda cell: -cell.accuracy)
    cells[0].is_best = True
    pairs = _pair(cells, predict)
    with_best = [pair for pair in pairs if pair.one is cells[0]]
    corrected = against_best([pair.difference for pair in with_best], [pair.p for pair in with_best])
    for pair, p_best in zip(with_best, corrected, strict=True):
        pair.other.p_best = float(p_best)
    return Comparison(
        data=results[0].data,
        test_images=results[0].test_images,
        cells=cells,
        pairs=pairs,
        reaches=[_reach(cell, target) for cell in cells for target in TARGETS],
        aggregates=_aggregate(cells),
        swept=swept,
    )


def _swept(results: Sequence[Result]) -> list[str]:
    """Return the swept settings: those in which runs of the same network, optimizer and seed differ.

    A setting that always equals the learning rate, such as a scheduler's highest rate, is left out.
    """
    same = defaultdict(list)
    for result in results:
        same[result.model, result.optim, result.seed].append(result.settings)
    found = set()
    for settings in same.values():
        if len(settings) > 1:
            keys = set().union(*settings)
            found |= {key for key in keys if len({each.get(key) for each in settings}) > 1}
    aliases = {key for key in found if all(each.settings.get(key) == each.lr for each in results)} - {RATE}
    return sorted(key for key in found - aliases if " " not in key)  # a key with a space is recorded, not configured


def _choose(results: Iterable[Result], swept: Sequence[str]) -> list[Cell]:
    """Return the cells, each with the learning rate of the highest mean validation accuracy."""
    shown = [key for key in swept if key != RATE]
    runs: dict[tuple, dict[str, dict[int, Result]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        variant = " ".join(f"{key}={result.settings.get(key, 'null')}" for key in shown)
        runs[result.model, result.optim, variant][result.lr][result.seed] = result
    cells = []
    for (model, optim, variant), by_rate in runs.items():
        validated = {lr: [run.best_val_acc for run in by_seed.values()] for lr, by_seed in by_rate.items()}
        chosen = max(validated, key=lambda lr: mean(validated[lr]))
        cell = Cell(model, optim, variant, [by_rate[chosen][seed] for seed in sorted(by_rate[chosen])])
        if len(by_rate) > 1:
            cell.rates = [
                Rate(lr, validated[lr], sum(run.has_diverged for run in by_rate[lr].values()), lr == chosen)
                for lr in sorted(validated, key=float)
            ]
        cells.append(cell)
    return cells


def _pair(cells: Sequence[Cell], predict: Predict) -> list[Pair]:
    """Compare each pair of cells; `one` is the cell with the higher accuracy."""
    # The two-sided level that equals the corrected one-sided level of a comparison with the best.
    strict = 2 * ALPHA / max(len(cells) - 1, 1)
    pairs = [
        _compare_two(one, other, predict, strict if one is cells[0] else ALPHA) for one, other in combinations(cells, 2)
    ]
    for pair, p_holm in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        pair.p_holm = float(p_holm)
    return pairs


def _compare_two(one: Cell, other: Cell, predict: Predict, alpha: float) -> Pair:
    common = sorted(one.accuracies.keys() & other.accuracies.keys())
    if len(common) > 1:
        values, others = ([cell.accuracies[seed] for seed in common] for cell in (one, other))
        step = 1 / one.runs[0].test_images
        needed = seeds_needed(values, others, step, alpha=alpha)
        return Pair(one, other, "paired t", len(common), *paired_t(values, others, step), seeds_needed=needed)
    pair = Pair(one, other, "none", len(common), one.accuracy - other.accuracy)
    if one.n == other.n == 1:  # their predictions for the same images are paired
        ours, theirs = (predict(cell.runs[0]) for cell in (one, other))
        if ours and theirs and np.array_equal(ours.labels, theirs.labels):
            pair.test, pair.p = "McNemar", mcnemar(ours.correct, theirs.correct)
    return pair


def _reach(cell: Cell, target: float) -> Reach:
    epochs = [epochs_to(run.val_acc, target) for run in cell.runs]
    steps = [count * run.steps_per_epoch for count, run in zip(epochs, cell.runs, strict=True)]
    seconds = [_seconds_to(run, target) for run in cell.timed]
    reached = sum(isfinite(count) for count in epochs)
    return Reach(cell, target, reached, median(epochs), median(steps), median(seconds) if seconds else nan)


def _seconds_to(run: Result, target: float) -> float:
    epochs = epochs_to(run.val_acc, target)
    return float(np.sum(run.epoch_s[: int(epochs)])) if isfinite(epochs) else inf


def _aggregate(cells: Sequence[Cell]) -> list[Aggregate]:
    """Return the optimizers by falling interquartile mean, over the networks for which each has enough seeds."""
    by_optim = defaultdict(dict)
    for cell in cells:
        if cell.n >= MIN_SEEDS:
            by_optim[cell.arm][cell.model] = cell
    common = set.intersection(*map(set, by_optim.values())) if by_optim else set()
    if len(common) < MIN_NETWORKS:
        return []
    rows = []
    for optim, by_model in by_optim.items():
        groups = [list(by_model[model].accuracies.values()) for model in sorted(common)]
        rows.append(Aggregate(optim, len(groups), sum(map(len, groups)), *iqm(groups)))
    return sorted(rows, key=lambda row: -row.value)

"""Compare networks and optimizers over a set of runs: which is best, and which differences are significant."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isfinite, nan
from statistics import median

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.aggregate import Aggregates, aggregate
from digitlab.analysis.cells import Cell, Rate
from digitlab.analysis.images import p_on_new_images
from digitlab.analysis.moderated import Rank
from digitlab.analysis.pairs import Pair, compare_pairs, compare_single_runs
from digitlab.analysis.records import RATE, Predict, Result, choose_rate, chosen_val_loss, mark_collapsed
from digitlab.analysis.statistics import epochs_to

TARGETS = (0.97, 0.98, 0.99)  # of val/acc
AXES = "network", "optimizer"


@dataclass(frozen=True)
class Reach:
    """How soon the runs of a cell reached a validation accuracy: medians, in which a run that never did is infinite."""

    cell: Cell
    target: float
    reached: int
    epochs: float
    steps: float
    seconds: float  # nan where no run had its machine to itself


@dataclass
class Comparison:
    """The comparison of all runs of one data set.

    Cells are in order of falling test accuracy, those with a run that diverged or collapsed last; these are shown and
    not compared.
    """

    data: str
    test_images: int
    cells: list[Cell]
    reaches: list[Reach]
    aggregates: Aggregates
    swept: list[str]  # settings that runs of the same network, optimizer and seed differ in
    axes: tuple[str, str]  # what is compared: networks and optimizers or, of runs made elsewhere, other things
    margin: float | None  # cells that differ by less are equivalent; None: not asked
    repeated: list[list[Result]]  # runs of the same settings and seed, of which the first counts
    pairs: list[Pair] = field(default_factory=list)
    ranks: dict[str, Rank] = field(default_factory=dict)  # by name of the cell, of those compared over seeds
    smallest: float = nan  # difference to the best that this design shows in 8 of 10 cases; nan where unknown

    @property
    def best(self) -> Cell | None:
        """The cell of the highest accuracy; None where each has a run that diverged or collapsed."""
        return next((cell for cell in self.cells if cell.is_best), None)

    @property
    def compared(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_sound]

    @property
    def higher(self) -> list[Cell]:
        """The compared cells above the best one: of one run each, which is never the best among cells of several."""
        return [cell for cell in self.compared if self.best and cell.accuracy > self.best.accuracy]

    @property
    def is_tested(self) -> bool:
        """Say whether any difference to the best was tested; of single runs without predictions none is."""
        return any(pair.test != "none" for pair in self.against_best())

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
    def step(self) -> float:
        """What accuracies are multiples of; where the number of test images is unknown, at most that."""
        if self.test_images:
            return 1 / self.test_images
        values = np.unique([run.accuracy for run in self.runs])
        return float(np.min(np.diff(values))) if values.size > 1 else 1e-4

    @property
    def seeds(self) -> str:
        counts = sorted({cell.n for cell in self.cells})
        return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"

    def against_best(self) -> list[Pair]:
        """The pairs of the best cell and each other, by falling accuracy of these."""
        return [pair for pair in self.pairs if self.best in (pair.one, pair.other)]


def compare(
    results: Sequence[Result],
    predict: Predict,
    margin: float | None = None,
    axes: tuple[str, str] = AXES,
) -> Comparison:
    """Compare the runs of one data set.

    `predict` returns the stored predictions of a run, or None. Cells whose accuracies differ by less than `margin` are
    called equivalent. `axes` says what networks and optimizers are called. Among runs of the same settings and seed,
    the one that began first counts. Raises ValueError without any run, and for runs of several data sets.
    """
    _check_data(results, predict)
    if not any(result.is_tested for result in results):
        raise ValueError("no run has been tested, so there is nothing to report")
    results = sorted(mark_collapsed(results, predict), key=lambda result: result.began)
    swept = sorted({key for tested in (True, False) for key in _swept([r for r in results if r.is_tested is tested])})
    cells, repeated = _choose(results, swept)
    if not cells:
        raise ValueError("no chosen learning rate has been tested yet, so there is nothing to report")
    cells.sort(key=lambda cell: (cell.failed / cell.n, -np.nan_to_num(cell.accuracy)))
    comparison = Comparison(
        data=results[0].data,
        test_images=results[0].test_images,
        cells=cells,
        reaches=[_reach(cell, target) for cell in cells for target in TARGETS],
        aggregates=aggregate(cells),
        swept=swept,
        axes=axes,
        margin=margin,
        repeated=repeated,
    )
    if any(cell.n > 1 for cell in comparison.compared):
        _compare_over_seeds(comparison, predict)
    elif comparison.compared:
        _compare_single_runs(comparison, predict)
    return comparison


def _compare_over_seeds(comparison: Comparison, predict: Predict) -> None:
    cells = comparison.compared
    means, variances, counts = np.array([(cell.accuracy, cell.variance, cell.n) for cell in cells]).T
    step = comparison.step
    spread = moderated.moderate(variances, counts, step)
    p_values = moderated.against_best(means, spread, counts, counts > 1)
    p_new = p_on_new_images(cells, spread, p_values, predict)
    for cell, p_best, p in zip(cells, p_values, p_new, strict=True):
        cell.p_best, cell.p_new, cell.is_best = float(p_best), float(p), bool(np.isnan(p_best))
    comparison.pairs = compare_pairs(cells, spread, comparison.margin)
    if comparison.margin is not None:
        best = np.flatnonzero(np.isnan(p_values))[0]
        same = moderated.equivalent_to_best(means, spread, counts, best, comparison.margin)
        for cell, p_equivalent in zip(cells, same, strict=True):
            cell.p_equivalent = float(p_equivalent)
    comparison.ranks = {c.name: each for c, each in zip(cells, moderated.rank(means, spread, counts), strict=True)}
    comparison.smallest = moderated.smallest_difference(spread, counts, step)


def _compare_single_runs(comparison: Comparison, predict: Predict) -> None:
    comparison.compared[0].is_best = True
    comparison.pairs = compare_single_runs(comparison.compared, predict)
    others = comparison.against_best()
    for pair in others:
        pair.other.p_best = float(np.minimum(1, len(others) * pair.p / 2))


def _check_data(results: Sequence[Result], predict: Predict) -> None:
    """Raise ValueError where there is no result, or where results are of several data sets or of several test sets."""
    if not results:
        raise ValueError("no run is done, so there is nothing to report")
    counts = Counter(result.data for result in results)
    if len(counts) > 1:
        listed = ", ".join(f"{name} ({count} runs)" for name, count in counts.items())
        raise ValueError(f"mixed data: {listed}: an accuracy on one says nothing about another. Each can be reported "
                         f"alone: report.filter=\"dataset.name = '{counts.most_common(1)[0][0]}'\"")  # fmt: skip
    digests = Counter(result.settings.get("data digest", "") for result in results)
    if len(digests) > 1 and not same_test_set(results, predict):
        listed = ", ".join(f"{digest} ({count} runs)" for digest, count in digests.items())
        raise ValueError(f"{results[0].data} is not the same images in all runs; their digests: {listed}: an accuracy "
                         "on one test set says nothing about another. Each can be reported alone: "
                         f"report.filter=\"dataset.digest = '{digests.most_common(1)[0][0]}'\"")  # fmt: skip


def same_test_set(results: Sequence[Result], predict: Predict) -> bool:
    """Say whether runs were tested on the same images, be it that they were split otherwise, on purpose.

    The digest is of all splits. Where settings of the data say why it differs, the stored labels and images decide.
    """
    by_digest: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_digest[result.settings.get("data digest", "")].append(result)
    settings = {tuple(sorted((k, v) for k, v in of[0].settings.items() if k.startswith("data.") and k != "data.seed"))
                for of in by_digest.values()}  # fmt: skip
    if len(settings) < len(by_digest) or len({result.test_images for result in results}) > 1:
        return False
    stored = [next((found for result in of if (found := predict(result))), None) for of in by_digest.values()]
    return all(a and b and a.is_of(b.labels, b.images) for a, b in pairwise(stored))


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


def _choose(results: Iterable[Result], swept: Sequence[str]) -> tuple[list[Cell], list[list[Result]]]:
    """Return the cells, each with the learning rate of the lowest mean validation loss, and what was run again.

    Where a cell has runs that were not tested, these choose the rate, and the cell's are those of that rate that were
    tested with other seeds. Of several runs of the same settings and seed the first of `results` counts.
    """
    shown = [key for key in swept if key != RATE]
    runs: dict[tuple, dict[tuple[bool, str], dict[int, list[Result]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for result in results:
        variant = " ".join(f"{key}={result.settings.get(key, 'null')}" for key in shown)
        runs[result.model, result.optim, variant][result.is_tested, result.lr][result.seed].append(result)
    cells, repeated = [], []
    for (model, optim, variant), by_rate in runs.items():
        counted = {rate: [by_seed[seed][0] for seed in sorted(by_seed)] for rate, by_seed in by_rate.items()}
        of_seeds = [each for by_seed in by_rate.values() for each in by_seed.values()]
        repeated += [each for each in of_seeds if len(each) > 1 and each[0].is_tested]
        is_held_out = any(not is_tested for is_tested, _ in counted)
        tried = {lr: of for (is_tested, lr), of in counted.items() if is_tested is not is_held_out}
        evaluate_on = next(
            (run.settings.get("evaluate_on") for of in counted.values() for run in of if run.is_tested), ""
        )
        chosen, losses = choose_rate(
            {lr: [chosen_val_loss(run.val_loss, evaluate_on) for run in of] for lr, of in tried.items()}
        )
        used = {run.seed for of in tried.values() for run in of} if is_held_out else set()
        tested = [run for run in counted.get((True, chosen), ()) if run.seed not in used]
        if not tested:
            continue
        cell = Cell(model, optim, variant, tested, is_held_out=is_held_out)
        if len(tried) > 1:
            cell.rates = [
                Rate(lr, [run.best_val_acc for run in tried[lr]], losses[lr],
                     sum(run.has_failed for run in tried[lr]), lr == chosen)
                for lr in sorted(tried, key=float)
            ]  # fmt: skip
        cells.append(cell)
    return cells, repeated


def _reach(cell: Cell, target: float) -> Reach:
    epochs = [epochs_to(run.val_acc, target) for run in cell.runs]
    steps = [count * run.steps_per_epoch for count, run in zip(epochs, cell.runs, strict=True)]
    seconds = [_seconds_to(run, target) for run in cell.timed]
    reached = sum(isfinite(count) for count in epochs)
    return Reach(cell, target, reached, median(epochs), median(steps), median(seconds) if seconds else nan)


def _seconds_to(run: Result, target: float) -> float:
    epochs = epochs_to(run.val_acc, target)
    return float(np.sum(run.epoch_s[: int(epochs)])) if isfinite(epochs) else inf

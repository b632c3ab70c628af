"""Write a comparison as tables of text and as plain numbers."""

from collections.abc import Callable
from math import isnan, nan
from statistics import mean

from digitlab.analysis.cells import ALPHA, Cell
from digitlab.analysis.compare import TARGETS, Comparison
from digitlab.analysis.statistics import t_interval
from digitlab.documents.document import BEST, TIED, Linked, Table
from digitlab.documents.format import mean_of, number, p_value, share, signed
from digitlab.platform.text import count


def matrix(comparison: Comparison) -> Table:
    """Return the mean test accuracies, networks down, optimizers across."""
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    rows = [
        [model, *(_to_runs(comparison, by_place.get((model, arm))) for arm in comparison.arms)]
        for model in comparison.models
    ]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}"
    headings = [comparison.axes[0], *(arm or "test accuracy" for arm in comparison.arms)]
    return Table(headings, rows, title, is_matrix=True)


def runs(comparison: Comparison, address: Callable[[str], str]) -> Table:
    """Return the accuracy of every run, a row for each cell; `address` says where a run is shown, by its id."""
    rows = [
        [cell.name, Linked(*((f"{run.accuracy:.4f} (seed {run.seed})", address(run.run_id)) for run in cell.runs))]
        for cell in comparison.cells
    ]
    anchors = [_anchor(comparison, cell) for cell in comparison.cells]
    return Table(["cell", "test accuracy of each run"], rows, "Runs of each cell", 2, anchors=anchors)


def cells(comparison: Comparison) -> Table:
    """Return a table with a row for each cell, the best first."""
    headings = ["mark", *comparison.axes, "test accuracy", "n", "rank", "best with probability", "test loss",
                "learning rate", "parameters", "s/epoch", "epochs"]  # fmt: skip
    rows = [
        [symbol(cell), cell.model, cell.arm, accuracy(cell), str(cell.n), *rank(comparison, cell), _loss(cell),
         _chosen_rate(cell, comparison.has_rates), parameters(cell),
         number(cell.epoch_s, ".2f"), f"{cell.epochs:g}" if cell.epochs else "–"]
        for cell in comparison.cells
    ]  # fmt: skip
    return Table(headings, rows, "All cells, the best first", text_columns=3).compact()


def metrics(comparison: Comparison) -> list[Table]:
    """Return a table of what else was measured of the test, a row for each cell; none where nothing was."""
    names = sorted({name for cell in comparison.cells for name in cell.metrics})
    rows = [[cell.model, cell.arm, *(_measured(cell, name) for name in names)] for cell in comparison.cells]
    return [Table([*comparison.axes, *names], rows, "Other metrics of the test", text_columns=2)] if names else []


def _measured(cell: Cell, name: str) -> str:
    """Write the mean of a metric with its interval over seeds, and of how many runs it is if not of all."""
    values = cell.metrics.get(name, [])
    partly = f" ({len(values)} of {cell.n})" if len(values) < cell.n else ""
    return f"{mean_of(values)}{partly}" if values else "–"


def against_best(comparison: Comparison) -> Table:
    """Return a table of the difference of each other cell to the best."""
    assert comparison.best
    best, rows = comparison.best, []
    for pair in comparison.against_best():
        other, sign = (pair.other, 1) if pair.one is best else (pair.one, -1)
        low, high = sorted((sign * pair.low, sign * pair.high))
        beats = pair.beats if sign > 0 else 1 - pair.beats
        rows.append([symbol(other), other.name, signed(sign * pair.difference), _interval(low, high),
                     p_value(other.p_best), _new_images(other), share(beats),
                     *([_equivalence(other)] if comparison.margin else [])])  # fmt: skip
    headings = ["mark", "cell", "difference", "95 % interval", "p", "on new images", "one run beats one run"]
    headings += [f"within {comparison.margin:g}"] if comparison.margin else []
    return Table(headings, rows, f"Difference to the best: {best.name} minus each other", text_columns=2).compact()


def all_pairs(comparison: Comparison) -> Table:
    """Return a table of all pairs of cells, the better one first."""
    rows = [
        [pair.one.name, pair.other.name, signed(pair.difference), _interval(pair.low, pair.high), pair.test,
         p_value(pair.p_holm), share(pair.beats)]
        for pair in comparison.pairs
    ]  # fmt: skip
    headings = ["cell", "minus", "difference", "95 % interval", "test", "p (Holm)", "one run beats one run"]
    return Table(headings, rows, f"All {count(len(rows), 'pair')}", text_columns=2, is_folded=True).compact()


def csv_of_cells(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each cell."""
    headings = ["data", "model", "optim", "variant", "is_best", "is_tied", "n", "test_acc", "low", "high", "interval",
                "p_best", "p_new_images", "p_equivalent", "expected_rank", "rank_low", "rank_high", "prob_best",
                "test_loss", "diverged", "collapsed", "parameters", "epoch_s", "seconds",
                "epochs", "lr", "rates_tried"]  # fmt: skip
    others = sorted({name for cell in comparison.cells for name in cell.metrics})
    headings += [f"{what}_to_{target:g}" for target in TARGETS for what in ("reached", "epochs", "steps", "seconds")]
    headings += [f"test_{name}{end}" for name in others for end in ("", "_low", "_high")]
    rows = []
    for cell in comparison.cells:
        interval = "t over seeds" if len(cell.accuracies) > 1 else "Wilson over images" if cell.accuracies else ""
        ranks = comparison.ranks.get(cell.name, (nan,) * 4)
        row = [comparison.data, cell.model, cell.optim, cell.variant, cell.is_best, cell.is_tied, cell.n,
               round(cell.accuracy, 6), *(round(end, 6) for end in cell.interval), interval,
               cell.p_best, cell.p_new, cell.p_equivalent, *ranks, cell.loss, cell.diverged,
               cell.failed - cell.diverged, cell.parameters, cell.epoch_s, cell.seconds, cell.epochs, cell.runs[0].lr,
               len(cell.rates) or 1]  # fmt: skip
        for reach in comparison.reaches:
            if reach.cell is cell:
                row += [reach.reached, reach.epochs, reach.steps, reach.seconds]
        for values in (cell.metrics.get(name, []) for name in others):
            ends = t_interval(values) if len(values) > 1 else (nan, nan)
            row += [mean(values) if values else nan, *ends]
        rows.append(row)
    return headings, rows


def csv_of_pairs(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each pair of cells."""
    headings = ["one", "other", "test", "n_one", "n_other", "difference", "low", "high", "p", "p_holm", "is_real",
                "one_run_beats_other", "p_equivalent"]  # fmt: skip
    rows = [
        [pair.one.name, pair.other.name, pair.test, pair.one.n, pair.other.n, round(pair.difference, 6), pair.low,
         pair.high, pair.p, pair.p_holm, pair.is_real, pair.beats, pair.p_equivalent]
        for pair in comparison.pairs
    ]  # fmt: skip
    return headings, rows


def symbol(cell: Cell) -> str:
    return BEST if cell.is_best else TIED if cell.is_tied else ""


def accuracy(cell: Cell) -> str:
    """Write the mean with its interval: ± half its width over seeds, or both ends of Wilson's, which is asymmetric.

    Runs that failed are counted, and are in no mean.
    """
    low, high = cell.interval
    values = list(cell.accuracies.values())
    single = f"{cell.accuracy:.4f}" + ("" if isnan(low) else f" ({low:.4f} to {high:.4f})")
    text = mean_of(values, cell.step) if len(values) > 1 else single
    return text if cell.is_sound else f"{failures(cell)}{f'; others {text}' if values else ''}"


def failures(cell: Cell) -> str:
    """Say how many runs diverged, and how many collapsed: "2 of 3 diverged"."""
    counts = {"diverged": cell.diverged, "at chance": cell.failed - cell.diverged}
    return ", ".join(f"{count} of {cell.n} {what}" for what, count in counts.items() if count)


def matrix_entry(cell: Cell | None) -> str:
    return f"{symbol(cell)} {accuracy(cell)}".strip() if cell else "–"


def _to_runs(comparison: Comparison, cell: Cell | None) -> str:
    return Linked((matrix_entry(cell), f"#{_anchor(comparison, cell)}")) if cell else "–"


def _anchor(comparison: Comparison, cell: Cell) -> str:
    return f"runs-{comparison.cells.index(cell) + 1}"


def rank(comparison: Comparison, cell: Cell) -> tuple[str, str]:
    """Write the expected rank of a cell with its interval, and how probably it is the best."""
    if cell.name not in comparison.ranks:
        return "–", "–"
    found = comparison.ranks[cell.name]
    spread = f" ({found.low} to {found.high})" if found.low < found.high else ""
    return f"{found.expected:.1f}{spread}", share(found.first)


def parameters(cell: Cell) -> str:
    return f"{cell.parameters:,}" if cell.parameters else "–"


def _loss(cell: Cell) -> str:
    if cell.diverged:
        return f"{cell.diverged} of {cell.n} diverged"
    return number(cell.loss, ".1e" if cell.loss >= 1000 else ".4f")


def _chosen_rate(cell: Cell, has_rates: bool) -> str:
    return f"{cell.runs[0].lr} of {len(cell.rates) or 1} tried" if has_rates else cell.runs[0].lr


def _interval(low: float, high: float) -> str:
    return "–" if isnan(low) else f"{signed(low)} to {signed(high)}"


def _new_images(cell: Cell) -> str:
    return "tied" if cell.p_new >= ALPHA else "worse" if cell.p_new < ALPHA else "–"


def _equivalence(cell: Cell) -> str:
    return "equivalent" if cell.is_equivalent else "not shown"

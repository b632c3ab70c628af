"""Write a comparison as tables of text and as plain numbers."""

from math import isnan

from digitlab.analysis.cells import Cell
from digitlab.analysis.compare import TARGETS, Comparison, Pair
from digitlab.documents.document import BEST, TIED, Table
from digitlab.documents.format import mean_of, number, p_value, signed


def matrix(comparison: Comparison) -> Table:
    """Return the mean test accuracies, networks down, optimizers across."""
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    rows = [
        [model, *(matrix_entry(by_place.get((model, arm))) for arm in comparison.arms)] for model in comparison.models
    ]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}"
    return Table(["network", *comparison.arms], rows, title)


def cells(comparison: Comparison) -> Table:
    """Return a table with a row for each cell, the best first."""
    headings = ["", "network", "optimizer", "test accuracy", "n", "test loss", "parameters", "s/epoch", "epochs"]
    rows = [
        [symbol(cell), cell.model, cell.arm, accuracy(cell), str(cell.n), _loss(cell),
         f"{cell.parameters:,}" if cell.parameters else "–", number(cell.epoch_s, ".2f"), f"{cell.epochs:g}",
         *([_chosen_rate(cell)] if comparison.has_rates else [])]
        for cell in comparison.cells
    ]  # fmt: skip
    headings += ["learning rate"] if comparison.has_rates else []
    return Table(headings, rows, "All cells, the best first", text_columns=3)


def against_best(comparison: Comparison) -> Table:
    """Return a table of the difference of each other cell to the best."""
    rows = [
        [symbol(pair.other), pair.other.name, *_pair(pair, pair.other.p_best)] for pair in comparison.against_best()
    ]
    headings = ["", "cell", *_pair_headings("p")]
    return Table(headings, rows, f"Difference to the best: {comparison.best.name} minus each other", text_columns=2)


def all_pairs(comparison: Comparison) -> Table:
    """Return a table of all pairs of cells, the better one first."""
    rows = [[pair.one.name, pair.other.name, *_pair(pair, pair.p_holm)] for pair in comparison.pairs]
    headings = ["cell", "minus", *_pair_headings("p (Holm)")]
    return Table(headings, rows, f"All {len(rows)} pairs", text_columns=2, is_folded=True)


def csv_of_cells(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each cell."""
    headings = ["data", "model", "optim", "variant", "is_best", "is_tied", "n", "test_acc", "low", "high", "interval",
                "test_loss", "diverged", "parameters", "epoch_s", "seconds", "epochs", "lr", "rates_tried"]  # fmt: skip
    headings += [f"{what}_to_{target:g}" for target in TARGETS for what in ("reached", "epochs", "steps", "seconds")]
    rows = []
    for cell in comparison.cells:
        interval = "t over seeds" if cell.n > 1 else "Wilson over images"
        row = [comparison.data, cell.model, cell.optim, cell.variant, cell.is_best, cell.is_tied, cell.n,
               round(cell.accuracy, 6), *(round(end, 6) for end in cell.interval), interval, cell.loss,
               cell.diverged, cell.parameters, cell.epoch_s, cell.seconds, cell.epochs, cell.runs[0].lr,
               len(cell.rates) or 1]  # fmt: skip
        for reach in comparison.reaches:
            if reach.cell is cell:
                row += [reach.reached, reach.epochs, reach.steps, reach.seconds]
        rows.append(row)
    return headings, rows


def csv_of_pairs(comparison: Comparison) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each pair of cells."""
    headings = ["one", "other", "test", "n", "difference", "low", "high", "p", "p_holm", "is_real", "seeds_needed"]
    rows = [
        [pair.one.name, pair.other.name, pair.test, pair.n, round(pair.difference, 6), pair.low, pair.high, pair.p,
         pair.p_holm, pair.is_real, pair.seeds_needed]
        for pair in comparison.pairs
    ]  # fmt: skip
    return headings, rows


def symbol(cell: Cell) -> str:
    return BEST if cell.is_best else TIED if cell.is_tied else ""


def accuracy(cell: Cell) -> str:
    """Write the mean with its interval: ± half its width over seeds, or both ends of Wilson's, which is asymmetric."""
    low, high = cell.interval
    return mean_of(list(cell.accuracies.values())) if cell.n > 1 else f"{cell.accuracy:.4f} ({low:.4f} to {high:.4f})"


def matrix_entry(cell: Cell | None) -> str:
    return f"{symbol(cell)} {accuracy(cell)}".strip() if cell else "–"


def _loss(cell: Cell) -> str:
    if cell.diverged:
        return f"{cell.diverged} of {cell.n} diverged"
    return f"{cell.loss:.4f}" if cell.loss < 1000 else f"{cell.loss:.1e}"


def _chosen_rate(cell: Cell) -> str:
    return f"{cell.runs[0].lr} of {len(cell.rates) or 1} tried"


def _pair_headings(corrected: str) -> list[str]:
    return ["difference", "95 % interval", "n", "test", corrected, "seeds needed"]


def _pair(pair: Pair, corrected: float) -> list[str]:
    interval = "–" if isnan(pair.low) else f"{signed(pair.low)} to {signed(pair.high)}"
    needed = "> 1,000" if pair.seeds_needed > 1000 else number(pair.seeds_needed, "g")
    return [signed(pair.difference), interval, str(pair.n), pair.test, p_value(corrected), needed]

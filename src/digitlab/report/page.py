"""Write a comparison as sections of text, tables and figures."""

from collections.abc import Sequence
from itertools import chain
from math import isfinite, nan
from statistics import mean

import numpy as np

from digitlab.analysis.compare import TARGETS, Comparison, Reach
from digitlab.analysis.records import Predictions
from digitlab.analysis.statistics import pareto_front
from digitlab.documents.document import Picture, Section, Table, picture
from digitlab.documents.format import number
from digitlab.documents.origin import origin
from digitlab.plots import report_figures
from digitlab.report.decision import differences, legend, networks
from digitlab.report.tables import cells, matrix, matrix_entry


def sections(
    comparison: Comparison, confounders: Sequence[str], notes: Sequence[str], predictions: Sequence[Predictions]
) -> list[Section]:
    """Return the sections of the report, the matrix first.

    `confounders` and `notes` are the lines that stand above it. `predictions` are those of the best cell's runs that
    stored them.
    """
    sections = [
        Section(
            matrix(comparison).title,
            [*_warnings(confounders, notes), matrix(comparison), *legend(comparison), _heat_map(comparison)],
        ),
        Section("All cells, the best first", [cells(comparison), _cells_note(comparison)]),
        Section("Differences", differences(comparison)),
        Section("Optimizers over networks", networks(comparison)),
        Section("Time to target", _reaches(comparison)),
        Section("Curves", [_curves(comparison)]),
        Section("Accuracy and cost", _costs(comparison)),
        Section("Learning rates", _rates(comparison)),
        Section("Misclassified images of the best cell", _mistakes(comparison, predictions)),
        Section("Provenance", origin(comparison.runs)),
    ]
    return [section for section in sections if section.blocks]


def _warnings(confounders: Sequence[str], notes: Sequence[str]) -> list[str | list[str]]:
    warning = "These runs differ in more than what is compared:"
    return [*([warning, list(confounders)] if confounders else []), *([list(notes)] if notes else [])]


def _cells_note(comparison: Comparison) -> str:
    return (
        "Test loss is the mean over seeds; s/epoch, training passes only, and the number of epochs are medians. – is "
        "for what was not recorded or, for seconds, where no run had its machine to itself."
    )


def _reaches(comparison: Comparison) -> list[str | Table]:
    targets = [target for target in TARGETS if any(x.reached for x in comparison.reaches if x.target == target)]
    missed = [f"{target:.0%}" for target in TARGETS if target not in targets]
    blocks: list[str | Table] = [f"No run reached a validation accuracy of {' or '.join(missed)}."] if missed else []
    if not targets:
        return blocks
    headings = ["network", "optimizer"]
    for target in targets:
        headings += [f"{target:.0%}: epochs", "steps", "seconds"]
    rows = []
    for cell in comparison.cells:
        reaches = [reach for reach in comparison.reaches if reach.cell is cell and reach.target in targets]
        columns = [[_count(reach), number(reach.steps, ",g"), number(reach.seconds, ".1f")] for reach in reaches]
        rows.append([cell.model, cell.arm, *chain(*columns)])
    note = (
        "Medians over seeds until the validation accuracy was first reached. A run that never reached it counts as ∞; "
        "(2 of 3) says how many did. Seconds are of training passes, from runs that had their machine to themselves."
    )
    return [*blocks, Table(headings, rows, text_columns=2), note]


def _count(reach: Reach) -> str:
    misses = "" if reach.reached in (0, reach.cell.n) else f" ({reach.reached} of {reach.cell.n})"
    return f"{number(reach.epochs, 'g')}{misses}"


def _heat_map(comparison: Comparison) -> Picture:
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    places = [[by_place.get((model, arm)) for arm in comparison.arms] for model in comparison.models]
    values = np.array([[cell.accuracy if cell else nan for cell in row] for row in places])
    texts = [[matrix_entry(cell).replace(" ±", "\n±").replace(" (", "\n(") for cell in row] for row in places]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}: darker is better"
    figure = report_figures.accuracy_matrix(values, texts, comparison.models, comparison.arms, title)
    return picture("matrix.svg", figure, "The matrix above as a heat map")


def _curves(comparison: Comparison) -> Picture:
    panels: dict[str, dict[str, np.ndarray]] = {}
    for cell in comparison.cells:
        if cell.curves.size:
            panels.setdefault(cell.model, {})[cell.arm] = cell.curves
    band = (
        ": mean, and band from the lowest seed to the highest" if any(cell.n > 1 for cell in comparison.cells) else ""
    )
    title = f"Validation accuracy on {comparison.data}, {comparison.seeds}{band}"
    return picture(
        "curves.svg", report_figures.learning_curves(panels, title), "Validation accuracy by epoch for each network"
    )


def _costs(comparison: Comparison) -> list[str | Picture]:
    cells = comparison.cells
    values = {
        "parameters": [float(cell.parameters or nan) for cell in cells],
        "seconds of training": [cell.seconds for cell in cells],
    }
    accuracies, costs, blocks = [cell.accuracy for cell in cells], {}, []
    for name, of in values.items():
        known = [i for i, value in enumerate(of) if isfinite(value)]
        if known:
            front = pareto_front([of[i] for i in known], [accuracies[i] for i in known])
            costs[name] = of, [known[i] for i in front]
            names = ", ".join(cells[known[i]].name for i in front)
            blocks.append(f"On the Pareto front of test accuracy and {name}: {names}.")
    if not costs:
        return []
    title = f"Test accuracy on {comparison.data} with 95 % intervals, {comparison.seeds}"
    figure = report_figures.trade_offs(
        costs,
        [(cell.accuracy, *cell.interval) for cell in cells],
        [cell.model for cell in cells],
        [cell.arm for cell in cells],
        title,
    )
    return [picture("costs.svg", figure, f"Test accuracy against {' and '.join(costs)}"), *blocks]


def _rates(comparison: Comparison) -> list[str | Table | Picture]:
    if not comparison.has_rates:
        return []
    panels: dict[str, dict[str, tuple[list[float], list[list[float]], int]]] = {}
    rows = []
    for cell in comparison.cells:
        if cell.rates:
            chosen = next(i for i, rate in enumerate(cell.rates) if rate.is_chosen)
            lists = [float(rate.lr) for rate in cell.rates], [rate.values for rate in cell.rates], chosen
            panels.setdefault(cell.model, {})[cell.arm] = lists
        for rate in cell.rates:
            failed = f"{rate.failed} of {len(rate.values)} diverged or at chance" if rate.failed else ""
            remark = ", ".join(filter(None, ("chosen" if rate.is_chosen else "", failed)))
            rows.append([cell.name, rate.lr, remark, number(rate.loss, ".4f"), f"{mean(rate.values):.4f}",
                         str(len(rate.values))])  # fmt: skip
    what = f"Best validation accuracy on {comparison.data} by learning rate, {comparison.seeds}"
    title = f"{what}: mean and range over seeds, the chosen one ringed"
    headings = ["cell", "learning rate", "", "mean validation loss", "mean best validation accuracy", "n"]
    table = Table(headings, rows, "All learning rates", 3, True)
    return [
        picture("rates.svg", report_figures.rate_sensitivity(panels, title), "Accuracy against learning rate"),
        table,
    ]


def _mistakes(comparison: Comparison, predictions: Sequence[Predictions]) -> list[str | Picture]:
    best = comparison.best
    if best is None or best.n < 2:
        return []
    if len(predictions) < 2:
        return [f"The runs of {best.name} have no predictions.npz, so their mistakes cannot be compared."]
    labels, predicted = predictions[0].labels, np.array([each.predicted for each in predictions])
    wrong, n, name = np.sum(predicted != labels, axis=0), len(predictions), best.name
    by_all, by_one = np.flatnonzero(wrong == n), np.flatnonzero(wrong == 1)
    blocks: list[str | Picture] = [
        f"Of {len(labels):,} test images {np.sum(wrong > 0):,} are misclassified by some run of {name}: "
        f"{len(by_all):,} by all {n} seeds, {len(by_one):,} by one seed only.{_mended(wrong, n)}"
    ]
    images = {row: image for each in predictions for row, image in each.images.items()}
    if not images and wrong.any():
        blocks.append("These runs did not record their misclassified images.")
    for rows, whose, file in (
        (by_all, f"all {n} seeds", "misclassified_by_all"),
        (by_one, "one seed only", "misclassified_by_one"),
    ):
        shown = [row for row in rows.tolist() if row in images][:32]
        if shown:
            title = f"{name} on {comparison.data}, n = {n}: misclassified by {whose}, {len(shown)} of {len(rows)}"
            pixels = np.array([images[row] for row in shown])
            figure = report_figures.shared_mistakes(
                pixels, labels[shown], predicted[:, shown], predictions[0].classes, title
            )
            blocks.append(picture(f"{file}.png", figure, f"Test images misclassified by {whose}"))
    return blocks


def _mended(wrong: np.ndarray, n: int) -> str:
    """Say how often one more seed classifies correctly what the others all misclassify; `wrong` counts seeds (N,)."""
    # Each seed in turn is the one more: what all n misclassify is a miss n times, what n - 1 do is a hit once.
    misses, hits = n * int(np.sum(wrong == n)), int(np.sum(wrong == n - 1))
    if n < 3 or not misses + hits:
        return ""
    return (
        f" What {n - 1} of these seeds all misclassify, the remaining one classifies correctly in "
        f"{hits / (misses + hits):.0%} of cases ({hits:,} of {misses + hits:,}), so another seed mends a part of them."
    ).replace("%", " %")

"""Write a comparison as sections of text, tables and figures."""

from collections.abc import Callable, Sequence
from itertools import chain
from math import isfinite, nan
from statistics import mean

import numpy as np

from digitlab.analysis.compare import TARGETS, Comparison, Reach
from digitlab.analysis.records import Predictions
from digitlab.analysis.statistics import pareto_front
from digitlab.documents.document import Block, Picture, Section, Table, picture
from digitlab.documents.format import number
from digitlab.documents.origin import origin
from digitlab.platform.text import are
from digitlab.plots import report_figures
from digitlab.report.decision import differences, legend, networks
from digitlab.report.tables import cells, matrix, matrix_entry, metrics, runs


def sections(
    comparison: Comparison,
    confounders: Sequence[str],
    notes: Sequence[str],
    predictions: Sequence[Predictions],
    address: Callable[[str], str],
) -> list[Section]:
    """Return the sections of the report, the matrix first.

    `confounders` and `notes` are the lines that stand beside it. `predictions` are those of the best cell's runs that
    stored them. `address` says where a run is shown, by its id.
    """
    network, optimizer = comparison.axes
    has_several = comparison.best is not None and comparison.best.n > 1
    reaches, mistakes = _reaches(comparison), _mistakes(comparison, predictions)
    warning = "These runs differ in more than what is compared:"
    warnings = [warning, list(confounders)] if confounders else []
    shown = [matrix(comparison), *legend(comparison), *_heat_map(comparison), *([list(notes)] if notes else [])]
    sections = [
        Section(matrix(comparison).title, [*warnings, *shown]),
        Section("How this was decided", differences(comparison), is_folded=True),
        Section("All cells, the best first", [cells(comparison), _cells_note(comparison)]),
        Section("Other metrics", _metrics(comparison)),
        Section("Runs", [runs(comparison, address)]),
        Section(f"{optimizer}s over {network}s".capitalize(), networks(comparison), not comparison.aggregates.rows),
        Section("Time to target", reaches, is_folded=len(reaches) < 2),
        Section("Curves", _curves(comparison)),
        Section("Accuracy and cost", _costs(comparison)),
        Section("Learning rates", _rates(comparison)),
        Section("Misclassified images of the best cell", mistakes, is_folded=has_several and not predictions),
        Section("Provenance", origin(comparison.runs)),
    ]
    return [section for section in sections if section.blocks]


def _cells_note(comparison: Comparison) -> str:
    if not any(cell.epochs for cell in comparison.cells):
        return "– is for what was not recorded."
    return (
        "Test loss is the mean over seeds; s/epoch, training passes only, and the number of epochs are medians. – is "
        "for what was not recorded or, for seconds, where no run had its machine to itself."
    )


def _metrics(comparison: Comparison) -> list[Block]:
    note = (
        "Means over the seeds that did not fail, ± half of their 95 % t-interval. No ranking and no mark goes by them."
    )
    found = metrics(comparison)
    return [*found, note] if found else []


def _reaches(comparison: Comparison) -> list[str | Table]:
    if not any(cell.epochs for cell in comparison.cells):
        return []
    targets = [target for target in TARGETS if any(x.reached for x in comparison.reaches if x.target == target)]
    missed = [f"{target:.0%}" for target in TARGETS if target not in targets]
    blocks: list[str | Table] = [f"No run reached a validation accuracy of {' or '.join(missed)}."] if missed else []
    if not targets:
        return blocks
    headings = [*comparison.axes]
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
    return [*blocks, Table(headings, rows, "Time to target", text_columns=2), note]


def _count(reach: Reach) -> str:
    misses = "" if reach.reached in (0, reach.cell.n) else f" ({reach.reached} of {reach.cell.n})"
    return f"{number(reach.epochs, 'g')}{misses}"


def _heat_map(comparison: Comparison) -> list[Picture]:
    if len(comparison.compared) < 2:
        return []
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    places = [[by_place.get((model, arm)) for arm in comparison.arms] for model in comparison.models]
    values = np.array([[cell.accuracy if cell else nan for cell in row] for row in places])
    texts = [[matrix_entry(cell).replace(" ±", "\n±").replace(" (", "\n(") for cell in row] for row in places]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}: darker is better"
    figure = report_figures.accuracy_matrix(values, texts, comparison.models, comparison.arms, title)
    return [picture("matrix.svg", figure, "The matrix above as a heat map", is_repeat=True)]


def _curves(comparison: Comparison) -> list[Picture]:
    panels: dict[str, dict[str, np.ndarray]] = {}
    for cell in comparison.cells:
        if cell.curves.size:
            panels.setdefault(cell.model, {})[cell.arm] = cell.curves
    if not panels:
        return []
    band = (
        ": mean, and band from the lowest seed to the highest" if any(cell.n > 1 for cell in comparison.cells) else ""
    )
    title = f"Validation accuracy on {comparison.data}, {comparison.seeds}{band}"
    figure = report_figures.learning_curves(panels, title)
    return [picture("curves.svg", figure, "Validation accuracy by epoch for each network")]


def _costs(comparison: Comparison) -> list[str | Picture]:
    cells = [cell for cell in comparison.cells if isfinite(cell.accuracy)]  # of the others every run failed
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
    by_all, by_one, by_some = np.flatnonzero(wrong == n), np.flatnonzero(wrong == 1), int(np.sum(wrong > 0))
    blocks: list[str | Picture] = [
        f"Of {len(labels):,} test images {by_some:,} {are(by_some)} misclassified by some run of {name}: "
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
            what = f"misclassified by {whose}, {len(shown)} of {len(rows)}"
            title = f"{name} on {comparison.data}, n = {n}: {what}: predicted, not true"
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
    mended = ", so another seed mends a part of them" if hits else ""
    return (
        f" What {n - 1} of these seeds all misclassify, the remaining one classifies correctly in "
        f"{hits / (misses + hits):.0%} of cases ({hits:,} of {misses + hits:,}){mended}."
    ).replace("%", " %")

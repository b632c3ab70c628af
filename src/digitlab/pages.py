"""Put a comparison into words, tables and figures."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from math import isfinite, isinf, isnan, nan
from statistics import mean
from typing import Any

import numpy as np

from digitlab import plots
from digitlab.comparison import ALPHA, ENOUGH, TARGETS, Cell, Comparison, Pair, Predictions, Reach, Result
from digitlab.document import BEST, TIED, Picture, Section, Table
from digitlab.statistics import pareto_front, t_interval


def sections(
    comparison: Comparison, differs: Sequence[str], notes: Sequence[str], answers: Sequence[Predictions]
) -> list[Section]:
    """Return the report, the matrix first.

    `differs` names what should agree and does not, `notes` what cannot be told; `answers` are the predictions of the
    best cell's runs that have any.
    """
    sections = [
        Section(
            matrix(comparison).title,
            [*_warnings(differs, notes), matrix(comparison), _legend(comparison), _heat_map(comparison)],
        ),
        Section("Every cell, the best first", [cells(comparison), _cells_note(comparison)]),
        Section("Differences", _differences(comparison)),
        Section("Optimizers over networks", _aggregates(comparison)),
        Section("Time to target", _reaches(comparison)),
        Section("Curves", [_curves(comparison)]),
        Section("What accuracy costs", _costs(comparison)),
        Section("Learning rates", _rates(comparison)),
        Section("Mistakes of the best", _mistakes(comparison, answers)),
        Section("Made from", origin(comparison.runs)),
    ]
    return [section for section in sections if section.blocks]


def conclusion(comparison: Comparison) -> str:
    """Return what a reader should take away, in a sentence."""
    best, others = comparison.best, len(comparison.cells) - 1
    ties = sum(cell.is_tied for cell in comparison.cells)
    found = f"at {accuracy(best)} (n = {best.n})"
    if not others:
        return f"{best.name} is {found}; there is nothing to compare it with."
    if not ties:
        what = "worse" if best.n > 1 else "worse on these test images"
        verdict = f"{'the other cell is' if others == 1 else 'all others are'} {what}"
    elif others == 1:
        verdict = f"the other cell ({TIED}) cannot be told from it"
    elif ties < others:
        verdict = f"{ties} of the {others} other cells ({TIED}) cannot be told from it"
    else:
        verdict = f"none of the {others} other cells ({TIED}) can be told from it"
    return f"{best.name} ({BEST}) is best {found}; {verdict}."


def matrix(comparison: Comparison) -> Table:
    """Return the mean test accuracies, networks down, optimizers across."""
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    rows = [[model, *(_place(by_place.get((model, arm))) for arm in comparison.arms)] for model in comparison.models]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}"
    return Table(["network", *comparison.arms], rows, title)


def cells(comparison: Comparison) -> Table:
    """Return a row for each cell, the best first."""
    headings = ["", "network", "optimizer", "test accuracy", "n", "test loss", "parameters", "s/epoch", "epochs"]
    rows = [
        [symbol(cell), cell.model, cell.arm, accuracy(cell), str(cell.n), _loss(cell),
         f"{cell.parameters:,}" if cell.parameters else "–", number(cell.epoch_s, ".2f"), f"{cell.epochs:g}",
         *([_chosen_rate(cell)] if comparison.has_rates else [])]
        for cell in comparison.cells
    ]  # fmt: skip
    headings += ["learning rate"] if comparison.has_rates else []
    return Table(headings, rows, "Every cell, the best first", text_columns=3)


def against_best(comparison: Comparison) -> Table:
    """Return how far each other cell is from the best."""
    rows = [
        [symbol(pair.other), pair.other.name, *_pair(pair, pair.other.p_best)] for pair in comparison.against_best()
    ]
    headings = ["", "cell", *_pair_headings("p")]
    return Table(headings, rows, f"{comparison.best.name} less each other cell", text_columns=2)


def all_pairs(comparison: Comparison) -> Table:
    """Return every pair of cells, the better one first."""
    rows = [[pair.one.name, pair.other.name, *_pair(pair, pair.p_holm)] for pair in comparison.pairs]
    headings = ["cell", "less", *_pair_headings("p (Holm)")]
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
    """Write the mean with its interval: half its width over seeds, both ends of Wilson's, which is not symmetric."""
    low, high = cell.interval
    return mean_of(list(cell.accuracies.values())) if cell.n > 1 else f"{cell.accuracy:.4f} ({low:.4f} to {high:.4f})"


def mean_of(values: Sequence[float]) -> str:
    """Write a mean with half the 95 % t-interval of the mean, or a single value."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    low, high = t_interval(values)
    return f"{mean(values):.4f} ± {(high - low) / 2:.4f}"


def number(value: float, form: str) -> str:
    return "–" if isnan(value) else "∞" if isinf(value) else f"{value:{form}}"


def _place(cell: Cell | None) -> str:
    return f"{symbol(cell)} {accuracy(cell)}".strip() if cell else "–"


def _warnings(differs: Sequence[str], notes: Sequence[str]) -> list[str | list[str]]:
    named = ["These runs differ in more than what is compared:", list(differs)] if differs else []
    return named + ([list(notes)] if notes else [])


def _legend(comparison: Comparison) -> str:
    tied = ""
    if comparison.pairs:
        best = "cell" if any(cell.n > 1 for cell in comparison.cells) else "of these trained networks"
        tied = (
            f", {TIED} not distinguishable from the best: p ≥ {ALPHA} in a {_tests(comparison)}, one-sided and "
            f"corrected for {len(comparison.cells) - 1} comparisons with the best, so that the truly best "
            f"{best} is among the marked ones in 95 % of cases"
        )
    return f"{BEST} best{tied}. {_interval(comparison)}"


def _tests(comparison: Comparison) -> str:
    names = {"paired t": "t-test of the differences paired by seed", "McNemar": "McNemar's exact test of two runs"}
    used = {pair.test for pair in comparison.pairs}
    return " or ".join(words for test, words in names.items() if test in used) or "test"


def _interval(comparison: Comparison) -> str:
    over_seeds, single = (any((cell.n > 1) is many for cell in comparison.cells) for many in (True, False))
    texts = ["± is the 95 % t-interval of the mean over seeds."] if over_seeds else []
    if single:
        texts.append(f"In brackets Wilson's 95 % interval of a single run over {comparison.test_images:,} test images.")
    return " ".join(texts)


def _cells_note(comparison: Comparison) -> str:
    return (
        "Test loss is a mean over seeds; s/epoch, training passes only, and the number of epochs are medians. – stands "
        "for what was not recorded, or for seconds where no run had its machine to itself."
    )


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
    return [signed(pair.difference), interval, str(pair.n), pair.test, _p(corrected), needed]


def signed(value: float) -> str:
    """Write a difference."""
    return f"{value:+.4f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else number(value, ".4f")


def _differences(comparison: Comparison) -> list[str | Table]:
    if not comparison.pairs:
        return ["There is one cell only."]
    note = (
        "Differences of test accuracy, paired by seed, with the interval of each alone. Against the best, p is "
        "one-sided and corrected for these comparisons; among all pairs it is two-sided and corrected by Holm for all "
        "of them: that one answers for a pair of your choice (report.html and pairs.csv have it). A cell further from "
        "the best can be tied with it and a nearer one not: its seeds differ more from one another. Seeds needed: as "
        f"many would show a difference of this size and spread in 80 % of cases, at α = {ALPHA} corrected for the "
        "comparisons with the best, or, among all pairs, for one pair alone: a rough number where it rests on few."
    )
    return [against_best(comparison), note, all_pairs(comparison)]


def _aggregates(comparison: Comparison) -> list[str | Table]:
    if not comparison.aggregates:
        here = f"here are {len(comparison.models)} and {comparison.seeds}"
        return [
            f"Which optimizer is better over all networks takes {ENOUGH} networks with {ENOUGH} seeds each; {here}."
        ]
    rows = [
        [row.optim, f"{row.value:.4f}", f"{row.low:.4f} to {row.high:.4f}", str(row.networks), str(row.runs)]
        for row in comparison.aggregates
    ]
    note = (
        "Interquartile mean of the test accuracy over all networks and seeds, with the 95 % interval of 10,000 "
        "bootstrap resamples stratified by network (Agarwal et al. 2021)."
    )
    left_out = [arm for arm in comparison.arms if arm not in {row.optim for row in comparison.aggregates}]
    notes = [f"Left out for want of {ENOUGH} networks with {ENOUGH} seeds: {', '.join(left_out)}."] if left_out else []
    return [Table(["optimizer", "IQM", "95 % interval", "networks", "runs"], rows), note, *notes]


def _reaches(comparison: Comparison) -> list[str | Table]:
    targets = [target for target in TARGETS if any(x.reached for x in comparison.reaches if x.target == target)]
    missed = [f"{target:.0%}" for target in TARGETS if target not in targets]
    blocks: list[str | Table] = [f"No run came to a validation accuracy of {' or '.join(missed)}."] if missed else []
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
        "Medians over seeds until the validation accuracy was first there; a run that never was counts as ∞, and "
        "(2 of 3) says how many were. Seconds are of training passes, from runs that had their machine to themselves."
    )
    return [*blocks, Table(headings, rows, text_columns=2), note]


def _count(reach: Reach) -> str:
    misses = "" if reach.reached in (0, reach.cell.n) else f" ({reach.reached} of {reach.cell.n})"
    return f"{number(reach.epochs, 'g')}{misses}"


def origin(runs: Sequence[Result]) -> list[str | list[str]]:
    """Say what the runs were, on what, and by which commands."""
    same = {key: value for key, value in runs[0].settings.items() if all(x.settings.get(key) == value for x in runs)}
    wanted = ("trainer.max_epochs", "data.batch_size", "trainer.precision", "evaluate_on", "early_stopping.patience")
    settings = ", ".join(f"{key}={same[key]}" for key in wanted if key in same)
    machine = ", ".join(
        f"{name} {same[f'environment {name}']}".replace("CPU ", "") for name in ("CPU", "GPU", "torch")
        if f"environment {name}" in same
    )  # fmt: skip
    commands = list(dict.fromkeys(run.command for run in sorted(runs, key=lambda run: run.ended) if run.command))
    days = sorted({f"{datetime.fromtimestamp(run.ended / 1000, UTC):%Y-%m-%d}" for run in runs})
    return [
        [
            f"{len(runs)} runs, {' to '.join(dict.fromkeys((days[0], days[-1])))}"
            + (f", commit {same['code commit']}" if same.get("code commit", "none") != "none" else ""),
            *([f"on {machine}"] if machine else []),
            *([f"with {settings}"] if settings else []),
            *commands[:3],
            *([f"and {len(commands) - 3} more"] if len(commands) > 3 else []),
        ]
    ]


def _heat_map(comparison: Comparison) -> Picture:
    by_place = {(cell.model, cell.arm): cell for cell in comparison.cells}
    places = [[by_place.get((model, arm)) for arm in comparison.arms] for model in comparison.models]
    values = np.array([[cell.accuracy if cell else nan for cell in row] for row in places])
    texts = [[_place(cell).replace(" ±", "\n±").replace(" (", "\n(") for cell in row] for row in places]
    title = f"Test accuracy on {comparison.data}, {comparison.seeds}: darker is better"
    figure = plots.accuracy_matrix(values, texts, comparison.models, comparison.arms, title)
    return picture("matrix.svg", figure, "The matrix above, as shades")


def _curves(comparison: Comparison) -> Picture:
    panels: dict[str, dict[str, np.ndarray]] = {}
    for cell in comparison.cells:
        if cell.curves.size:
            panels.setdefault(cell.model, {})[cell.arm] = cell.curves
    band = (
        ": mean, and band from the lowest seed to the highest" if any(cell.n > 1 for cell in comparison.cells) else ""
    )
    title = f"Validation accuracy on {comparison.data}, {comparison.seeds}{band}"
    return picture("curves.svg", plots.learning_curves(panels, title), "Validation accuracy by epoch for each network")


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
            blocks.append(f"Not beaten in test accuracy by anything with as few {name}: {names}.")
    if not costs:
        return []
    title = f"Test accuracy on {comparison.data} with 95 % intervals, {comparison.seeds}"
    figure = plots.trade_offs(
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
            diverged = f"{rate.diverged} of {len(rate.values)} diverged" if rate.diverged else ""
            remark = ", ".join(filter(None, ("chosen" if rate.is_chosen else "", diverged)))
            rows.append([cell.name, rate.lr, remark, f"{mean(rate.values):.4f}", str(len(rate.values))])
    what = f"Best validation accuracy on {comparison.data} by learning rate, {comparison.seeds}"
    title = f"{what}: mean and range over seeds, chosen ringed"
    table = Table(["cell", "learning rate", "", "mean best validation accuracy", "n"], rows, "Every rate", 3, True)
    return [picture("rates.svg", plots.rate_sensitivity(panels, title), "Accuracy against learning rate"), table]


def _mistakes(comparison: Comparison, answers: Sequence[Predictions]) -> list[str | Picture]:
    if comparison.best.n < 2:
        return []
    if len(answers) < 2:
        return [f"The runs of {comparison.best.name} have no predictions.npz, so their mistakes cannot be compared."]
    labels, predicted = answers[0].labels, np.array([each.predicted for each in answers])
    wrong, n, name = np.sum(predicted != labels, axis=0), len(answers), comparison.best.name
    by_all, by_one = np.flatnonzero(wrong == n), np.flatnonzero(wrong == 1)
    blocks: list[str | Picture] = [
        f"Of {len(labels):,} test images {np.sum(wrong > 0):,} are mistaken by some run of {name}: {len(by_all):,} by "
        f"all {n} seeds, which another seed will not mend, {len(by_one):,} by one seed only, which is chance."
    ]
    images = {row: image for each in answers for row, image in each.images.items()}
    if not images and wrong.any():
        blocks.append("These runs did not record the images of their mistakes.")
    for rows, whose, file in (
        (by_all, f"all {n} seeds", "mistaken_by_all"),
        (by_one, "one seed only", "mistaken_by_one"),
    ):
        shown = [row for row in rows if row in images][:32]
        if shown:
            title = f"{name} on {comparison.data}, n = {n}: mistaken by {whose}, {len(shown)} of {len(rows)}"
            pixels = np.array([images[row] for row in shown])
            figure = plots.shared_mistakes(pixels, labels[shown], predicted[:, shown], answers[0].classes, title)
            blocks.append(picture(f"{file}.png", figure, f"Test images mistaken by {whose}"))
    return blocks


def picture(file: str, figure: Any, alt: str) -> Picture:
    content = io.BytesIO()
    metadata = {"Date": None} if file.endswith(".svg") else None  # the same runs give the same file
    figure.savefig(content, format=file.rpartition(".")[2], metadata=metadata)
    return Picture(file, content.getvalue(), alt)

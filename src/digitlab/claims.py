"""Write down what became of the published claims: verdicts, counterparts, facts, curves."""

from collections.abc import Sequence
from math import isnan
from statistics import mean

import numpy as np

from digitlab import pages, plots, verdicts
from digitlab.comparison import Predictions
from digitlab.document import Section, Table
from digitlab.verdicts import Outcome, judge

READING = {
    verdicts.REPRODUCED: "Believe the number as what one run of this recipe may give",
    verdicts.BETTER: "The recipe gives more than the document says",
    verdicts.WORSE: "Do not expect the number: the recipe as stated gives less",
    verdicts.DIVERGED: "Believe the printed output, not the text: the network learned nothing",
    verdicts.NOT_COMPARABLE: "There is no number to check",
    verdicts.TOO_FEW: "Nothing follows yet",
}


def sections(outcomes: Sequence[Outcome], notes: Sequence[str], answers: Predictions | None) -> list[Section]:
    """Return the page of claims; `answers` are any run's predictions on the test images, for their labels."""
    claimed = [outcome for outcome in outcomes if not outcome.counterpart]
    others = [outcome for outcome in outcomes if outcome.counterpart]
    found = [
        Section("Verdicts", [*([list(notes)] if notes else []), table(claimed), _rule(), *_flags(claimed)]),
        Section("What a reader should believe", [_paragraph(outcome) for outcome in claimed]),
        Section("With one thing changed", [_counterparts(claimed, others)] if others else []),
        Section("Facts in the documents", [_facts(claimed, answers)]),
        Section("Curves", [_curves(claimed)]),
    ]
    return [section for section in found if section.blocks]


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each claim, leaving counterparts out."""
    headings = ["claim", "verdict", "claimed", "ours", "n", "difference", "loss claimed", "loss ours",
                "parameters claimed", "ours", "s/epoch then", "now"]  # fmt: skip
    rows = []
    for outcome in (each for each in outcomes if not each.counterpart):
        claim, cell, losses = outcome.claim, outcome.cell, outcome.losses
        rows.append([
            claim.name, judge(outcome)[0], _plain(claim.accuracy), pages.mean_of(outcome.accuracies),
            str(len(outcome.runs)), "–" if outcome.difference is None else pages.signed(outcome.difference),
            _plain(claim.loss), pages.mean_of(losses) if losses else "diverged",
            f"{claim.parameters:,}" if claim.parameters else "–", f"{cell.parameters:,}" if cell.parameters else "–",
            _plain(claim.seconds), pages.number(cell.epoch_s, ".1f"),
        ])  # fmt: skip
    return Table(headings, rows, "Published claims, run again", text_columns=2)


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """Return the verdicts counted, in a sentence."""
    found = [judge(outcome)[0] for outcome in outcomes if not outcome.counterpart]
    counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in READING if verdict in found)
    return f"{len(found)} claims: {counts}."


def csv(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each claim and counterpart."""
    headings = ["claim", "counterpart", "verdict", "reason", "claimed_acc", "n", "mean_acc", "accuracies",
                "claimed_loss", "mean_loss", "epoch_s"]  # fmt: skip
    rows = []
    for outcome in outcomes:
        losses, seconds = outcome.losses, outcome.cell.epoch_s
        verdict = ("", "") if outcome.counterpart else judge(outcome)
        rows.append([
            outcome.claim.name, outcome.counterpart, *verdict, outcome.claim.accuracy, len(outcome.runs),
            round(mean(outcome.accuracies), 6), " ".join(f"{value:.4f}" for value in outcome.accuracies),
            outcome.claim.loss, round(mean(losses), 6) if losses else None, None if isnan(seconds) else seconds,
        ])  # fmt: skip
    return headings, rows


def _rule() -> str:
    return (
        f"{verdicts.REPRODUCED}: the claimed accuracy, widened by its rounding, lies in the 95 % prediction interval "
        f"for one run of ours. {verdicts.BETTER} or {verdicts.WORSE}: ours is. {verdicts.DIVERGED}: every run names "
        f"one class for all images, as the printed accuracy and loss mean. {verdicts.TOO_FEW}: fewer than "
        f"{verdicts.ENOUGH} runs. Accuracy decides; the loss is shown. ± is the 95 % t-interval of the mean over "
        "seeds; seconds are of training passes (– where no run had its machine to itself)."
    )


def _flags(outcomes: Sequence[Outcome]) -> list[list[str]]:
    lines = []
    for claim in (outcome.claim for outcome in outcomes):
        on_test = "validated on the test set, which the number was then read from" if claim.is_validated_on_test else ""
        flags = [flag for flag in (on_test, claim.unstated, claim.caveat) if flag]
        if flags:
            lines.append(f"{claim.name}: {'; '.join(flags)}.")
    return [lines] if lines else []


def _paragraph(outcome: Outcome) -> str:
    claim, (verdict, reason) = outcome.claim, judge(outcome)
    doubts = []
    if claim.is_validated_on_test and not claim.diverges:
        doubts.append("it validated on the test set, so a reader who picks an epoch by that log picks by the answer")
    if claim.caveat:
        doubts.append(claim.caveat)
    text = (
        f"{claim.name} (document {claim.document}, {claim.model} with {claim.optim}): {verdict}. {READING[verdict]} "
        f"({reason}); the mean over {len(outcome.runs)} runs is {pages.mean_of(outcome.accuracies)}."
    )
    return f"{text} But {'; '.join(doubts)}." if doubts else text


def _counterparts(claimed: Sequence[Outcome], others: Sequence[Outcome]) -> Table:
    rows = []
    for other in others:
        base = next((outcome for outcome in claimed if outcome.claim.name == other.claim.name), None)
        change = mean(other.accuracies) - mean(base.accuracies) if base else None
        rows.append([
            other.counterpart, other.claim.name, pages.mean_of(other.accuracies), str(len(other.runs)),
            "–" if change is None else pages.signed(change),
        ])  # fmt: skip
    headings = ["counterpart", "of", "test accuracy", "n", "less the claim's recipe"]
    return Table(headings, rows, text_columns=2)


def _facts(outcomes: Sequence[Outcome], answers: Predictions | None) -> list[str]:
    """Check what the documents state as facts against what was counted."""
    lines = []
    for claim, counted in ((outcome.claim, outcome.cell.parameters) for outcome in outcomes):
        if claim.parameters and counted:
            agree = "the same" if claim.parameters == counted else "NOT the same"
            printed = f"{claim.parameters:,} parameters printed or implied"
            lines.append(f"{claim.name}: {printed}, {counted:,} counted: {agree}.")
    lines += [
        f"{outcome.claim.document}: {statement}" for outcome in outcomes for statement in outcome.claim.statements
    ]
    for outcome in outcomes:
        gains = outcome.best_less_last
        if outcome.claim.is_validated_on_test and not outcome.claim.diverges:
            lines.append(
                f"{outcome.claim.name}: the best epoch on the test set is above the last one by "
                f"{pages.mean_of(gains)} in accuracy (n = {len(gains)}): so much is gained by picking."
            )
    if answers is not None:
        labels = answers.labels
        shares = ", ".join(f"{answers.classes[k]} {(labels == k).mean():.4f}" for k in range(len(answers.classes)))
        lines.append(f"Share of each class in the {len(labels):,} test images: {shares}.")
    return lines


def _curves(outcomes: Sequence[Outcome]):
    panels: dict[str, dict[str, np.ndarray]] = {}
    for outcome in outcomes:
        panels[outcome.claim.name] = {"ours": outcome.cell.curves}
        if "val/acc" in outcome.claim.printed:
            panels[outcome.claim.name]["printed"] = np.array([outcome.claim.printed["val/acc"]], dtype=float)
    title = "Validation accuracy: ours, mean and range over seeds, and as the documents print it"
    return pages.picture(
        "claims.svg", plots.learning_curves(panels, title), "Validation accuracy by epoch, ours and printed"
    )


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"

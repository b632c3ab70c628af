"""Say the verdicts on claims in words."""

from collections.abc import Sequence

from digitlab.analysis.moderated import MIN_CELLS
from digitlab.claims.verdict import (
    BETTER,
    CANNOT_TELL,
    DIVERGED,
    MAYBE_BETTER,
    MAYBE_WORSE,
    MIN_RUNS,
    NOT_COMPARABLE,
    REPRODUCED,
    TOO_FEW,
    WORSE,
    Outcome,
)
from digitlab.documents import format

READING = {
    REPRODUCED: "Believe the number as one that a run of this recipe may give",
    BETTER: "The recipe gives more than the document says",
    MAYBE_BETTER: "The recipe may give more than the document says, which is not proven",
    CANNOT_TELL: "These runs neither confirm the number nor refute it",
    MAYBE_WORSE: "The recipe as stated may give less than the number, which is not proven",
    WORSE: "Do not expect the number: the recipe as stated gives less",
    DIVERGED: "Believe the printed output, not the text: the network learned nothing",
    NOT_COMPARABLE: "These runs cannot be compared with the claim",
    TOO_FEW: "There are too few runs for a verdict",
}
RULE = (
    "A claim is one run, or the mean or the best of several. As many runs more of ours would give a number in the "
    f"prediction interval in 95 % of cases. From {MIN_CELLS} claims of the same images on, none with a failed run, "
    "their spreads steady each other's widths. "
    f"{REPRODUCED}: the claimed accuracy, give or take its rounding, lies in that interval, which is no wider than the "
    f"95 % interval that the number of test images leaves to the claim. {CANNOT_TELL}: it lies in an interval that is "
    f"wider, and so would claims that are off; or a run of ours failed. {BETTER} or {WORSE}: it lies outside, our mean "
    "being above or below it, with p < 0.05 after Holm's correction for all claims judged. "
    f"{MAYBE_BETTER} or {MAYBE_WORSE}: outside, but with p ≥ 0.05, so not proven. {DIVERGED}: every run predicts one "
    f"class for all images, as the printed accuracy and loss imply. {TOO_FEW}: fewer than {MIN_RUNS} runs. "
    "Reach it: runs with the claimed accuracy, as it is rounded, or more. Percentile: the claim's in our runs, equal "
    "ones counted half. Difference: ours minus the claim; for a best of several ours is the middle of the interval. "
    "Failed: diverged, or no better than naming one class. Only the accuracy decides; the "
    "loss is for information. ± is the 95 % t-interval of the mean over seeds. Seconds are those of training passes (– "
    "where no run had its machine to itself)."
)


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """Return the number of claims with each verdict, in a sentence."""
    found = [outcome.verdict.word for outcome in outcomes if outcome.is_own]
    if not found:
        return f"No claim's own recipe has been run, so there is no verdict; changed recipes: {len(outcomes)}."
    counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in READING if verdict in found)
    return f"{len(found)} claim{'s' if len(found) > 1 else ''}: {counts}."


def paragraph(outcome: Outcome) -> str:
    """Say what a reader should believe of a claim."""
    claim, verdict = outcome.claim, outcome.verdict
    doubts = []
    if claim.is_validated_on_test and not claim.diverges:
        doubts.append("it validated on the test set, so an epoch picked by its log is picked on the test images")
    doubts += [each for each in (claim.contradicted, claim.caveat) if each]
    text = (
        f"{claim.name} (document {claim.document}, {claim.model} with {claim.optim}): {verdict.word}. "
        f"{READING[verdict.word]} ({verdict.reason}); our accuracy is {accuracy(outcome)} (n = {len(outcome.runs)})"
        f"{_reach(outcome)}."
    )
    text += f" But {'; '.join(doubts)}." if doubts else ""
    return f"{text} Where ours differs: {claim.otherwise}." if claim.otherwise else text


def accuracy(outcome: Outcome) -> str:
    """Write the mean accuracy; runs that failed are counted, and are in no mean unless the claim is that they do."""
    cell, values = outcome.cell, outcome.accuracies
    text = format.mean_of(values, outcome.step) if values else ""
    if not cell.failed or len(values) == cell.n:
        return text
    return f"{cell.failed} of {cell.n} failed{f'; others {text}' if text else ''}"


def _reach(outcome: Outcome) -> str:
    if outcome.reached is None or outcome.percentile is None or outcome.claim.diverges:
        return ""
    reach = "reaches" if outcome.reached == 1 else "reach"
    place = f"which is at their percentile {outcome.percentile:.0f}"
    return f", and {outcome.reached or 'none'} of these runs {reach} the claim, {place}"

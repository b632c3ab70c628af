"""Say whether a published number holds: what was claimed on one side, our runs of the same recipe on the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose, log
from statistics import mean

from digitlab.analysis.cells import Cell
from digitlab.analysis.records import Predictions, Result
from digitlab.analysis.statistics import prediction_interval
from digitlab.claims.schema import Claim

MIN_RUNS = 5  # runs that a verdict takes
CLIPPED = -log(1e-7)  # the loss of an image that a network of Keras <= 2.2 is sure to get wrong
REPRODUCED, BETTER, WORSE = "REPRODUCED", "BETTER", "WORSE"
DIVERGED, NOT_COMPARABLE, TOO_FEW = "DIVERGED AS PRINTED", "NOT COMPARABLE", "TOO FEW"


@dataclass
class Outcome:
    """Our runs of a claim's recipe, as it is or with `changes`, on one data set, by rising seed; there is one."""

    claim: Claim
    runs: list[Result]
    counterpart: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Predictions | None] = field(default_factory=dict)  # by run, where a claim diverges

    @property
    def is_own(self) -> bool:
        """Say whether the recipe is the claim's own, which alone can be judged."""
        return not self.changes

    @property
    def data(self) -> str:
        return self.runs[0].data

    @property
    def cell(self) -> Cell:
        return Cell(self.claim.model, self.claim.optim, "", self.runs)

    @property
    def accuracies(self) -> list[float]:
        return [run.accuracy for run in self.runs]

    @property
    def losses(self) -> list[float]:
        """The test losses that are numbers."""
        return [run.loss for run in self.runs if not run.has_diverged]

    @property
    def difference(self) -> float | None:
        """Ours less claimed; None where they cannot be compared."""
        if self.claim.accuracy is None or self.data != self.claim.data:
            return None
        return mean(self.accuracies) - self.claim.accuracy

    @property
    def one_class(self) -> int:
        """How many runs name one class for all images, with the accuracy and the clipped loss that this implies."""
        found = ((run, self.predictions.get(run.run_id)) for run in self.runs)
        return sum(
            predictions is not None
            and len(set(predictions.predicted.tolist())) == 1
            and isclose(run.accuracy, float(predictions.right.mean()), abs_tol=1e-6)
            and isclose(run.loss, (1 - run.accuracy) * CLIPPED, rel_tol=0.005)
            for run, predictions in found
        )

    @property
    def best_less_last(self) -> list[float]:
        """How much each run's best epoch on its validation images is above its last."""
        return [run.best_val_acc - float(run.val_acc[-1]) for run in self.runs]


def judge(outcome: Outcome) -> tuple[str, str]:
    """Return the verdict on a claim, and the reason in a few words.

    REPRODUCED: the claimed accuracy, widened by its rounding, lies in the 95 % prediction interval for one run of ours,
    and none of them diverged: with one that did, the interval holds any number.
    BETTER or WORSE: ours is. DIVERGED AS PRINTED: every run names one class, as the printed numbers mean; only its
    stored predictions show that. The loss decides nothing, and fewer than five runs decide nothing either. A changed
    recipe is not to be judged.
    """
    claim, n = outcome.claim, len(outcome.runs)
    if claim.accuracy is None:
        return NOT_COMPARABLE, "no accuracy is claimed"
    if outcome.data != claim.data:
        return NOT_COMPARABLE, f"claimed of {claim.data}, run on {outcome.data}"
    if n < MIN_RUNS:
        return TOO_FEW, f"n = {n} of {MIN_RUNS}"
    if claim.diverges and outcome.one_class == n:
        return DIVERGED, f"one class predicted in {n} of {n} runs"
    low, high = prediction_interval(outcome.accuracies)
    within = f"one run of ours lies in {low:.4f} to {high:.4f}"
    if claim.diverges:
        within = f"one class predicted in {outcome.one_class} of {n} runs; {within}"
    if diverged := outcome.cell.diverged:
        within = f"{diverged} of {n} runs diverged; {within}"
    elif low <= claim.accuracy + claim.rounding and claim.accuracy - claim.rounding <= high:
        return REPRODUCED, within
    difference = mean(outcome.accuracies) - claim.accuracy
    return (BETTER if difference > 0 else WORSE), f"ours by {abs(difference):.4f}; {within}"

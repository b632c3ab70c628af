"""Judge whether a published accuracy is reproduced by our runs of the same recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose, log
from statistics import mean

from digitlab.analysis.cells import Cell
from digitlab.analysis.records import Predictions, Result
from digitlab.analysis.statistics import prediction_interval
from digitlab.claims.schema import Claim

MIN_RUNS = 5  # that a verdict needs
CLIPPED = -log(1e-7)  # the largest loss of one image with Keras <= 2.2: its true class has probability 0
REPRODUCED, BETTER, WORSE = "REPRODUCED", "BETTER", "WORSE"
DIVERGED, NOT_COMPARABLE, TOO_FEW = "DIVERGED AS PRINTED", "NOT COMPARABLE", "TOO FEW"


@dataclass
class Outcome:
    """Our runs of a claim's recipe, unchanged or with `changes`, on one data set, by rising seed; at least one run."""

    claim: Claim
    runs: list[Result]
    counterpart: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Predictions | None] = field(default_factory=dict)  # by run id, for a claim that diverges

    @property
    def is_own(self) -> bool:
        """Say whether the recipe is the claim's own; a changed one cannot be judged."""
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
        """The test losses of the runs that did not diverge."""
        return [run.loss for run in self.runs if not run.has_diverged]

    @property
    def excess(self) -> float | None:
        """Our mean accuracy minus the claimed one; None where they cannot be compared."""
        if self.claim.accuracy is None or self.data != self.claim.data:
            return None
        return mean(self.accuracies) - self.claim.accuracy

    @property
    def one_class(self) -> int:
        """How many runs predict one class for all images, with the accuracy and clipped loss that this implies."""
        found = ((run, self.predictions.get(run.run_id)) for run in self.runs)
        return sum(
            predictions is not None
            and len(set(predictions.predicted.tolist())) == 1
            and isclose(run.accuracy, float(predictions.correct.mean()), abs_tol=1e-6)
            and isclose(run.loss, (1 - run.accuracy) * CLIPPED, rel_tol=0.005)
            for run, predictions in found
        )

    @property
    def best_minus_last(self) -> list[float]:
        """The validation accuracy of each run's best epoch minus that of its last."""
        return [run.best_val_acc - float(run.val_acc[-1]) for run in self.runs]


def judge(outcome: Outcome) -> tuple[str, str]:
    """Return the verdict on a claim, and the reason in a few words.

    REPRODUCED: the claimed accuracy, give or take its rounding, lies in the 95 % prediction interval for one run of
    ours, and none of ours diverged; a diverged one makes the interval so wide that it holds any accuracy.
    BETTER, WORSE: our mean accuracy is above or below the claimed one. DIVERGED AS PRINTED: every run predicts one
    class, as the printed numbers imply; the stored predictions show it. TOO FEW: fewer than five runs. The loss does
    not count. `outcome` is of the claim's own recipe.
    """
    claim, n = outcome.claim, len(outcome.runs)
    if claim.accuracy is None:
        return NOT_COMPARABLE, "no accuracy is claimed"
    if outcome.data != claim.data:
        return NOT_COMPARABLE, f"claimed for {claim.data}, run on {outcome.data}"
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
    excess = mean(outcome.accuracies) - claim.accuracy
    verdict, side = (BETTER, "above") if excess > 0 else (WORSE, "below")
    return verdict, f"our mean is {abs(excess):.4f} {side} the claim; {within}"

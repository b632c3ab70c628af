"""Say whether a published number holds: what was claimed on one side, our runs of the same recipe on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import isclose, log
from statistics import mean

from digitlab.comparison import Cell, Predictions, Result
from digitlab.statistics import prediction_interval

ENOUGH = 5  # runs that a verdict takes
CLIPPED = -log(1e-7)  # the loss of an image that a network of Keras <= 2.2 is sure to get wrong
REPRODUCED, BETTER, WORSE = "REPRODUCED", "BETTER", "WORSE"
DIVERGED, NOT_COMPARABLE, TOO_FEW = "DIVERGED AS PRINTED", "NOT COMPARABLE", "TOO FEW"


def agree(printed: object, ours: object) -> str:
    """Say whether what is printed is what was counted."""
    return "the same" if printed == ours else "NOT the same"


@dataclass(frozen=True)
class Statement:
    """What a document says of two networks' parameters, as a range of their ratio, and the ratio that was counted."""

    says: str
    of: str
    to: str
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        truth = "true" if self.low <= self.ratio <= self.high else "FALSE"
        return f"{self.says}: {truth}, {self.of} has {self.ratio:.2f} times the parameters of {self.to}."


@dataclass(frozen=True)
class Count:
    """The parameters that a document prints of a network that it claims nothing else of, and those of ours."""

    network: str
    printed: int
    ours: int

    def __str__(self) -> str:
        return (
            f"{self.network} has {self.printed:,} parameters in print, {self.ours:,} counted: "
            f"{agree(self.printed, self.ours)}; no accuracy is claimed of it, so this is parameters only."
        )


@dataclass(frozen=True)
class Layers:
    """The parameters of the first layers of a claim's network, as printed by a document that breaks off, and ours."""

    printed: Sequence[int]
    ours: Sequence[int]

    def __str__(self) -> str:
        printed, ours = (" and ".join(f"{count:,}" for count in each) for each in (self.printed, self.ours))
        return f"{printed} parameters printed of the first layers, {ours} counted: {agree(printed, ours)}."


@dataclass(frozen=True)
class Claim:
    """What a document says of one recipe. Accuracy and loss are on the test images, None where it gives none."""

    name: str
    document: str
    model: str
    optim: str
    data: str
    is_validated_on_test: bool
    accuracy: float | None = None
    loss: float | None = None
    parameters: int | None = None  # as printed
    seconds: float | None = None  # an epoch took
    unstated: str = ""
    caveat: str = ""
    diverges: bool = False  # the printed numbers are those of a network that names one class for everything
    printed: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metrics by epoch
    layers: Layers | None = None
    counts: Sequence[Count] = ()
    statements: Sequence[Statement] = ()

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit that the accuracy is given with."""
        return float(Decimal(1).scaleb(Decimal(str(self.accuracy)).as_tuple().exponent) / 2)


@dataclass(frozen=True)
class Recipe:
    """What a run follows: a claim's own recipe, or one with `changes`, (key, value), whose file is `counterpart`."""

    claim: str
    counterpart: str = ""
    changes: tuple[tuple[str, str], ...] = ()


@dataclass
class Outcome:
    """Our runs of a claim's recipe, as it is or with `changes`, on one data set, by rising seed; there is one."""

    claim: Claim
    runs: list[Result]
    counterpart: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, Predictions | None] = field(default_factory=dict)  # by run, where a claim diverges

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
        found = ((run, self.answers.get(run.run_id)) for run in self.runs)
        return sum(
            answers is not None
            and len(set(answers.predicted.tolist())) == 1
            and isclose(run.accuracy, float(answers.right.mean()), abs_tol=1e-6)
            and isclose(run.loss, (1 - run.accuracy) * CLIPPED, rel_tol=0.005)
            for run, answers in found
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
    stored answers show that. The loss decides nothing. Fewer than five runs decide nothing either. A changed recipe is
    not to be judged.
    """
    claim, n = outcome.claim, len(outcome.runs)
    if claim.accuracy is None:
        return NOT_COMPARABLE, "no accuracy is claimed"
    if outcome.data != claim.data:
        return NOT_COMPARABLE, f"claimed of {claim.data}, run on {outcome.data}"
    if n < ENOUGH:
        return TOO_FEW, f"n = {n} of {ENOUGH}"
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
    return (BETTER if outcome.difference > 0 else WORSE), f"ours by {abs(outcome.difference):.4f}; {within}"

"""Judge whether published accuracies are reproduced by our runs of the same recipes."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil, inf, isclose, isinf, log, log10, nan, sqrt
from statistics import mean

import numpy as np

from digitlab.analysis.cells import ALPHA, Cell
from digitlab.analysis.prediction import Made, PredictionInterval, predict_intervals
from digitlab.analysis.records import Predictions, Result
from digitlab.analysis.statistics import MOST_RUNS, holm
from digitlab.claims.schema import Claim

MIN_RUNS = 5  # that a verdict needs
CLIPPED = -log(1e-7)  # the largest loss of one image with Keras <= 2.2: its true class has probability 0
REPRODUCED, BETTER, WORSE = "REPRODUCED", "BETTER", "WORSE"
MAYBE_BETTER, MAYBE_WORSE, CANNOT_TELL = "BETTER?", "WORSE?", "CANNOT TELL"
DIVERGED, NOT_COMPARABLE, TOO_FEW = "DIVERGED AS PRINTED", "NOT COMPARABLE", "TOO FEW"


@dataclass(frozen=True)
class Verdict:
    """A verdict in a word, the reason in a few, and the numbers behind it, nan where there are none.

    `half` is half of the 95 % prediction interval for what the claim is made of, one run or more, `resolution` half of
    the interval that the images alone leave to an accuracy, `p_value` corrected for all claims that are judged.
    `needed` is how many runs would do where it cannot be told: infinitely many for none.
    """

    word: str = ""
    reason: str = ""
    middle: float = nan
    half: float = nan
    resolution: float = nan
    p_value: float = nan
    needed: float = nan


@dataclass
class Outcome:
    """Our runs of a claim's recipe, unchanged or with `changes`, on one data set, by rising seed; at least one run."""

    claim: Claim
    runs: list[Result]
    counterpart: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    one_class_runs: Collection[str] = ()  # ids of those that name one class for all images, for a claim that diverges
    interval: PredictionInterval | None = None  # for what the claim is made of; `judge` sets it where there is one
    verdict: Verdict = Verdict()  # `judge` sets that of a claim's own recipe

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
    def is_to_fail(self) -> bool:
        """Say whether the claim is of this recipe, and that it fails."""
        return self.claim.diverges and self.is_own

    @property
    def accuracies(self) -> list[float]:
        """The accuracies of the runs that did not fail; of all runs where the claim is that they do."""
        return [run.accuracy for run in self.runs if self.is_to_fail or not run.has_failed]

    @property
    def losses(self) -> list[float]:
        """The test losses of the runs that did not diverge."""
        return [run.loss for run in self.runs if run.loss is not None and not run.has_diverged]

    @property
    def step(self) -> float:
        """The accuracy that one test image is worth."""
        return 1 / self.runs[0].test_images

    @property
    def images(self) -> int:
        """How many images the claim is of: a mean over folds of those that each fold tests."""
        is_over_folds = self.claim.images == "test" and not self.claim.is_best
        folds = min(self.claim.folds, self.claim.runs) if is_over_folds else 1
        return folds * self.runs[0].test_images

    @property
    def is_comparable(self) -> bool:
        """Say whether an accuracy is claimed, and on the data of these runs."""
        return self.claim.accuracy is not None and self.data == self.claim.data

    @property
    def excess(self) -> float | None:
        """Our mean accuracy minus the claimed one; None where they cannot be compared.

        Of a best of several runs the middle of `range`, in place of the mean.
        """
        if self.claim.accuracy is None or not self.is_comparable or not self.accuracies:
            return None
        ours = sum(self.range) / 2 if self.interval and self.claim.is_best else mean(self.accuracies)
        return ours - self.claim.accuracy

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the prediction interval; an accuracy is from 0 to 1, whatever Student's t says."""
        middle, half = (self.interval.middle, self.interval.half) if self.interval else (nan, nan)
        return max(middle - half, 0), min(middle + half, 1)

    @property
    def reached(self) -> int | None:
        """How many runs have the claimed accuracy, as it is rounded, or more; None where they cannot be compared."""
        return self._place[0] + self._place[1] if self.is_comparable else None

    @property
    def percentile(self) -> float | None:
        """The claim's percentile among our runs: the share below it, and half of those equal to it as it is rounded."""
        above, equal = self._place
        return 100 * (1 - (above + equal / 2) / len(self.runs)) if self.is_comparable else None

    @property
    def _place(self) -> tuple[int, int]:
        """How many runs are above the claim, and how many equal to it."""
        claimed, rounding = self.claim.accuracy or 0.0, self.claim.rounding + 1e-9 if self.is_comparable else 0.0
        values = [nan if run.has_failed and not self.is_to_fail else run.accuracy for run in self.runs]
        return sum(v > claimed + rounding for v in values), sum(abs(v - claimed) <= rounding for v in values)

    @property
    def one_class(self) -> int:
        """How many runs predict one class for all images."""
        return sum(run.run_id in self.one_class_runs for run in self.runs)

    @property
    def best_minus_last(self) -> list[float]:
        """The validation accuracy of each run's best epoch minus that of its last."""
        return [run.best_val_acc - float(run.val_acc[-1]) for run in self.runs]


def names_one_class(run: Result, predictions: Predictions | None) -> bool:
    """Say whether a run predicts one class for all images, with the accuracy and clipped loss that this implies."""
    return (
        predictions is not None
        and len(set(predictions.predicted.tolist())) == 1
        and isclose(run.accuracy, float(predictions.correct.mean()), abs_tol=1e-6)
        and run.loss is not None
        and isclose(run.loss, (1 - run.accuracy) * CLIPPED, rel_tol=0.005)
    )


def judge(outcomes: Sequence[Outcome]) -> None:
    """Set the verdict of each claim whose own recipe was run; docs/statistics.md says what the words mean.

    All are judged together: their spreads steady each other, and p-values are corrected for their number.
    """
    own = [outcome for outcome in outcomes if outcome.is_own]
    for outcome in own:
        outcome.verdict = _without_interval(outcome)
    judged = [outcome for outcome in own if not outcome.verdict.word]
    _set_intervals([outcome for outcome in own if outcome.is_comparable])
    p_values = [_p_value(outcome) for outcome in judged]
    for outcome, p, p_holm in zip(judged, p_values, holm(p_values), strict=True):
        outcome.verdict = _decide(outcome, p, float(p_holm))


def may_be_settled(verdict: Verdict, level: float) -> bool:
    """Say whether more runs may make a verdict that says something of one that does not.

    BETTER and WORSE say it where p is below `level`, a look's share of the error.
    """
    if verdict.word == CANNOT_TELL:
        return verdict.needed < inf  # nan where runs failed
    return verdict.word in (MAYBE_BETTER, MAYBE_WORSE) or (verdict.word in (BETTER, WORSE) and verdict.p_value >= level)


def _without_interval(outcome: Outcome) -> Verdict:
    """Return the verdict that needs no interval, or an empty one."""
    claim, n = outcome.claim, len(outcome.runs)
    if claim.accuracy is None:
        return Verdict(NOT_COMPARABLE, "no accuracy is claimed")
    if not outcome.is_comparable:
        return Verdict(NOT_COMPARABLE, f"claimed for {claim.data}, run on {outcome.data}")
    if n < MIN_RUNS:
        return Verdict(TOO_FEW, f"n = {n} of {MIN_RUNS}")
    if claim.diverges and (outcome.one_class or outcome.cell.failed):
        found = f"one class predicted in {outcome.one_class} of {n} runs"
        return Verdict(DIVERGED if outcome.one_class == n else CANNOT_TELL, found)
    return Verdict()


def _set_intervals(outcomes: Sequence[Outcome]) -> None:
    """Set the prediction interval of each outcome with two sound runs or more.

    The spreads of recipes of one data set and kind of images steady each other. One with a failed run has that of its
    sound ones alone.
    """
    groups = defaultdict(list)
    for outcome in outcomes:
        if len(outcome.cell.accuracies) > 1:
            groups[(outcome.data, outcome.claim.images) if outcome.cell.is_sound else id(outcome)].append(outcome)
    for group in groups.values():
        counts, means, variances = np.array(
            [(len(c.accuracies), c.accuracy, c.variance) for c in (o.cell for o in group)]
        ).T
        steps, made = np.array([each.step for each in group]), [Made(o.claim.runs, o.claim.is_best) for o in group]
        for outcome, interval in zip(group, predict_intervals(means, variances, counts, steps, made), strict=True):
            outcome.interval = interval


def _p_value(outcome: Outcome) -> float:
    """Return the p-value of the claim being made of more runs of ours, 1 where runs that failed leave it open."""
    claimed, n, interval = outcome.claim.accuracy or 0.0, len(outcome.runs), outcome.interval
    if outcome.cell.is_sound or (interval and claimed > interval.middle):  # what failed is below the claim too
        return interval.p_value(claimed, outcome.claim.rounding) if interval else 1.0
    if not outcome.cell.accuracies and all(run.accuracy < claimed for run in outcome.runs):
        made = outcome.claim.runs
        return made / (n + made)  # an only sound one of all runs is among those of the claim with this probability
    return 1.0


def _decide(outcome: Outcome, p: float, p_holm: float) -> Verdict:
    claim, interval = outcome.claim, outcome.interval
    claimed, images, cell = claim.accuracy or 0.0, outcome.images, outcome.cell
    resolution = max(1.96 * sqrt(claimed * (1 - claimed) / images), 1 / images)
    middle, half = (interval.middle, interval.half) if interval else (nan, nan)
    low, high = outcome.range
    verdict = partial(Verdict, middle=middle, half=half, resolution=resolution, p_value=p_holm)
    reasons = [f"{cell.failed} of {cell.n} runs diverged or are at chance"] if cell.failed else []
    reasons += [f"one class predicted in {outcome.one_class} of {cell.n} runs"] if claim.diverges else []
    if interval:
        digits = max(4, ceil(log10(images)))
        reasons.append(f"{claim.made_of} of ours lies in {low:.{digits}f} to {high:.{digits}f}")
    if p < ALPHA or (p < 1 and not cell.accuracies):
        excess = outcome.excess or mean(run.accuracy for run in outcome.runs) - claimed
        side, certain, maybe = ("above", BETTER, MAYBE_BETTER) if excess > 0 else ("below", WORSE, MAYBE_WORSE)
        reasons.append(f"p = {p_holm:.2g}, corrected for the claims judged")
        word = certain if p_holm < ALPHA else maybe
        ours = f"the best of {claim.runs} of ours would be about" if claim.is_best else "our mean is"
        return verdict(word, "; ".join([f"{ours} {abs(excess):.4f} {side} the claim", *reasons]))
    if cell.failed or claim.diverges or not interval:
        return verdict(CANNOT_TELL, "; ".join(reasons))
    if claim.rounding > half:
        reasons[-1] += f", and the claim is rounded to ± {claim.rounding:g}"
    elif not low <= claimed <= high:
        reasons[-1] += f", and {claim.may_be(low)}"
    if half <= resolution:
        return verdict(REPRODUCED, reasons[0])
    needed = interval.runs_needed(resolution)
    digits = next((n for n in range(4, 16) if f"{half:.{n}f}" != f"{resolution:.{n}f}"), 16)  # that tell them apart
    width, least = f"{half:.{digits}f}", f"{resolution:.{digits}f}"
    whole = "" if (low, high) == (middle - half, middle + half) else ", uncut at 0 and 1,"
    reasons.append(f"that is{whole} ± {width}, wider than the ± {least} of {images:,} {claim.images} images")
    return verdict(CANNOT_TELL, "; ".join([*reasons, _say_needed(needed)]), needed=needed)


def _say_needed(needed: float) -> str:
    if isinf(needed):
        return "no number of runs would do"
    return f"{f'about {needed:g}' if needed <= MOST_RUNS else f'more than {MOST_RUNS:,}'} runs would do"

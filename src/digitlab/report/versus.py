"""Compare two runs, or two groups of runs: what differs, and whether one is better."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from digitlab.analysis.cells import ALPHA
from digitlab.analysis.compare import same_test_set
from digitlab.analysis.groups import Difference, difference, paired_difference, single_difference
from digitlab.analysis.records import Predict, Result, mark_collapsed
from digitlab.analysis.statistics import fails_more_often, mcnemar
from digitlab.platform import console
from digitlab.platform.text import are, count
from digitlab.report import runs
from digitlab.report.measured import show_metrics
from digitlab.report.sides import describe, describe_code, differences, find_side, is_alike, kinds, matched
from digitlab.report.withstood import show_withstood
from digitlab.tracking.store import Store

MARGIN = 0.001  # accuracy that B may lose
PASSES, FAILS, UNDECIDED = 0, 1, 3  # exit codes of a gate


class Verdict(NamedTuple):
    """A sentence, and whether B is worse than A: None where neither that is shown, nor a loss within the margin."""

    sentence: str
    is_worse: bool | None

    @property
    def exit_code(self) -> int:
        return UNDECIDED if self.is_worse is None else FAILS if self.is_worse else PASSES


def compare(store: Store, a: str, b: str, margin: float) -> int:
    """Print what differs between `a` and `b` and whether `b` is better; return the exit code of a gate.

    `a` and `b` are runs, sweeps or MLflow filters. With a run count all that differ from it in nothing but the seed.
    Raises ValueError where one of them cannot be found, or they are of different test images.
    """
    return show(store, find_side(store, a), find_side(store, b), margin).exit_code


def show(store: Store, a: Sequence[Result], b: Sequence[Result], margin: float) -> Verdict:
    """Print what differs between the sides, and the verdict; return it."""
    predict = predict_from(store)
    a, b = _mark(a, b, predict)
    console.say(f"A = {describe(a)}\nB = {describe(b)}")
    rows = [[key, *values] for key, values in differences(a, b).items()]
    if rows:
        console.show_table(["what differs", "A", "B"], rows, text_columns=3)
    for line in describe_code(store, a, b):
        console.say(line)
    if all(is_alike(run, side[0]) for side in (a, b) for run in side):
        show_withstood(store, a, b)
    verdict = judge(a, b, predict, margin)
    show_metrics(a, b)
    console.say(verdict.sentence)
    return verdict


def _mark(a: Sequence[Result], b: Sequence[Result], predict: Predict) -> tuple[Sequence[Result], Sequence[Result]]:
    """Return the sides, marked where a run collapsed, by the predictions of either."""
    marked = mark_collapsed([*a, *b], predict)
    return marked[: len(a)], marked[len(a) :]


def predict_from(store: Store) -> Predict:
    """Return the function that reads a run's stored predictions, each once."""
    read: Callable = cache(lambda run_id: runs.read_predictions(store, run_id))
    return lambda run: read(run.run_id)


def judge(a: Sequence[Result], b: Sequence[Result], predict: Predict, margin: float) -> Verdict:
    """Say whether the runs of B are better than those of A, shown to be worse, or shown to lose at most the margin.

    Raises ValueError where they cannot be compared.
    """
    if len({run.settings.get("data digest") for run in (*a, *b)}) > 1 and not same_test_set([*a, *b], predict):
        raise ValueError("A and B were tested on other images, so their accuracies cannot be compared")
    a, b = _mark(a, b, predict)
    ids = [{run.run_id for run in side} for side in (a, b)]
    if ids[0] == ids[1]:
        return Verdict("A and B are the same runs: they differ in nothing but the seed.", False)
    if all(is_alike(run, a[0]) for run in (*a, *b)):
        return _judge_repeated(a, b, predict)
    if shared := len(ids[0] & ids[1]):
        raise ValueError(f"{count(shared, 'run')} {are(shared)} in both A and B: give sides that share none")
    if is_identical(a, b, predict):
        return Verdict("The same to the bit: every prediction of A is that of B with the same seed.", False)
    if any(run.has_failed for run in (*a, *b)):
        return _judge_failed(a, b, predict, margin)
    return _judge_sound(a, b, matched(a, b), predict, margin)


def _judge_repeated(a: Sequence[Result], b: Sequence[Result], predict: Predict) -> Verdict:
    """Judge sides of which one is the other run again, or has other seeds of it."""
    again = [(one, other) for one in a for other in b if one.seed == other.seed and one.run_id != other.run_id]
    if not again:
        return Verdict("A and B differ in nothing but the seed.", False)
    first, second = zip(*again, strict=True)
    if is_identical(first, second, predict):
        return Verdict("The same to the bit: B is A run again, with every prediction the same.", False)
    one, other = next(pair for pair in again if not is_identical(pair[:1], pair[1:], predict))
    return Verdict(
        f"Cannot tell: B is A run again with the same settings and seed, and came to {other.accuracy:.4f} where A has "
        f"{one.accuracy:.4f}: the machines differ, or a GPU's sums do.",
        None,
    )


def _judge_failed(a: Sequence[Result], b: Sequence[Result], predict: Predict, margin: float) -> Verdict:
    """Judge the runs that neither diverged nor collapsed, and whether B has more of the others."""
    sound = [[run for run in side if not run.has_failed] for side in (a, b)]
    failures = [(len(side) - len(kept), len(side)) for side, kept in zip((a, b), sound, strict=True)]
    counts = [f"{failed} of {total} of {name}" for (failed, total), name in zip(failures, "AB", strict=True) if failed]
    said = f"Runs that diverged or are at chance: {' and '.join(counts)}"
    p_value = fails_more_often(failures[1], failures[0])
    if p_value < ALPHA:
        return Verdict(f"{said}. B fails more often (Fisher's exact test: p = {p_value:.2g}).", True)
    if not all(sound):
        return Verdict(f"{said}. Cannot tell more: run both with other seeds, then compare again.", None)
    matching = matched(a, b)
    pairs = [pair for pair in matching if not any(run.has_failed for run in pair)]
    if matching and len(pairs) < 2:
        return Verdict(f"{said}. Cannot tell more: of {len(matching)} pairs of runs {len(pairs)} did not fail.", None)
    verdict = _judge_sound(sound[0], sound[1], pairs, predict, margin)
    fails_more = failures[1][0] * failures[0][1] > failures[0][0] * failures[1][1]
    is_worse = None if fails_more and verdict.is_worse is False else verdict.is_worse
    return Verdict(f"{said}; they are in no mean. {verdict.sentence}", is_worse)


def _judge_sound(
    a: Sequence[Result], b: Sequence[Result], pairs: Sequence[tuple[Result, Result]], predict: Predict, margin: float
) -> Verdict:
    step, (one, other) = 1 / a[0].test_images, _accuracies(a, b)
    if len(pairs) > 1:
        found = paired_difference([(first.accuracy, second.accuracy) for first, second in pairs], step)
    elif min(len(a), len(b)) > 1:
        found = difference(one, other, step)
    elif max(len(a), len(b)) > 1:
        return _judge_single(one, other, step)
    else:
        return _judge_two(a[0], b[0], predict)
    return Verdict(_sentence(found, margin, len(pairs)), found.is_worse(margin))


def _accuracies(*groups: Sequence[Result]) -> list[list[float]]:
    return [[run.accuracy for run in group] for group in groups]


def is_identical(a: Sequence[Result], b: Sequence[Result], predict: Predict) -> bool:
    """Say whether the runs of the same network, optimizer and seed predict the same; False without such runs."""
    by_seed = kinds(a, b)
    shared = [(by_seed[0][key], by_seed[1][key]) for key in by_seed[0].keys() & by_seed[1].keys()]
    if not shared or any(one.loss != other.loss or one.accuracy != other.accuracy for one, other in shared):
        return False
    predicted = [[predict(run) for run in pair] for pair in shared]
    return all(one and other and np.array_equal(one.predicted, other.predicted) for one, other in predicted)


def _judge_single(one: Sequence[float], other: Sequence[float], step: float) -> Verdict:
    """Compare one run with several, as if it spread as they do: a guess from one run, which decides nothing."""
    side = "B" if len(one) > 1 else "A"
    found = single_difference(one, other[0], step) if side == "B" else single_difference(other, one[0], step)
    mean = found.mean if side == "B" else -found.mean
    shown = f"B - A is {points(mean)} ± {points(found.half)} points"
    return Verdict(
        f"Cannot tell: {shown} if other seeds of {side} spread as those of the other side do, but {side} has one run "
        f"to go by: run it with other seeds, then compare again.",
        None,
    )


def _judge_two(a: Result, b: Result, predict: Predict) -> Verdict:
    """Compare two trained networks by the images that only one of them gets right."""
    ours, theirs = predict(a), predict(b)
    told = "Of the settings one run tells nothing: run both with other seeds (sweep.seeds=5), then compare again."
    if not ours or not theirs:
        return Verdict(f"Cannot tell: B - A is {points(b.accuracy - a.accuracy)} points. {told}", None)
    one, other = ours.correct, theirs.correct
    p_value = mcnemar(one, other)
    found = (
        f"These two networks: B is right where A is wrong on {int(np.sum(other & ~one))} images, A where B is wrong on "
        f"{int(np.sum(one & ~other))} of {len(one):,} (McNemar's test: p = {p_value:.2g}"
    )
    return Verdict(f"{found}). {told}", None)


def _sentence(found: Difference, margin: float, paired: int) -> str:
    of = f"{paired} pairs of runs" if paired else f"n = {found.counts[0]} and {found.counts[1]}"
    basis = f"({of}, p = {found.p_value:.2g})"
    by = f"{points(abs(found.mean))} ± {points(found.half)} points"
    if found.is_shown:
        return f"B is {'better' if found.mean > 0 else 'worse'} by {by} {basis}."
    more, runs_of = found.runs_to_show(margin), "pairs of runs" if paired else "runs"
    if more == 0:
        needs = f"{runs_of} of this spread would show {points(margin)} points in 8 of 10 cases"
    elif more is None:
        needs = f"more than a thousand {runs_of} would be needed to show {points(margin)} points"
    else:
        added = f"{more} more {'pair' if paired else 'seed'}{'s' * (more > 1)}{' of runs' if paired else ' of each'}"
        needs = f"{added} would show {points(margin)} points in 8 of 10 cases"
    return f"Tie: B - A is {points(found.mean)} ± {points(found.half)} points {basis}; {needs}."


def points(share: float) -> str:
    """Write a difference of accuracies in points."""
    return f"{round(100 * share, 2) + 0.0:.2f}"  # no -0.00

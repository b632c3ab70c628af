"""Compare two runs, or two groups of runs: what differs, and whether one is better."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from digitlab.analysis.groups import Difference, difference, paired_difference
from digitlab.analysis.records import Predictions, Result
from digitlab.analysis.statistics import mcnemar
from digitlab.platform import console
from digitlab.report import runs
from digitlab.tracking import queries, references
from digitlab.tracking.store import Store

SHOWN_VALUES = 3  # of a setting in one group
PASSES, FAILS, UNDECIDED = 0, 1, 3  # exit codes of a gate


class Verdict(NamedTuple):
    """A sentence, and whether B is worse than A by more than the margin: None where that cannot be told."""

    sentence: str
    is_worse: bool | None


def compare(store: Store, a: str, b: str, margin: float) -> int:
    """Print what differs between `a` and `b` and whether `b` is better; return the exit code of a gate.

    `a` and `b` are runs, sweeps or MLflow filters. With a run count all that differ from it in nothing but the seed.
    Raises ValueError where one of them cannot be found, or they are of different test images.
    """
    group_a, group_b = _group(store, a), _group(store, b)
    rows = [[key, *values] for key, values in _differences(group_a, group_b).items()]
    console.say(f"A = {_describe(group_a)}\nB = {_describe(group_b)}")
    if rows:
        console.show_table(["what differs", "A", "B"], rows, text_columns=3)
    verdict = _judge(group_a, group_b, lambda run: runs.read_predictions(store, run.run_id), margin)
    console.say(verdict.sentence)
    return {True: FAILS, False: PASSES, None: UNDECIDED}[verdict.is_worse]


def _group(store: Store, reference: str) -> list[Result]:
    """Return the results that `reference` means; those of a sweep, of a filter, or of a run over its seeds."""
    if reference in queries.sweeps(store):
        return _tested(reference, runs.find(store, reference, None)[2])
    if any(sign in reference for sign in ("'", '"', "<", ">")):
        return _tested(reference, runs.find(store, None, reference)[2])
    run = references.resolve(store, reference)
    if not queries.is_done(run):
        raise ValueError(f"{reference}: is not done ({run.info.status})")
    kind = " and ".join(f"params.{key} = '{run.data.params[key]}'" for key in ("model", "optim", "data"))
    alike = runs.find(store, None, kind)[2]
    (itself,) = _tested(reference, [each for each in alike if each.run_id == run.info.run_id])
    return [each for each in alike if _identity(each) == _identity(itself)]


def _tested(reference: str, found: Sequence[Result]) -> list[Result]:
    tested = [each for each in found if each.is_tested]
    if not tested:
        raise ValueError(f"{reference}: has not been tested, so there is no accuracy to compare")
    return tested


def _identity(run: Result) -> Mapping[str, str]:
    return {key: value for key, value in _described(run).items() if not key.startswith("environment")}


def _described(run: Result) -> dict[str, str]:
    """Return all that a run was made of, but its seed."""
    settings = {key: value for key, value in run.settings.items() if key != "data.seed"}
    return {"model": run.model, "optim": run.optim, "data": run.data, "optim.lr": run.lr, **settings}


def _describe(group: Sequence[Result]) -> str:
    accuracy = np.array([run.accuracy for run in group])
    kinds = {(run.model, run.optim) for run in group}
    (model, optim), *others = sorted(kinds)
    name = f"{model}/{optim}" + (f" and {len(others)} more" if others else "")
    spread = f" ± {np.std(accuracy, ddof=1):.4f} (sd)" if len(group) > 1 else ""
    runs_of = "1 run" if len(group) == 1 else f"{len(group)} runs"
    return f"{name}: {runs_of}, test accuracy {accuracy.mean():.4f}{spread}"


def _differences(a: Sequence[Result], b: Sequence[Result]) -> dict[str, tuple[str, str]]:
    found = {}
    of = [[_described(run) for run in group] for group in (a, b)]
    for key in dict.fromkeys(key for group in of for each in group for key in each):
        values = [sorted({each.get(key, "none") for each in group}) for group in of]
        if values[0] != values[1]:
            found[key] = _list(values[0]), _list(values[1])
    return found


def _list(values: Sequence[str]) -> str:
    return ", ".join(values[:SHOWN_VALUES]) + (", ..." if len(values) > SHOWN_VALUES else "")


def _judge(
    a: Sequence[Result], b: Sequence[Result], predict: Callable[[Result], Predictions | None], margin: float
) -> Verdict:
    digests = {run.settings.get("data digest") for run in (*a, *b)}
    if len(digests) > 1:
        raise ValueError("A and B were tested on other images, so their accuracies cannot be compared")
    images = a[0].test_images
    if {run.run_id for run in a} == {run.run_id for run in b}:
        return Verdict("A and B are the same runs: they differ in nothing but the seed.", False)
    if _is_identical(a, b, predict):
        return Verdict("The same to the bit: every prediction of A is that of B with the same seed.", False)
    if min(len(a), len(b)) < 2:
        return _judge_two(a[0], b[0], predict)
    pairs = _matched(a, b)
    found = paired_difference(pairs, 1 / images) if pairs else difference(*_accuracies(a, b), step=1 / images)
    return Verdict(_sentence(found, margin, len(pairs)), found.is_worse(margin))


def _accuracies(*groups: Sequence[Result]) -> list[list[float]]:
    return [[run.accuracy for run in group] for group in groups]


def _is_identical(a: Sequence[Result], b: Sequence[Result], predict) -> bool:
    by_seed = [{(run.model, run.optim, run.seed): run for run in group} for group in (a, b)]
    shared = [(by_seed[0][key], by_seed[1][key]) for key in by_seed[0].keys() & by_seed[1].keys()]
    if not shared or any(one.loss != other.loss or one.accuracy != other.accuracy for one, other in shared):
        return False
    predicted = [[predict(run) for run in pair] for pair in shared]
    return all(one and other and np.array_equal(one.predicted, other.predicted) for one, other in predicted)


def _judge_two(a: Result, b: Result, predict) -> Verdict:
    """Compare two trained networks by the images that only one of them gets right."""
    predicted = [predict(run) for run in (a, b)]
    told = "Of the settings one run tells nothing: run both with other seeds (sweep.seeds=5), then compare again."
    if not all(predicted):
        return Verdict(f"Cannot tell: B - A is {_points(b.accuracy - a.accuracy)} points. {told}", None)
    one, other = (each.correct for each in predicted)
    p_value = mcnemar(one, other)
    found = (
        f"These two networks: B is right where A is wrong on {int(np.sum(other & ~one))} images, A where B is wrong on "
        f"{int(np.sum(one & ~other))} of {len(one):,} (McNemar's test: p = {p_value:.2g}"
    )
    return Verdict(f"{found}). {told}", None)


def _matched(a: Sequence[Result], b: Sequence[Result]) -> list[tuple[float, float]]:
    """Return the accuracies of runs of the same network, optimizer and seed; none where each group is of one kind.

    Raises ValueError where groups of several kinds have runs without a counterpart.
    """
    keyed = [{(run.model, run.optim, run.seed): run.accuracy for run in group} for group in (a, b)]
    if all(len({key[:2] for key in group}) == 1 for group in keyed):
        return []
    alone = keyed[0].keys() ^ keyed[1].keys()
    if alone:
        model, optim, seed = min(alone)
        raise ValueError(f"{model}/{optim} with seed {seed} is in only one of A and B: groups of several kinds of runs "
                         "are compared run by run")  # fmt: skip
    return [(keyed[0][key], keyed[1][key]) for key in sorted(keyed[0])]


def _sentence(found: Difference, margin: float, paired: int) -> str:
    of = f"{paired} pairs of runs" if paired else f"n = {found.counts[0]} and {found.counts[1]}"
    basis = f"({of}, p = {found.p_value:.2g})"
    by = f"{_points(abs(found.mean))} ± {_points(found.half)} points"
    if found.is_shown:
        return f"B is {'better' if found.mean > 0 else 'worse'} by {by} {basis}."
    more = found.runs_to_show(margin)
    if more == 0:
        needs = f"runs of this spread would show {_points(margin)} points in 8 of 10 cases"
    elif more is None:
        needs = f"more than a thousand runs would be needed to show {_points(margin)} points"
    else:
        needs = f"{more} more seed{'s' * (more > 1)} of each would show {_points(margin)} points in 8 of 10 cases"
    return f"Tie: B - A is {_points(found.mean)} ± {_points(found.half)} points {basis}; {needs}."


def _points(share: float) -> str:
    return f"{100 * share:.2f}"

"""The two sides of a comparison: the runs that a reference means, and what one side was made of and the other not."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from digitlab import REPOSITORY
from digitlab.analysis.fairness import CHANGED
from digitlab.analysis.records import Result
from digitlab.platform import console, git
from digitlab.platform.text import are, count
from digitlab.report import runs
from digitlab.tracking import queries, references
from digitlab.tracking.store import Store

SHOWN_VALUES = 3  # of a setting on one side, and commits and files in a line
# How a filter of MLflow's begins: an entity's key, or the name of an attribute before a sign that compares.
FILTER = re.compile(
    r"""\(*\s*(?:(?:params?|parameters?|metrics?|tags?|attributes?|attr|run|datasets?)\.\S
    |\w+\s*(?:[=<>]|!=|I?LIKE\b|(?:NOT\s+)?IN\b|IS\b).*(?:['"]|\d\s*$))""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def find_side(store: Store, reference: str) -> list[Result]:
    """Return the tested results that `reference` means: of a sweep, of a filter, or of a run over all its seeds.

    What is to be said of a filter is said. Raises ValueError where there are none.
    """
    if reference in queries.sweeps(store):
        return _once(_tested(reference, runs.find(store, reference, None)[2]))
    try:
        run = references.resolve(store, reference)
    except ValueError:
        if not FILTER.match(reference):
            raise
        for line in runs.chosen_by_result(reference):
            console.say(f"note: {reference}: {line}")
        return _once(_tested(reference, runs.find(store, None, reference)[2]))
    if not queries.is_done(run):
        raise ValueError(f"{reference}: is not done ({run.info.status})")
    return with_seeds(store, run)


def with_seeds(store: Store, run) -> list[Result]:
    """Return the result of a run that is done, and those that differ from it in nothing but seed and machine."""
    kind = " and ".join(f"params.{key} = '{run.data.params[key]}'" for key in ("model", "optim", "data"))
    alike = runs.find(store, None, kind)[2]
    itself = [each for each in alike if each.run_id == run.info.run_id]
    reference = str(run.info.run_name)
    result = _tested(reference, itself)[0]
    return _once([result, *(each for each in _tested(reference, alike) if is_alike(each, result))])


def _once(found: Sequence[Result]) -> list[Result]:
    """Return the results without those of the same settings and seed as one before them."""
    first: dict[tuple, Result] = {}
    for run in found:
        first.setdefault((run.seed, *sorted(_identity(run).items())), run)
    return list(first.values())


def kinds(a: Sequence[Result], b: Sequence[Result]) -> list[dict[tuple, Result]]:
    """Return the runs of each side by what varies within a side, and by seed."""
    of = [[_identity(run) for run in side] for side in (a, b)]
    keys = {key for side in of for each in side for key in each}
    varied = sorted(key for key in keys if any(len({each.get(key) for each in side}) > 1 for side in of))
    return [
        {(*(each.get(key, "none") for key in varied), run.seed): run for each, run in zip(made, side, strict=True)}
        for made, side in zip(of, (a, b), strict=True)
    ]


def matched(a: Sequence[Result], b: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return the runs that agree in seed and in what varies within a side; none where each side is of one kind.

    Raises ValueError where sides of several kinds have runs without a counterpart.
    """
    keyed = kinds(a, b)
    if all(len({key[:-1] for key in side}) == 1 for side in keyed):
        return []
    alone = keyed[0].keys() ^ keyed[1].keys()
    if alone:
        key = min(alone)
        name = (keyed[0] | keyed[1])[key].name
        raise ValueError(f"{name} is in only one of A and B: sides of several kinds of runs are compared run by run")
    return [(keyed[0][key], keyed[1][key]) for key in sorted(keyed[0])]


def is_alike(one: Result, other: Result) -> bool:
    """Say whether two runs differ in nothing but their seed and their machine."""
    return _identity(one) == _identity(other)


def _tested(reference: str, found: Sequence[Result]) -> list[Result]:
    tested = sorted(
        (each for each in found if each.is_tested), key=lambda run: run.began
    )  # of repeats the first counts
    if not tested:
        raise ValueError(f"{reference}: has not been tested, so there is no accuracy to compare")
    return tested


def _identity(run: Result) -> Mapping[str, str]:
    return {k: v for k, v in _made_of(run).items() if k != "machine" and not k.startswith("environment")}


def _made_of(run: Result) -> dict[str, str]:
    """Return all that a run was made of, but its seed."""
    settings = {key: value for key, value in run.settings.items() if key != "data.seed"}
    names = {"model": run.model, "optim": run.optim, "data": run.data, "optim.lr": run.lr}
    return names | settings | {"machine": run.host or "none"}


def describe(side: Sequence[Result]) -> str:
    """Name a side, and say how many runs it has and how accurate they are."""
    accuracy = np.array([run.accuracy for run in side if not run.has_failed])
    kinds = {(run.model, run.optim) for run in side}
    (model, optim), *others = sorted(kinds)
    name = f"{model}/{optim}" + (f" and {len(others)} more" if others else "")
    runs_of = count(len(side), "run")
    if failed := len(side) - len(accuracy):
        runs_of += f", of which {failed} diverged or {are(failed)} at chance"
    spread = f" ± {np.std(accuracy, ddof=1):.4f} (sd)" if len(accuracy) > 1 else ""
    return f"{name}: {runs_of}" + (f", test accuracy {accuracy.mean():.4f}{spread}" if len(accuracy) else "")


def differences(a: Sequence[Result], b: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Return what the sides were made of where it is not the same, by key; seeds are left out."""
    found = {}
    of = [[_made_of(run) for run in side] for side in (a, b)]
    for key in dict.fromkeys(key for side in of for each in side for key in each):
        values = [sorted({each.get(key, "none") for each in side}) for side in of]
        if values[0] != values[1]:
            found[key] = _list(values[0], ", "), _list(values[1], ", ")
    return found


def describe_code(store: Store, a: Sequence[Result], b: Sequence[Result]) -> list[str]:
    """Say in lines which commits lie between sides of one commit each, and which files their patches change."""
    lines, commits = [], [sorted({run.settings["code commit"] for run in side}) for side in (a, b)]
    if commits[0] != commits[1] and all(len(each) == 1 and each != ["none"] for each in commits):
        (old,), (new,) = commits
        for name, other, between in (("B", "A", (old, new)), ("A", "B", (new, old))):
            if found := git.commits_between(REPOSITORY, *between):
                commits_of = count(len(found), "commit")
                lines.append(f"{name} has {commits_of} that {other} has not: {_list(found, '; ')}")
    for name, side in (("A", a), ("B", b)):
        patched = next((run for run in side if run.settings.get(CHANGED) == "true"), None)
        if patched and (files := patched_files(store, patched.run_id)):
            lines.append(f"{name} ran with uncommitted changes: {_list(files, ', ')}")
    return lines


def patched_files(store: Store, run_id: str) -> list[str]:
    """Return the files that the uncommitted changes of a run touch."""
    with queries.artifact(store, run_id, "uncommitted.patch") as file:
        text = file.read_text("utf-8", "replace") if file else ""
    return [name.strip().strip('"') for name in re.findall(r'^diff --git .* "?b/(.*)$', text, re.M)]


def _list(values: Sequence[str], separator: str) -> str:
    return separator.join(values[:SHOWN_VALUES]) + (f"{separator}..." if len(values) > SHOWN_VALUES else "")

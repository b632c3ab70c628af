"""Say what limits a comparison: confounders, and missing seeds, predictions and timings."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from digitlab.analysis.cells import DISTURBED, name_unusual
from digitlab.analysis.compare import Comparison
from digitlab.analysis.records import Result
from digitlab.analysis.tuning import describe_tuning
from digitlab.platform.text import count

MOST_VALUES = 5  # of a setting that are listed
CHANGED = "code changed since its commit"


class Confounder(NamedTuple):
    """A setting that is not compared but differs between runs, with the names of the runs by its value.

    Code that was changed since its commit is one even where it is the same in all runs.
    """

    setting: str
    runs: Mapping[str, Sequence[str]]

    def __str__(self) -> str:
        ordered = sorted(self.runs.items(), key=lambda item: -len(item[1]))
        if len(ordered) == 1:
            ((value, names),) = ordered
            which = f"all {len(names)} runs" if len(names) > 1 else names[0]
            return f"{self.setting}: {value} ({which}): no commit contains the code that they ran"
        said = [f"{value} ({_name_runs(names)})" for value, names in ordered]
        if len(said) > MOST_VALUES:
            said[MOST_VALUES - 1 :] = [f"and {len(said) - MOST_VALUES + 1} other values"]
        return f"{self.setting}: {'; '.join(said)}"


def confounders(comparison: Comparison) -> list[str]:
    """Describe each setting that is not compared but differs between runs, with the runs of each value."""
    return [str(each) for each in find_confounders(comparison.runs, comparison.swept)]


def find_confounders(runs: Sequence[Result], axes: Iterable[str]) -> list[Confounder]:
    """Return the settings that differ between runs, other than the compared settings `axes`.

    The keys of a network or an optimizer are compared among its own runs only.
    """
    found = []
    for key in sorted(set().union(*(run.settings for run in runs)) - {"data.seed", *axes}):
        axis = key.partition(".")[0]
        groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for run in runs:
            own = {"model": run.model, "optim": run.optim}.get(axis, "")
            groups[own][run.settings.get(key, "none")].append(run.name)
        for own, names in groups.items():
            if len(names) > 1 or (key == CHANGED and "true" in names):
                found.append(Confounder(f"{key} of {own}" if own else key, names))
    return found


def _name_runs(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{len(names)} runs"


def caveats(comparison: Comparison) -> list[str]:
    """Return the limits of a comparison, one line each."""
    notes, cells, pairs, runs = [], comparison.cells, comparison.pairs, comparison.runs
    single = [cell for cell in cells if cell.n == 1]
    if single and len(single) == len(cells) and not comparison.test_images:
        notes.append("One run of each cell only, on an unknown number of images: no difference can be tested.")
    elif single and len(single) == len(cells):
        notes.append(
            f"One seed only: the interval is Wilson's over {runs[0].test_images:,} test images. McNemar's test says "
            "whether two trained networks differ on such images; how much another seed would change is unknown."
        )
    elif single:
        notes.append(
            f"One seed only in {_name_runs([cell.name for cell in single])}: how much another seed would change is "
            "taken from the other cells, and such a cell is never marked as the best. If its seeds differ more than "
            "theirs, the marks are right less often than is said."
        )
    if any(cell.n == 2 for cell in cells):
        notes.append(
            "Two seeds say little: their interval is seven times as wide as that of five seeds with the same spread."
        )
    seeds = {cell.name: frozenset(run.seed for run in cell.runs) for cell in cells}
    if len(set(seeds.values())) > 1:
        usual, listed = name_unusual(seeds, lambda name, found: f"{name} has {_list_seeds(found)}")
        notes.append(
            f"Unequal seeds: most cells have {_list_seeds(usual)}, {listed}. Each mean and each difference is over "
            "all seeds of its cells."
        )
    untested = [pair for pair in pairs if pair.test == "none"]
    if untested and comparison.test_images:
        notes.append(
            f"Not tested, and counted as indistinguishable: {len(untested)} of {count(len(pairs), 'pair')}. For single "
            "runs a test needs predictions.npz of the same test images."
        )
    failed = {"Diverged": [run.name for run in runs if run.has_diverged],
              "No better than naming one class": [run.name for run in runs if run.has_collapsed]}  # fmt: skip
    notes += [
        f"{what}: {_name_runs(names)}. Cells with such a run are shown last and not compared; its accuracy is in no "
        "mean, and it counts as a miss of every target that it did not reach."
        for what, names in failed.items() if names
    ]  # fmt: skip
    notes += [
        f"Run {len(again)} times, of which the first counts: {again[0].name}, with accuracies "
        f"{', '.join(f'{run.accuracy:.4f}' for run in again)}."
        for again in comparison.repeated
    ]
    contended = sum(not run.is_exclusive for run in runs)
    if contended:
        notes.append(
            f"Seconds are from {len(runs) - contended} of {count(len(runs), 'run')}: the others shared their machine "
            "with another run of this store part of the time."
        )
    disturbed = [cell.name for cell in cells if cell.is_disturbed]
    if disturbed:
        notes.append(
            f"Seconds of {_name_runs(disturbed)} are not those of the work alone: epochs of the same work took up to "
            f"more than {DISTURBED:g} times as long as others, as when other programs use the machine. Do not rank by "
            "them."
        )
    leaked = [run.name for run in runs if run.settings.get("data.split") == "test"]
    if leaked:
        notes.append(
            f"Validated on the test set: {_name_runs(leaked)}. This is test-set leakage: an epoch or a learning rate "
            "chosen by validation was chosen on the test images, so the test accuracy is too high."
        )
    return notes + describe_tuning(cells)


def _list_seeds(seeds: Iterable[int]) -> str:
    seeds = sorted(seeds)
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

"""What two sides came to in other metrics than accuracy: means, and their difference with its interval."""

from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

from digitlab.analysis.groups import difference, paired_difference
from digitlab.analysis.records import Result
from digitlab.documents.format import mean_of, signed
from digitlab.platform import console
from digitlab.report.sides import matched


def show_metrics(a: Sequence[Result], b: Sequence[Result]) -> None:
    """Print a table of the metrics that runs of both sides recorded of the test and did not fail."""
    rows = []
    for name in sorted({name for run in a for name in run.metrics} & {name for run in b for name in run.metrics}):
        of = [[run for run in side if name in run.metrics and not run.has_failed] for side in (a, b)]
        if all(of):
            values = [[run.metrics[name] for run in side] for side in of]
            rows.append([name, *(f"{mean_of(each)}, n = {len(each)}" for each in values), _difference(name, *of)])
    if rows:
        console.show_table(["other metrics of the test", "A", "B", "B - A"], rows)


def _difference(name: str, a: Sequence[Result], b: Sequence[Result]) -> str:
    step = 1 / a[0].test_images
    one, other = ([run.metrics[name] for run in side] for side in (a, b))
    pairs, found = [], None
    with suppress(ValueError):  # of several kinds of runs, some without a counterpart that has the metric
        pairs = [(first.metrics[name], second.metrics[name]) for first, second in matched(a, b)]
    if len(pairs) > 1:
        found = paired_difference(pairs, step)
    elif min(len(a), len(b)) > 1:
        found = difference(one, other, step)
    if found is None:
        return signed(mean(other) - mean(one))
    return f"{signed(found.mean)} ± {found.half:.4f} (p = {found.p_value:.2g})"

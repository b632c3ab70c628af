"""What two sides withstand: their accuracy on corrupted images, as `digitlab evaluate --corrupt` wrote it into runs."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from digitlab.analysis.records import Result
from digitlab.platform import console
from digitlab.tracking import queries
from digitlab.tracking.store import Store


def show_withstood(store: Store, a: Sequence[Result], b: Sequence[Result]) -> None:
    """Print a table for all images that runs of both sides were measured on, corrupted: means by kind and strength."""
    of = [_measured(store, side) for side in (a, b)]
    for each in sorted(of[0].keys() & of[1].keys()):
        name, sides = each[0], {"A": of[0][each], "B": of[1][each]}
        rows = [
            [kind, f"{side}, n = {len(runs)}", *(f"{value:.4f}" for value in _mean(runs, kind))]
            for kind in sides["A"][0]["corrupted"]
            for side, runs in sides.items()
        ]
        strengths = [str(number + 1) for number in range(len(rows[0]) - 2)]
        console.show_table((f"{name}, corrupted", "by strength", *strengths), rows, text_columns=2)


def _measured(store: Store, side: Sequence[Result]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return by data set, and what tells its images from others, what the runs of a side scored on them, corrupted."""
    found = defaultdict(list)
    for record in (record for run in side for record in _evaluations(store, run.run_id)):
        if "corrupted" in record:
            found[record["data"], record.get("digest", "")].append(record)
    return found


def _evaluations(store: Store, run_id: str) -> Iterator[Mapping[str, Any]]:
    with queries.artifact(store, run_id, "eval") as folder:
        for file in sorted(folder.glob("*/results.json")) if folder else ():
            yield json.loads(file.read_text())


def _mean(runs: Sequence[Mapping[str, Any]], kind: str) -> np.ndarray:
    return np.mean([[point["accuracy"] for point in run["corrupted"][kind]] for run in runs], axis=0)

"""Print answers one by one: as a table, as JSON lines, or as CSV."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from digitlab.platform.text import printable

TOP = 3  # classes that are named
WIDEST = 60  # characters of a file's name in a table


@dataclass(frozen=True)
class Answer:
    """What one file shows: the probabilities (N, C) of each thing in it, its box, and how many more were found."""

    file: str
    probabilities: np.ndarray
    boxes: Sequence[tuple[int, ...] | None]
    left_out: int

    def top(self, classes: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Return the most probable classes of each thing, with their probabilities."""
        names = list(classes)
        return [
            [(names[int(index)], float(row[index])) for index in np.argsort(-row, kind="stable")[:TOP]]
            for row in self.probabilities
        ]


class Writer(Protocol):
    """Print what is found in files. It is made with the names of the classes and of all files."""

    def __init__(self, classes: Sequence[str], files: Sequence[str], many: bool): ...

    def write(self, answer: Answer) -> None: ...

    def fail(self, file: str, reason: str) -> None: ...


class TableWriter:
    """A line a file, in columns; of several digits what they read, and the probability of the least sure one."""

    def __init__(self, classes: Sequence[str], files: Sequence[str], many: bool):
        self.classes, self.many = classes, many
        self.width = min(max(map(len, map(printable, files)), default=4), WIDEST)
        self.widest = max(5, *map(len, classes))
        heading = "reads" if many else f"{'class':<{self.widest}}  probability  others"
        print(f"{'file':<{self.width}}  {heading}")

    def write(self, answer: Answer) -> None:
        file = f"{printable(answer.file):<{self.width}}"
        top = answer.top(self.classes)
        if self.many:
            least = min(each[0][1] for each in top)
            print(f"{file}  {''.join(each[0][0] for each in top)}  (least sure {least:.4f})")
            return
        (first, probability), *others = top[0]
        rest = ", ".join(f"{name} {value:.4f}" for name, value in others)
        more = f"  ({answer.left_out} more found; --many reads all)" if answer.left_out else ""
        print(f"{file}  {first:<{self.widest}}  {probability:11.4f}  {rest}{more}")

    def fail(self, file: str, reason: str) -> None:
        _warn(file, reason)


class JsonWriter:
    """A JSON object a file, in a line of its own."""

    def __init__(self, classes: Sequence[str], files: Sequence[str], many: bool):
        self.classes = classes

    def write(self, answer: Answer) -> None:
        found = []
        for top, box in zip(answer.top(self.classes), answer.boxes, strict=True):
            ranked = [{"class": name, "probability": round(value, 6)} for name, value in top]
            found.append({**ranked[0], "top": ranked, **({"box": box} if box else {})})
        print(json.dumps({"file": answer.file, "found": found, "left_out": answer.left_out}))

    def fail(self, file: str, reason: str) -> None:
        print(json.dumps({"file": file, "error": reason}))
        _warn(file, reason)


class CsvWriter:
    """A row for each thing that was found."""

    def __init__(self, classes: Sequence[str], files: Sequence[str], many: bool):
        self.classes, self.writer = classes, csv.writer(sys.stdout, lineterminator="\n")
        ranks = [f"{name}{rank}" for rank in range(1, min(TOP, len(classes)) + 1) for name in ("class", "probability")]
        self.writer.writerow(["file", "position", *ranks, "error"])

    def write(self, answer: Answer) -> None:
        for position, top in enumerate(answer.top(self.classes), 1):
            cells = [cell for name, value in top for cell in (name, f"{value:.6f}")]
            self.writer.writerow([answer.file, position, *cells, ""])

    def fail(self, file: str, reason: str) -> None:
        self.writer.writerow([file, "", *[""] * 2 * min(TOP, len(self.classes)), reason])
        _warn(file, reason)


FORMS: dict[str, type[Writer]] = {"table": TableWriter, "jsonl": JsonWriter, "csv": CsvWriter}


def _warn(file: str, reason: str) -> None:
    print(printable(f"error: {file}: {reason}"), file=sys.stderr)

"""Measure cases side by side: in turn, in one run, with medians, ratios and their spread."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]


def machine() -> str:
    """Say what this is measured on, one line."""
    names = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "mlflow"))
    cores = f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"
    return f"{date.today()}, {cores}, Python {platform.python_version()}, {versions}"


def _read(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def seconds(call: Callable, repeats: int = 1) -> float:
    """Return the seconds of one call, the mean over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def in_turn(cases: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run every case once a round, A B C A B C; return each case's values, those of the warm-up rounds left out."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for each in range(warm_up + rounds):
        for name, case in cases.items():
            value = case()
            if each >= warm_up:
                values[name].append(value)
    return values


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the ratio of the medians, and the lowest and highest ratio of any round."""
    rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ours) / statistics.median(theirs), min(rounds), max(rounds)


def verdict(ours: list[float], theirs: list[float]) -> str:
    """Write a ratio with its spread, and whether anything follows from it."""
    middle, low, high = ratio(ours, theirs)
    unclear = " no conclusion: the rounds disagree" if low < 1 < high else ""
    return f"{middle:.2f} [{low:.2f}..{high:.2f}]{unclear}"


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table under a title, and the machine."""
    print(f"\n### {title}\n\n{machine()}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()

"""Faults at every point at which a run leaves something behind: what is there stays good, the same command goes on."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bench import Bench, Oracle, ordeal

AT_ONCE = 2


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="module")
def pictured(tmp_path_factory) -> Oracle:
    """With figures and model."""
    return Oracle(tmp_path_factory.mktemp("pictured"), changes=())


def occurrences(trace: Iterable[str]) -> list[str]:
    """The first, the second and the last passage of each point."""
    numbers: dict[str, list[int]] = {}
    for each in trace:
        point, _, number = each.partition("#")
        numbers.setdefault(point, []).append(int(number))
    return [f"{point}#{number}" for point, all_ in numbers.items() for number in sorted({*all_[:2], all_[-1]})]


def all_wrong(folder: Path, oracle: Oracle, faults: Iterable[str], **settings) -> dict[str, list[str]]:
    """Let each fault happen to a run of its own; return what is wrong after it and after the start that follows."""

    def one(fault: str) -> list[str]:
        return ordeal(Bench(folder / fault.replace(",", "+"), **settings), oracle, fault)

    faults = list(faults)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(faults, pool.map(one, faults), strict=True))
    print(f"{len(found)} faults")
    return {fault: wrong for fault, wrong in found.items() if wrong}


def test_one_kill_one_full_disk_and_one_signal_in_a_save(tmp_path, oracle):
    faults = ("KILL@write:half#3", "ENOSPC@sync-file:before#4", "TERM@name-last:before#2")
    assert all_wrong(tmp_path, oracle, faults) == {}


@pytest.mark.slow
def test_killed_at_every_point_a_run_goes_on_as_if_nothing_had_happened(tmp_path, oracle):
    points = occurrences(oracle.trace)
    assert len({point.partition("#")[0] for point in points}) >= 12
    assert all_wrong(tmp_path, oracle, [f"KILL@{point}" for point in points]) == {}


@pytest.mark.slow
def test_killed_between_its_figures_and_its_model_a_run_goes_on(tmp_path, pictured):
    points = [point for point in occurrences(pictured.trace) if point.startswith(("figure:before", "model"))]
    assert len(points) == 7
    assert all_wrong(tmp_path, pictured, [f"KILL@{point}" for point in points], changes=()) == {}

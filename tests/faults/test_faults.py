"""Faults at every point at which a run leaves something behind: what is there stays good, the same command goes on."""

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from disks import Disks
from fault_run import Bench, Oracle, empty_store, fault_run

AT_ONCE = 2
RANDOM_KILLS = 20


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
        return fault_run(Bench(folder / fault.replace(",", "+"), **settings), oracle, fault)

    faults = list(faults)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(faults, pool.map(one, faults), strict=True))
    print(f"{len(found)} faults")
    return {fault: wrong for fault, wrong in found.items() if wrong}


def test_one_kill_one_full_disk_and_one_signal_in_a_save(tmp_path, oracle):
    faults = ("KILL@write:half#3", "ENOSPC@sync-file:before#4", "TERM@name-last:before#2")
    assert all_wrong(tmp_path, oracle, faults) == {}


def kills(trace: Iterable[str]) -> list[str]:
    return [f"KILL@{point}" for point in occurrences(trace)]


def kills_in_pictures(trace: Iterable[str]) -> list[str]:
    return [fault for fault in kills(trace) if fault.startswith(("KILL@figure:before", "KILL@model"))]


@pytest.mark.slow
def test_killed_at_every_point_a_run_goes_on_as_if_nothing_had_happened(tmp_path, oracle):
    assert all_wrong(tmp_path, oracle, kills(oracle.trace)) == {}


@pytest.mark.slow
def test_killed_between_its_figures_and_its_model_a_run_goes_on(tmp_path, pictured):
    assert all_wrong(tmp_path, pictured, kills_in_pictures(pictured.trace), changes=()) == {}


@pytest.mark.slow
def test_the_page_on_reliability_gives_as_many(repository, oracle, pictured):
    tried = kills(oracle.trace) + kills_in_pictures(pictured.trace)
    points = {fault.partition("#")[0] for fault in tried}
    text = " ".join((repository / "docs" / "reliability.md").read_text().split())
    assert f"{len(tried) + RANDOM_KILLS} kills" in text
    assert f"{len(points)} points" in text


@pytest.fixture
def disks():
    disks = Disks()
    yield disks
    disks.close()


def outage(bench: Bench, oracle: Oracle, place: str, options: str, point: str = "") -> list[str]:
    """Give the disk of a place mount options, from a point on; say what is wrong then, and after they are gone."""

    def change(options: str) -> None:
        bench.disks.remount(bench.folder / place, options)

    def mend() -> None:
        change("rw,size=64m")

    if point:
        return fault_run(bench, oracle, f"STOP@{point}", lambda: change(options), mend)
    change(options)
    return fault_run(bench, oracle, mend=mend)


CHECKPOINT = 82_000  # bytes, about


@pytest.mark.slow
@pytest.mark.parametrize("size", [64 * 1024, *(round(CHECKPOINT * share) for share in (1, 1.5, 2, 2.5, 3, 3.5, 5))])
def test_a_disk_too_small_for_the_checkpoints_keeps_the_good_ones(tmp_path, oracle, disks, size):
    bench = Bench(tmp_path / "run", disks=disks, place="artifacts")
    assert outage(bench, oracle, "artifacts", f"size={size}") == []


@pytest.mark.slow
@pytest.mark.parametrize("more", [12, 24, 48, 72])
def test_a_disk_too_small_for_the_store_loses_no_point(tmp_path, oracle, disks, more):
    bench = Bench(tmp_path / "run", disks=disks, place="store")
    assert outage(bench, oracle, "store", f"size={len(empty_store()) + more * 1024}") == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [4096, 64 * 1024])
def test_a_temporary_folder_too_small_for_a_figure_or_the_model(tmp_path, pictured, disks, size):
    bench = Bench(tmp_path / "run", changes=(), disks=disks, place="tmp")
    assert outage(bench, pictured, "tmp", f"size={size}") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "point"),
    [("artifacts", ""), ("artifacts", "points:before#3"), ("artifacts", "arrays:before#4")],
)
def test_a_disk_that_turns_read_only_is_noticed_at_the_next_write(tmp_path, oracle, disks, place, point):
    bench = Bench(tmp_path / "run", disks=disks, place=place)
    assert outage(bench, oracle, place, "ro", point) == []


@pytest.mark.slow
def test_a_store_that_is_read_only_is_reported_at_the_start(tmp_path, disks):
    bench = Bench(tmp_path / "run", disks=disks, place="store")
    disks.remount(tmp_path / "run" / "store", "ro")
    assert bench.run() == 1
    assert bench.says.splitlines()[-1].startswith("error: tracking: [Errno 30] Read-only file system: '/")
    assert bench.runs() == {}


@pytest.mark.slow
def test_the_nth_input_output_error_is_told_once_and_costs_nothing_saved(tmp_path, oracle):
    calls = ("open:before", "write:half", "sync-file:before", "sync-folder:before", "name-", "delete:before")
    points = [point for point in oracle.trace if point.startswith(calls) and ":after" not in point]
    assert len(points) >= 40
    assert all_wrong(tmp_path / "eio", oracle, [f"EIO@{point}" for point in points]) == {}
    for file in (tmp_path / "eio").glob("EIO@sync-file*"):
        _, *after = (file / "first-trace").read_text().split(file.name.partition("@")[2])
        assert "sync-file" not in "".join(after)  # what a failed fsync left is not synced again: it is written anew
    denied = [f"EACCES@{point}" for point in points if point.endswith("#1")]
    assert all_wrong(tmp_path / "denied", oracle, denied) == {}


@pytest.mark.slow
def test_a_save_without_memory_leaves_the_old_ones(tmp_path, oracle):
    assert all_wrong(tmp_path, oracle, ["MemoryError@pickle:before#1", "MemoryError@pickle:before#6"]) == {}


SIGNALLED = ("running:before#1", "text:before#1", "batch:before#11", "validation:before#9", "pickle:before#3",
             "write:half#4", "name-last:before#2", "sync-folder:before#7", "points:before#4", "delete:before#1",
             "terminate:before#1", "terminate:after#1", "done:after#1")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("signals", ["TERM", "INT"])
def test_a_signal_at_any_moment_ends_a_run_as_killed(tmp_path, oracle, signals):
    assert all_wrong(tmp_path, oracle, [f"{signals}@{point}" for point in SIGNALLED]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("signals", ["TERM*", "INT*"])
def test_more_signals_do_not_disturb_the_first(tmp_path, oracle, signals):
    assert all_wrong(tmp_path, oracle, [f"{signals}@{point}" for point in SIGNALLED[::3]]) == {}


@pytest.mark.slow
def test_killed_at_random_again_and_again_a_run_loses_no_epoch_and_no_point(tmp_path, oracle):
    moments = random.Random(0)
    kills = starts = 0
    while kills < RANDOM_KILLS:
        bench = Bench(tmp_path / f"after {starts} starts")
        newest, code = 0, None
        while code is None and kills < RANDOM_KILLS:
            starts += 1
            process = bench.start()
            process.join(moments.uniform(0.2, 1.5))
            code = process.exitcode
            if code is None:
                process.kill()
                process.join()
                kills += 1
            assert oracle.faults(bench, at_least=newest) == []
            newest = max((oracle.epoch(each) for each in bench.saved().values()), default=0)
        assert bench.run() == 0
        assert oracle.remains(bench) == []
        assert starts < 100


@pytest.mark.slow
def test_killed_while_it_makes_its_store_the_next_start_makes_it(tmp_path, oracle):
    moments = random.Random(0)
    for number in range(4):
        bench = Bench(tmp_path / str(number))
        bench.database.unlink()
        for _ in range(3):
            process = bench.start()
            process.join(moments.uniform(0.3, 2.0))
            if process.exitcode is None:
                process.kill()
            process.join()
        assert bench.run() == 0, bench.says
        (status,) = bench.runs().values()
        assert status == ("FINISHED", True)
        assert not list(bench.folder.glob("store/.mlflow.db*"))


@pytest.mark.slow
def test_what_a_bad_disk_changes_is_seen_before_it_takes_the_place_of_a_good_one(tmp_path, oracle):
    assert all_wrong(tmp_path, oracle, [f"ROT@sync-file:after#{number}" for number in (1, 3, 4)]) == {}

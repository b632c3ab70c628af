"""Faults at every point at which a run stores something: stored files stay intact, and the same command continues."""

import random
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import rest_at_night
from disks import Disks
from fault_run import FaultRun, Oracle, check_fault, empty_store

AT_ONCE = 2
RANDOM_KILLS = 20


@pytest.fixture(scope="module")
def pictured(tmp_path_factory) -> Oracle:
    """The results of a run with figures and model."""
    return Oracle(tmp_path_factory.mktemp("pictured"), changes=())


def occurrences(trace: Iterable[str]) -> list[str]:
    """Return the first, second and last occurrence of each point."""
    numbers: dict[str, list[int]] = {}
    for each in trace:
        point, _, number = each.partition("#")
        numbers.setdefault(point, []).append(int(number))
    return [f"{point}#{number}" for point, all_ in numbers.items() for number in sorted({*all_[:2], all_[-1]})]


def all_wrong(folder: Path, oracle: Oracle, faults: Iterable[str], **settings) -> dict[str, list[str]]:
    """Let each fault happen in its own run; return what is wrong after it and after the next start, if anything."""

    def one(fault: str) -> list[str]:
        return check_fault(FaultRun(folder / fault.replace(",", "+"), **settings), oracle, fault)

    faults = list(faults)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(faults, pool.map(one, faults), strict=True))
    print(f"{len(found)} faults")
    return {fault: wrong for fault, wrong in found.items() if wrong}


@pytest.mark.slow
def test_a_kill_a_full_disk_and_a_signal_during_a_save(tmp_path, oracle):
    faults = ("KILL@write:half#3", "ENOSPC@sync-file:before#4", "TERM@name-last:before#2")
    assert all_wrong(tmp_path, oracle, faults) == {}


def kills(trace: Iterable[str]) -> list[str]:
    return [f"KILL@{point}" for point in occurrences(trace)]


def kills_in_pictures(trace: Iterable[str]) -> list[str]:
    return [fault for fault in kills(trace) if fault.startswith(("KILL@figure:before", "KILL@model"))]


@pytest.mark.slow
@pytest.mark.parametrize("quarter", rest_at_night(range(4)))
def test_a_run_killed_at_any_point_gives_the_same_results(tmp_path, oracle, quarter):
    assert all_wrong(tmp_path, oracle, kills(oracle.trace)[quarter::4]) == {}


@pytest.mark.slow
def test_a_run_killed_between_its_figures_and_its_model_gives_the_same_results(tmp_path, pictured):
    assert all_wrong(tmp_path, pictured, kills_in_pictures(pictured.trace), changes=()) == {}


@pytest.mark.slow
def test_the_page_on_reliability_has_these_numbers(repository, oracle, pictured):
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


def outage(run: FaultRun, oracle: Oracle, place: str, options: str, point: str = "") -> list[str]:
    """Remount a disk with `options`, at the start or at `point`; return what is wrong then, and after the repair."""

    def change(options: str) -> None:
        run.disks.remount(run.folder / place, options)

    def repair() -> None:
        change("rw,size=64m,nr_inodes=10k")

    if point:
        return check_fault(run, oracle, f"STOP@{point}", lambda: change(options), repair)
    change(options)
    return check_fault(run, oracle, repair=repair)


CHECKPOINT = 82_000  # its approximate size in bytes


@pytest.mark.slow
@pytest.mark.parametrize("size", [64 * 1024, *(round(CHECKPOINT * share) for share in (1, 1.5, 2, 2.5, 3, 3.5, 5))])
def test_a_disk_too_small_for_new_checkpoints_keeps_the_old_ones(tmp_path, oracle, disks, size):
    run = FaultRun(tmp_path / "run", disks=disks, place="artifacts")
    assert outage(run, oracle, "artifacts", f"size={size}") == []


@pytest.mark.slow
@pytest.mark.parametrize("more", [12, 24, 48, 72])
def test_a_disk_too_small_for_the_store_loses_no_point(tmp_path, oracle, disks, more):
    run = FaultRun(tmp_path / "run", disks=disks, place="store")
    assert outage(run, oracle, "store", f"size={len(empty_store()) + more * 1024}") == []


@pytest.mark.slow
@pytest.mark.parametrize(("place", "files"), [("artifacts", 2), ("artifacts", 5), ("artifacts", 9), ("store", 4)])
def test_a_disk_without_room_for_more_files_loses_nothing(tmp_path, oracle, disks, capsys, place, files):
    run = FaultRun(tmp_path / "run", disks=disks, place=place)
    assert outage(run, oracle, place, f"nr_inodes={files}") == []
    assert re.search(r"No space left on device \(free: [\d,]+ bytes, but no more files, in /", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4096, 64 * 1024])
def test_a_temporary_folder_too_small_for_a_figure_or_the_model(tmp_path, pictured, disks, size):
    run = FaultRun(tmp_path / "run", changes=(), disks=disks, place="tmp")
    assert outage(run, pictured, "tmp", f"size={size}") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "point"),
    [("artifacts", ""), ("artifacts", "points:before#3"), ("artifacts", "arrays:before#4")],
)
def test_a_disk_that_becomes_read_only_is_reported_at_the_next_write(tmp_path, oracle, disks, place, point):
    run = FaultRun(tmp_path / "run", disks=disks, place=place)
    assert outage(run, oracle, place, "ro", point) == []


@pytest.mark.slow
def test_a_store_that_is_read_only_is_reported_at_the_start(tmp_path, disks):
    run = FaultRun(tmp_path / "run", disks=disks, place="store")
    disks.remount(tmp_path / "run" / "store", "ro")
    assert run.execute() == 1
    assert run.output.splitlines()[-1].startswith("error: tracking: [Errno 30] Read-only file system: '/")
    assert run.runs() == {}


@pytest.mark.slow
@pytest.mark.parametrize("quarter", rest_at_night(range(4)))
def test_any_input_output_error_is_reported_once_and_loses_nothing_saved(tmp_path, oracle, quarter):
    calls = ("open:before", "write:half", "sync-file:before", "sync-folder:before", "name-", "delete:before")
    points = [point for point in oracle.trace if point.startswith(calls) and ":after" not in point]
    assert len(points) >= 40
    assert all_wrong(tmp_path / "eio", oracle, [f"EIO@{point}" for point in points[quarter::4]]) == {}
    for file in (tmp_path / "eio").glob("EIO@sync-file*"):
        _, *after = (file / "first-trace").read_text().split(file.name.partition("@")[2])
        assert "sync-file" not in "".join(after)  # after a failed fsync the file is not synced again but rewritten
    denied = [f"EACCES@{point}" for point in points if point.endswith("#1")][quarter::4]
    assert all_wrong(tmp_path / "denied", oracle, denied) == {}


@pytest.mark.slow
def test_a_save_without_memory_keeps_the_old_checkpoints(tmp_path, oracle):
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
def test_a_run_killed_repeatedly_at_random_loses_no_epoch_and_no_point(tmp_path, oracle):
    moments = random.Random(0)
    kills = starts = 0
    while kills < RANDOM_KILLS:
        run = FaultRun(tmp_path / f"after {starts} starts")
        newest, code = 0, None
        while code is None and kills < RANDOM_KILLS:
            starts += 1
            process = run.start()
            process.join(moments.uniform(0.2, 1.5))
            code = process.exitcode
            if code is None:
                process.kill()
                process.join()
                kills += 1
            assert oracle.check_interrupted(run, at_least=newest) == []
            newest = max((oracle.epoch(each) for each in run.saved().values()), default=0)
        assert run.execute() == 0
        assert oracle.check_finished(run) == []
        assert starts < 100


@pytest.mark.slow
def test_a_store_whose_creation_was_killed_is_created_by_the_next_start(tmp_path, oracle):
    moments = random.Random(0)
    for number in range(4):
        run = FaultRun(tmp_path / str(number))
        run.database.unlink()
        for _ in range(3):
            process = run.start()
            process.join(moments.uniform(0.3, 2.0))
            if process.exitcode is None:
                process.kill()
            process.join()
        assert run.execute() == 0, run.output
        (status,) = run.runs().values()
        assert status == ("FINISHED", True)
        assert not list(run.folder.glob("store/.mlflow.db*"))


@pytest.mark.slow
def test_a_bit_flipped_by_the_disk_is_detected_before_the_old_checkpoint_is_replaced(tmp_path, oracle):
    assert all_wrong(tmp_path, oracle, [f"FLIP@sync-file:after#{number}" for number in (1, 3, 4)]) == {}

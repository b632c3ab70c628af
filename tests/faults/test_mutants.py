"""Each mutant, which breaks one guarantee, is caught by a check of faults."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_run import LEAN, FaultRun, Oracle, check_fault
from test_crashes import lost, record
from test_damage import flip

pytestmark = pytest.mark.slow

Check = Callable[[Path, Oracle, str], list[str]]


def fault(text: str) -> Check:
    return lambda folder, oracle, mutant: check_fault(FaultRun(folder, changes=(*LEAN, mutant)), oracle, text)


def power_cut(folder: Path, oracle: Oracle, mutant: str) -> list[str]:
    return lost(record(folder / "run", mutant), oracle, folder)[1]


def damage(folder: Path, oracle: Oracle, mutant: str) -> list[str]:
    """Kill a run in its last epoch, flip a bit in two of its checkpoints, check that it continues from the third."""
    run = FaultRun(folder, changes=(*LEAN, mutant))
    run.execute("KILL@batch:before#25", "evaluate_on=last")
    for name in ("last", "best"):
        flip(run.checkpoints / f"{name}.ckpt")
    code = run.execute("", "evaluate_on=last")
    return [] if code == 0 and "after epoch 2 of 4" in run.output else [run.output]


CHECKS: dict[str, Check] = {
    "no_fsync": power_cut,
    "no_folder_fsync": power_cut,
    "written_in_place": fault("KILL@write:half#3"),
    "error_swallowed": fault("EIO@sync-file:before#3"),
    "not_read_back": fault("FLIP@sync-file:after#3"),
    "damage_not_seen": damage,
    "no_rotation": damage,
    "not_resumed": fault("KILL@name-last:after#2"),
    "points_after_the_checkpoint": fault("KILL@name-last:after#2"),
    "points_twice": fault("KILL@points:after#3"),
    "finished_on_crash": fault("EIO@name-last:before#2"),
    "finished_is_done": fault("KILL@terminate:after#1"),
    "second_signal_interrupts": fault("TERM@write:half#4;TERM@terminate:before#1"),
}


@pytest.mark.parametrize("mutant", CHECKS)
def test_every_mutant_is_caught(tmp_path, oracle, mutant):
    assert CHECKS[mutant](tmp_path / "mutant", oracle, f"mutants:{mutant}") != []


@pytest.mark.parametrize("mutant", ["no_rotation", "second_signal_interrupts"])
def test_without_the_mutant_the_check_passes(tmp_path, oracle, mutant):
    assert CHECKS[mutant](tmp_path / "run", oracle, LEAN[0]) == []  # test_faults and test_crashes have the others


def test_the_page_on_reliability_has_this_number_of_mutants(repository):
    text = " ".join((repository / "docs" / "reliability.md").read_text().split())
    assert f"{len(CHECKS)} of {len(CHECKS)} mutants" in text

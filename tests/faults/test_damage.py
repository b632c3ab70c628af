"""Checkpoints that were damaged on the disk are not used, and clocks that jump change no result."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from content import digest
from disks import put_garbage
from fault_run import EPOCHS, FaultRun, Oracle

from digitlab.tracking.integrity import copy_of
from digitlab.tracking.maintenance import restore
from digitlab.tracking.store import Store
from digitlab.training.checkpoint import DamagedError, DurableCheckpointIO, load_whole

SETTINGS = ("evaluate_on=last",)


@pytest.fixture(scope="module")
def last_oracle(tmp_path_factory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("last"), overrides=SETTINGS)


@pytest.fixture
def broken(tmp_path):
    """A run that was killed in its last epoch: last and best are of epoch 3, previous is of epoch 2."""
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@batch:before#25", *SETTINGS)
    assert sorted(run.saved()) == ["best", "last", "previous"]
    return run


def cut(length: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes()[: length(file.stat().st_size)])


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "empty": cut(lambda size: 0),
    "one byte": cut(lambda size: 1),
    "half": cut(lambda size: size // 2),
    "all but one byte": cut(lambda size: size - 1),
    "a bit": flip,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a folder": make_folder,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGES, "another run's"])
@pytest.mark.parametrize("names", [("last", "best"), ("last", "best", "previous")], ids=len)
def test_damage_is_reported_and_the_previous_checkpoint_used(broken, last_oracle, names, damage):
    for name in names:
        file = broken.checkpoints / f"{name}.ckpt"
        if damage == "another run's":
            shutil.copy(last_oracle.run.checkpoints / "last.ckpt", file)
        else:
            DAMAGES[damage](file)
    assert broken.execute("", *SETTINGS) == 0
    for name in names:
        assert f"warning: {broken.checkpoints / name}.ckpt " in broken.output
    left = ["previous"][: 3 - len(names)]
    continued = "after epoch 2 of 4" if left else "from the start: there is no checkpoint to continue from"
    assert continued in broken.output
    assert broken.saves == (EPOCHS - 2 if left else EPOCHS)
    assert last_oracle.check_finished(broken) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "start"),
    [
        (["best"], "after epoch 3 of 4"),  # last.ckpt has the weights of the best epoch too
        (["best", "last"], "after epoch 2 of 4"),  # so has previous.ckpt, of the best epoch until then
        (["best", "last", "previous"], "from the start: there is no checkpoint to continue from"),
    ],
    ids=len,
)
def test_a_run_continues_from_what_has_the_weights_of_the_best_epoch(tmp_path, oracle, names, start):
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@batch:before#25")
    for name in names:
        (run.checkpoints / f"{name}.ckpt").write_bytes(b"torn")
    assert run.execute() == 0
    assert start in run.output
    assert oracle.check_finished(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["KILL@open:before#8", "KILL@write:half#8", "KILL@epoch:after#4"])
def test_a_run_that_tests_its_last_weights_continues_without_last_ckpt(tmp_path, last_oracle, fault):
    run = FaultRun(tmp_path / "run")
    run.execute(fault, *SETTINGS)
    last = run.checkpoints / "last.ckpt"
    if last.exists():
        flip(last)
    (run.checkpoints / "best.ckpt").unlink()
    assert "previous" in run.saved()
    assert run.execute("", *SETTINGS) == 0
    assert "after epoch 3 of 4" in run.output
    assert last_oracle.check_finished(run) == []


@pytest.mark.slow
def test_best_weights_of_the_last_epoch_serve_where_last_ckpt_was_not_saved(tmp_path, last_oracle):
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@open:before#8", *SETTINGS)  # best.ckpt is of epoch 4 already
    assert last_oracle.epoch(run.saved()["best"]) == EPOCHS
    assert run.execute("", *SETTINGS) == 0
    assert "after epoch 4 of 4" in run.output
    assert last_oracle.check_finished(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("names", [["best"], ["best", "last"], ["best", "last", "previous"]], ids=len)
def test_weights_torn_before_the_test_end_in_one_line_and_are_trained_again(tmp_path, oracle, names):
    def tear() -> None:
        for name in names:
            (run.checkpoints / f"{name}.ckpt").write_bytes(b"torn")

    run = FaultRun(tmp_path / "run")
    assert run.execute("STOP@epoch:after#4", meanwhile=tear) == 1
    file = run.checkpoints / "best.ckpt"
    assert run.output.splitlines()[-1].startswith(f"error: {file}: does not read back; the same command trains the ")
    assert "Traceback" not in run.output
    assert run.execute() == 0
    assert f"after epoch {5 - len(names)} of 4" in run.output or "from the start" in run.output
    assert oracle.check_finished(run) == []


@pytest.mark.slow
def test_a_folder_deleted_in_mid_run_is_whole_at_the_end(tmp_path, oracle):
    def files(run: FaultRun) -> set[str]:
        folder = run.checkpoints.parent
        return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}

    run = FaultRun(tmp_path / "run")
    assert run.execute("STOP@epoch:after#2", meanwhile=lambda: shutil.rmtree(run.checkpoints.parent)) == 0
    assert oracle.check_finished(run) == []
    assert files(run) == {each for each in files(oracle.run) if not each.startswith("epochs/")}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["a file", "another run's folder"])
def test_what_is_in_the_place_of_a_runs_folder_is_named_and_not_written_to(tmp_path, oracle, target):
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@batch:before#12")
    folder, aside = run.checkpoints.parent, tmp_path / "aside"
    shutil.move(folder, aside)
    if target == "a file":
        folder.write_text("")
    else:
        other = run.folder / "artifacts" / ("0" * 32) / "artifacts"
        shutil.copytree(aside, other)
        folder.symlink_to(other)
    assert run.execute() == 1
    assert run.output.splitlines()[-1].startswith(f"error: {folder}: ")
    folder.unlink()
    shutil.move(aside, folder)
    shutil.rmtree(run.folder / "artifacts" / ("0" * 32), ignore_errors=True)
    assert run.execute() == 0
    assert "after epoch 1 of 4" in run.output
    assert oracle.check_finished(run) == []


@pytest.mark.slow
def test_a_store_restored_from_an_older_copy_gets_the_points_that_it_lacks(tmp_path, oracle):
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@batch:before#12")  # in epoch 2
    copy_of(run.database).unlink()
    run.execute("KILL@batch:before#17")  # in epoch 4; at its start the store was copied
    put_garbage(run.database)
    assert run.execute() == 1
    assert re.search(r"^error: tracking: .* is damaged .*; digitlab store restore takes the copy of", run.output, re.M)
    list(restore(Store(run.uri, "digitlab")))
    assert run.execute() == 0
    assert "the store has the points of 1 epochs, a checkpoint is of epoch 3" in run.output
    assert oracle.check_finished(run) == []


@pytest.mark.slow
def test_a_store_damaged_in_mid_run_is_said_before_the_run_is_done(tmp_path):
    run = FaultRun(tmp_path / "run")
    assert run.execute("STOP@batch:before#20", meanwhile=lambda: put_garbage(run.database)) == 1
    last = run.output.splitlines()[-1]
    assert last.startswith("error: ")
    assert "digitlab store restore takes the copy of" in last
    assert "Traceback" not in run.output


def test_a_flipped_bit_anywhere_is_detected_or_changes_nothing(tmp_path):
    file, places = tmp_path / "last.ckpt", random.Random(0)
    DurableCheckpointIO().save_checkpoint({"weights": torch.arange(20_000.0), "epoch": 3}, file)
    whole, content = digest(load_whole(file)), file.read_bytes()
    refused = 0
    for _ in range(100):
        damaged = bytearray(content)
        damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
        file.write_bytes(damaged)
        try:
            assert digest(load_whole(file)) == whole
        except DamagedError:
            refused += 1
    assert refused > 90  # the others are in bytes that are never read


@pytest.mark.slow
@pytest.mark.parametrize("change", ["hooks:clock_an_hour_back", "hooks:clock_a_day_ahead", "hooks:clock_jumps_back"])
def test_a_wrong_clock_changes_no_result(tmp_path, oracle, change):
    run = FaultRun(tmp_path / "run")
    assert run.execute("KILL@name-last:before#2") != 0
    run.changes.append(change)
    assert run.execute("EIO@name-last:before#2") == 1
    assert run.saves == 1
    assert run.execute() == 0
    assert oracle.check_finished(run) == []
    assert min(value for (value,) in run.ask("select value from metrics where key = 'time/epoch_s'")) > 0
    ((seconds,),) = run.ask("select value from tags where key = 'seconds'")
    assert 0 < float(seconds) < 600

"""Checkpoints that were damaged on the disk are not used, and clocks that jump change no result."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from content import digest
from fault_run import EPOCHS, FaultRun, Oracle

from digitlab.training.checkpoint import DamagedError, DurableCheckpointIO, load_whole

SETTINGS = ("evaluate_on=last",)  # otherwise a run whose best.ckpt is damaged starts from the beginning


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
def test_a_run_whose_best_checkpoint_is_damaged_starts_from_the_beginning(tmp_path, oracle):
    run = FaultRun(tmp_path / "run")
    run.execute("KILL@batch:before#25")
    (run.checkpoints / "best.ckpt").write_bytes(b"torn")
    assert run.execute() == 0
    assert "from the start: there is no checkpoint to continue from" in run.output
    assert oracle.check_finished(run) == []


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

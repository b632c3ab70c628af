"""What happens to the file of the store under a run: each is said in one line, and mended by what the line names."""

from pathlib import Path

import pytest
from disks import put_garbage
from fault_run import FaultRun, Oracle, empty_store

from digitlab.tracking.maintenance import restore
from digitlab.tracking.store import Store

pytestmark = pytest.mark.slow


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero_header(file: Path) -> None:
    file.write_bytes(bytes(100) + file.read_bytes()[100:])


def replace(file: Path) -> None:
    file.unlink()
    file.write_bytes(empty_store())


DAMAGES = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "truncated": truncate,
    "without its header": zero_header,
    "a page of garbage": put_garbage,
    "replaced": replace,
}


EPOCHS = (1, 2, 3)


@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_store_lost_after_any_epoch_is_said_and_restored(tmp_path, oracle: Oracle, damage: str, epoch: int):
    run = FaultRun(tmp_path / "run")
    code = run.execute(f"STOP@epoch:after#{epoch}", meanwhile=lambda: DAMAGES[damage](run.database))
    assert code == 1
    assert "Traceback" not in run.output
    assert run.output.splitlines()[-1].startswith("error: ")
    if damage != "replaced":
        assert run.execute() == 1
        assert "Traceback" not in run.output
        assert "digitlab store restore takes the copy of" in run.output.splitlines()[-1]
        list(restore(Store(run.uri, "digitlab")))
    assert run.execute() == 0, run.output
    assert run.points() == oracle.points
    assert list(run.runs().values()) == [("FINISHED", True)]
    assert run.ask("pragma integrity_check") == [("ok",)]


def test_the_page_on_reliability_has_this_number_of_kinds(repository):
    text = (repository / "docs" / "reliability.md").read_text()
    assert f"{len(DAMAGES)} kinds after each of {len(EPOCHS)} epochs" in text

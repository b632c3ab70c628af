"""The file of a store: damage, the daily copy, other versions of MLflow, and dry runs that write nothing."""

import os
import shutil
import sqlite3
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from conftest import Harness
from disks import put_garbage
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from digitlab.platform.process import this_process
from digitlab.tracking import integrity, locks
from digitlab.tracking.begin import begin
from digitlab.tracking.store import Store

CELLS = ("-m", "model=mlp", "data=mnist5k", "seed=0,1", "sweep.dry_run=true")
OF_MLFLOW_2 = "0584bdc529eb"


@pytest.fixture(scope="module")
def of_mlflow_2(tmp_path_factory) -> Path:
    """A store with the schema of MLflow 2, made by MLflow's own migrations up to it."""
    file = tmp_path_factory.mktemp("mlflow2") / "mlflow.db"
    engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{file}")
    InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OF_MLFLOW_2)
    engine.dispose()
    return file


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with a run of 2,000 points."""
    store = Store(f"sqlite:///{tmp_path / 'harness' / 'mlflow.db'}", "digitlab")
    store.open()
    with begin(store, "run", {"fingerprint": "f"}) as run:
        for step in range(2000):
            run.logger.log_metrics({"loss": 1.0}, step)
    return store


@pytest.fixture
def copied(store) -> Store:
    """The same with its daily copy."""
    store.open()
    assert integrity.copy_of(store.file).exists()
    return store


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(each): (each.stat().st_mtime_ns, each.read_bytes()) for each in folder.rglob("*") if each.is_file()}


def count(file: Path, rows: str) -> int:
    with closing(sqlite3.connect(file)) as database:  # not by MLflow, which keeps the file of before open
        return database.execute(f"select count(*) from {rows}").fetchone()[0]


def revision(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("select version_num from alembic_version").fetchone()[0]


def test_damage_is_noticed_after_an_unclean_end_and_the_copy_restored(copied, capsys):
    harness = Harness(copied.file.parent)
    put_garbage(copied.file)
    copied.open()  # nobody was killed
    mark = copied.file.parent / "locks" / "f.running"
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(this_process().rpartition(":")[0] + ":1")
    end = harness.main("model=mlp", "data=mnist5k", "trainer.max_epochs=1")
    assert end.startswith(f"error: tracking: {copied.file} is damaged (")
    assert "digitlab store restore takes the copy of 20" in end
    assert harness.main("store", "check", entry_point="digitlab").startswith(
        f"error: store: {copied.file} is damaged ("
    )
    before = tree(harness.folder)
    for task in ("gc", "relocate"):
        assert "is damaged (" in harness.main("store", task, entry_point="digitlab")
    assert harness.main("store", "restore", "--dry-run", entry_point="digitlab") is None
    assert tree(harness.folder) == before

    damaged = copied.file.read_bytes()
    capsys.readouterr()
    assert harness.main("store", "restore", entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert f"the damaged file is kept as {copied.file}.damaged-1" in said
    assert Path(f"{copied.file}.damaged-1").read_bytes() == damaged
    assert count(copied.file, "metrics where key = 'loss'") == 2000
    assert not mark.exists()
    assert harness.main("store", "check", entry_point="digitlab") is None
    assert capsys.readouterr().out.count(": sound, ") == 2
    end = harness.main("store", "restore", entry_point="digitlab")
    assert end.startswith(f"error: store: {copied.file} is sound; ")


def test_a_run_on_a_damaged_store_is_not_done(copied):
    put_garbage(copied.file)
    with pytest.raises(OSError, match=r"is damaged .*; digitlab store restore takes the copy of 20"):
        copied.check()


def test_a_mark_of_a_living_process_is_no_unclean_end(copied):
    with locks.owner(copied, "g"):
        put_garbage(copied.file)
        copied.open()
        assert [each.name for each in (copied.file.parent / "locks").glob("*.running")] == ["g.running"]
    assert not list((copied.file.parent / "locks").glob("*.running"))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_store_that_is_gone_or_empty_is_not_begun_anew_beside_its_copy(copied, is_there):
    copied.file.write_bytes(b"") if is_there else copied.file.unlink()
    left = [copied.file.with_name(f"{copied.file.name}-{ending}") for ending in ("journal", "wal", "shm")]
    for side in left:
        side.write_bytes(b"of the store that is gone")
    with pytest.raises(OSError, match=rf"is {'empty' if is_there else 'gone'}; digitlab store restore takes the copy"):
        copied.open()
    harness = Harness(copied.file.parent)
    assert harness.main("store", "restore", entry_point="digitlab") is None
    assert not [side for side in left if side.exists() and side.stat().st_size]
    assert count(copied.file, "runs") == 1


def test_a_copy_is_made_once_a_day_of_a_sound_store_only(copied):
    copy = integrity.copy_of(copied.file)
    first = copy.stat().st_mtime_ns
    copied.open()
    assert copy.stat().st_mtime_ns == first
    yesterday = time.time() - integrity.DAY - 1
    os.utime(copy, (yesterday, yesterday))
    copied.open()
    assert copy.stat().st_mtime > yesterday + 1
    os.utime(copy, (yesterday, yesterday))
    put_garbage(copied.file)
    before = copy.read_bytes()
    with pytest.raises(OSError, match="is damaged"):
        copied.open()
    assert copy.read_bytes() == before


def test_restoring_needs_a_copy_and_no_run_in_progress(copied):
    harness = Harness(copied.file.parent)
    copied.file.unlink()
    with locks.owner(copied, "g"):
        end = harness.main("store", "restore", entry_point="digitlab")
    assert end == "error: store: g is running; wait for it to end, or stop it"
    integrity.copy_of(copied.file).unlink()
    end = harness.main("store", "restore", entry_point="digitlab")
    assert end == f"error: store: {copied.file}.daily does not exist: there is no copy of the store"


@pytest.mark.slow
def test_a_store_of_mlflow_2_is_upgraded_by_a_run_only_and_kept_as_it_was(of_mlflow_2, harness, capsys):
    harness.folder.mkdir()
    file = Path(shutil.copy(of_mlflow_2, harness.folder))
    before = tree(harness.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        harness.main(*CELLS)
    said = " ".join(capsys.readouterr().out.split())
    assert "is of an older MLflow: a run would upgrade it, after a copy" in said
    assert "2 cells: 0 done" in said
    assert tree(harness.folder) == before
    for task in ("gc", "relocate"):
        end = harness.main("store", task, "--dry-run", entry_point="digitlab")
        assert end == f"error: store: {file} is of an older MLflow; a run upgrades it, after a copy"
        assert tree(harness.folder) == before
    with pytest.warns(UserWarning, match=r"is of an older MLflow.*as it was it stays in mlflow\.db\.older-1"):
        Store(harness.uri, "digitlab").open()
    assert revision(file) != OF_MLFLOW_2
    assert revision(Path(f"{file}.older-1")) == OF_MLFLOW_2
    assert Store(harness.uri, "digitlab").peek()


def test_a_dry_run_on_another_experiments_store_writes_nothing(store, capsys):
    harness = Harness(store.file.parent)
    with closing(sqlite3.connect(store.file)) as database, database:
        database.execute("update experiments set name = 'theirs' where name = 'digitlab'")
    before = tree(harness.folder)
    harness.main(*CELLS)
    assert "2 cells: 0 done" in capsys.readouterr().out
    assert tree(harness.folder) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update alembic_version set version_num = 'ffffffffffff'", "was made by a newer MLflow than .*ffffffffffff"),
        ("drop table alembic_version", "is no store of MLflow; it holds: "),
    ],
)
def test_the_store_of_a_newer_mlflow_or_another_program_is_refused_in_one_line(store, change, said):
    with closing(sqlite3.connect(store.file)) as database, database:
        database.execute(change)
    before = store.file.read_bytes()
    with pytest.raises(OSError, match=said):
        store.open()
    assert store.file.read_bytes() == before

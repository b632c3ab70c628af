"""Maintenance of a store through its entry point: make relocate, make gc."""

import shutil
import sqlite3
import subprocess

import mlflow
import numpy as np
import pytest
from conftest import Harness
from mlflow.entities import LoggedModelStatus
from mlflow.tracking._tracking_service import utils

from digitlab.tracking import locks
from digitlab.tracking.store import Store
from digitlab.training.checkpoint import EpochCheckpoint

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=2", "trainer=cpu",
        "model=mlp", "model.hidden=[{units: 8}]")  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A harness with a done run, and one that was interrupted after its first epoch."""
    harness = Harness(tmp_path_factory.mktemp("template") / "a harness")  # a space becomes %20 in MLflow's addresses
    harness.train(*TINY)
    save = EpochCheckpoint.on_train_epoch_end

    def stop(self, trainer, module):
        save(self, trainer, module)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            harness.train(*TINY, "seed=1")
    return harness


@pytest.fixture
def moved(template, tmp_path):
    """The template's store, moved to a new folder; the old one does not exist."""
    utils._artifact_repos_cache.clear()  # MLflow's, of this process, has the old paths
    shutil.copytree(template.folder, tmp_path / "moved to here")
    harness = Harness(tmp_path / "moved to here")
    with sqlite3.connect(harness.folder / "mlflow.db") as database:
        there, gone = template.folder.as_uri(), (tmp_path / "gone").as_uri()
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"),
                              ("logged_models", "artifact_location")):  # fmt: skip
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (there, gone))
    return harness


def dump(harness: Harness) -> str:
    with sqlite3.connect(harness.folder / "mlflow.db") as database:
        return "\n".join(database.iterdump())


@pytest.mark.slow
def test_a_moved_store_is_detected_and_works_after_relocate(moved, capsys):
    end = moved.main(*TINY, "seed=1")
    assert end.startswith(f"error: tracking: uri={moved.uri}: was moved here from file://")
    assert end.endswith("; make relocate repairs its paths")

    before = dump(moved)
    capsys.readouterr()
    assert moved.main("store", "relocate", "--dry-run", entry_point="digitlab") is None
    assert dump(moved) == before
    said = capsys.readouterr().out
    assert "     1 experiments.artifact_location" in said
    assert "     2 runs.artifact_uri" in said
    assert "     1 logged_models.artifact_location" in said
    assert moved.main("store", "relocate", entry_point="digitlab") is None
    assert f"without --dry-run this would be done:\n{capsys.readouterr().out}" == said
    gone = (moved.folder.parent / "gone").as_uri()
    assert gone in before
    assert gone not in dump(moved)
    assert moved.main("store", "relocate", entry_point="digitlab") is None
    assert "nothing to do" in capsys.readouterr().out

    moved.train(*TINY, "seed=1")
    assert "after epoch 1 of 2" in capsys.readouterr().out
    assert len(moved.runs()) == 2
    assert {run.data.tags["done"] for run in moved.runs()} == {"true"}
    mlflow.set_tracking_uri(moved.uri)
    for run in moved.runs():
        model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/mlp-adam-s{run.data.tags['seed']}")
        assert model.predict(np.zeros((1, 28, 28), np.uint8)).shape == (1, 10)
        assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml")
        assert [file.path for file in moved.client.list_artifacts(run.info.run_id, "checkpoints")]
    assert not (moved.folder.parent / "gone").exists()


@pytest.mark.parametrize("task", [pytest.param("relocate", marks=pytest.mark.slow), "gc"])
def test_nothing_is_changed_while_a_run_is_in_progress(moved, task):
    moved.main("store", "relocate", entry_point="digitlab")
    before = dump(moved)
    with locks.owner(Store(moved.uri, "digitlab"), "f"):
        end = moved.main("store", task, entry_point="digitlab")
    assert end == "error: store: f is running; wait for it to end, or stop it"
    assert dump(moved) == before


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("relocate", "nothing to do here"),
        ("gc", "mlflow gc --backend-store-uri"),
        ("check", "report"),
        ("restore", "backup"),
    ],
)
def test_what_to_do_about_a_servers_store_is_said(harness, task, words):
    harness.uri = "http://127.0.0.1:9"
    end = harness.main("store", task, entry_point="digitlab")
    assert end.startswith(f"error: store: {task}: the store is a server's: ")
    assert words in end


@pytest.mark.parametrize("task", ["relocate", "gc"])
def test_a_missing_store_is_not_created(harness, task):
    end = harness.main("store", task, entry_point="digitlab")
    assert end.startswith(f"error: store: {harness.folder / 'mlflow.db'} does not exist")
    assert not harness.folder.exists()


@pytest.mark.slow
def test_gc_removes_garbage_only(moved, capsys):
    moved.main("store", "relocate", entry_point="digitlab")
    kept, artifacts = moved.runs()[0], moved.folder / "artifacts"
    moved.train(*TINY, "rerun=true")
    deleted = moved.runs()[0]
    moved.client.delete_run(deleted.info.run_id)
    pending = moved.client.create_logged_model(kept.info.experiment_id, name="half", source_run_id=kept.info.run_id)
    alone = moved.client.create_logged_model(kept.info.experiment_id, name="without a run")
    moved.client.finalize_logged_model(alone.model_id, LoggedModelStatus.READY)
    orphan = artifacts / ("0" * 32) / "artifacts"
    orphan.mkdir(parents=True)
    (orphan / "weights").write_bytes(b"0" * 1_000_000)
    (artifacts / "models" / "m-nobodys").mkdir()
    (artifacts / "a note of the user's").write_text("stays")
    capsys.readouterr()

    before = sorted(moved.folder.rglob("*"))
    assert moved.main("store", "gc", "--dry-run", entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert sorted(moved.folder.rglob("*")) == before
    assert f"deleted run {deleted.info.run_name} ({deleted.info.run_id})" in said
    assert f"model half ({pending.model_id}), incomplete" in said
    assert alone.model_id not in said
    assert str(orphan.parent) in said

    assert moved.main("store", "gc", entry_point="digitlab") is None
    assert said.partition("\n")[2] in capsys.readouterr().out
    assert {run.info.run_name for run in moved.runs()} == {"mlp-adam-s0-" + kept.info.run_name[12:],
                                                           "mlp-adam-s1-" + kept.info.run_name[12:]}  # fmt: skip
    with sqlite3.connect(moved.folder / "mlflow.db") as database:
        assert not database.execute("select * from runs where run_uuid = ?", (deleted.info.run_id,)).fetchall()
        models = {name for (name,) in database.execute("select name from logged_models")}
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    assert models == {"mlp-adam-s0", "without a run"}
    assert {each.name for each in artifacts.iterdir()} == {run.info.run_id for run in moved.runs()} | {
        "models", "a note of the user's"}  # fmt: skip
    assert not list((moved.folder / "locks").iterdir())
    assert moved.main("store", "gc", entry_point="digitlab") is None
    assert capsys.readouterr().out == "nothing to remove\n"
    moved.train(*TINY, "seed=1")  # the interrupted run can still be resumed
    assert "after epoch 1 of 2" in capsys.readouterr().out
    mlflow.set_tracking_uri(moved.uri)
    done = moved.runs()[-1]
    assert mlflow.pyfunc.load_model(f"runs:/{done.info.run_id}/mlp-adam-s0")


def test_make_has_a_target_for_each(repository):
    for task in ("relocate", "gc", "restore"):
        dry = subprocess.run(["make", "-n", task, "ARGS=--dry-run"], cwd=repository, capture_output=True, text=True)
        assert f"-m digitlab store {task} --dry-run" in dry.stdout

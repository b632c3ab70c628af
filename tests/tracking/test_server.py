"""A tracking server instead of a file: runs, sweeps and reports work, and a silent server is reported soon."""

import csv
import os
import signal
import socket
import time
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace

import pytest
from conftest import Harness, rest_at_night
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from program import Program
from servers import tracking_server

from digitlab.tracking.store import Store
from digitlab.training import run as training_run

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path) -> Iterator[Harness]:
    """A harness whose store is an MLflow server that also keeps the artifacts."""
    harness = Harness(tmp_path / "harness")
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        harness.uri = server.uri
        yield harness


SETTINGS = ("data=mnist5k", "trainer=cpu", "trainer.max_epochs=3", "model=mlp")


def test_a_failed_run_is_resumed_through_a_server(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "evaluate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            server.train(*SETTINGS)
    (run,) = server.runs()
    assert run.info.status == "FAILED"
    server.train(*SETTINGS)
    (run,) = server.runs()
    assert run.data.tags["done"] == "true"
    assert [point.step for point in server.client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]
    files = [file.path for file in server.client.list_artifacts(run.info.run_id, "checkpoints")]
    assert files == ["checkpoints/best.ckpt"]
    assert download_artifacts(run_id=run.info.run_id, artifact_path="predictions.npz", tracking_uri=server.uri)
    assert not list(server.folder.rglob("*.*"))  # nothing is stored locally


@pytest.mark.parametrize("is_there", [True, False], ids=["silent", "absent"])
def test_a_server_that_does_not_answer_is_reported_within_15_seconds(harness, is_there):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if is_there:
            silent.listen()  # accepts the connection and never answers
        harness.uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        end = harness.main(*SETTINGS)
    assert end.startswith(f"error: tracking: uri={harness.uri}: the store does not answer")
    assert time.monotonic() - began < 15


def test_a_sweep_is_reported_through_a_server(server, tmp_path, capsys):
    assert server.main("-m", *SETTINGS, "optim=adam,sgd", "sweep.name=two") is None
    assert server.main(f"report.dir={tmp_path / 'report'}", entry_point="report") is None
    runs = {run.data.tags.get("optim"): run for run in server.runs()}
    for row in csv.DictReader((tmp_path / "report" / "report.csv").read_text().splitlines()):
        run = runs[row["optim"]]
        assert float(row["test_acc"]) == pytest.approx(run.data.metrics["test/acc"], abs=1e-6)
        points = [point.value for point in server.client.get_metric_history(run.info.run_id, "time/epoch_s")]
        assert float(row["seconds"]) == pytest.approx(sum(points))
    (pair,) = csv.DictReader((tmp_path / "report" / "pairs.csv").read_text().splitlines())
    assert pair["test"] == "McNemar"
    assert server.main("ui", entry_point="digitlab") is None  # starts nothing: the server shows it
    assert f"Runs: {server.uri}/#/experiments/" in capsys.readouterr().out
    kept = {each.path for each in server.client.list_artifacts(runs[None].info.run_id, "report")}
    assert "report/report.html" in kept


@pytest.mark.parametrize("way", rest_at_night([signal.SIGKILL, signal.SIGSTOP]), ids=["gone", "silent"])
def test_an_outage_is_said_and_an_interrupt_ends_a_run_meanwhile_within_15_seconds(tmp_path, way):
    harness = Harness(tmp_path / "harness")
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        harness.uri = server.uri
        program = Program(harness, *SETTINGS, "trainer.max_epochs=1000")
        assert program.wait_for("2/1000")
        os.killpg(server.process.pid, way)
        assert program.wait_for("warning: the server does not answer")
        program.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert program.wait() == 130
        assert time.monotonic() - began < 15
        assert "Traceback" not in program.output()


def test_a_database_without_a_place_for_artifacts_is_refused(monkeypatch):
    empty = SimpleNamespace(get_experiment_by_name=lambda _: None)
    monkeypatch.setattr("digitlab.tracking.store.MlflowClient", lambda _: empty)
    with pytest.raises(ValueError, match=r"uri=postgresql://\*\*\*@host/db: a database keeps no artifacts; give the"):
        Store("postgresql://me:word@host/db", "digitlab").open()


def test_a_database_whose_package_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr("digitlab.tracking.store.MlflowClient", lambda _: import_module("of_a_database"))
    with pytest.raises(ValueError, match=r"uri=postgresql://\*\*\*@host/db: needs the package of_a_database, which is"):
        Store("postgresql://me:word@host/db", "digitlab").open()


def test_that_the_artifacts_of_a_database_lie_in_a_folder_of_this_host_is_said(monkeypatch):
    found = SimpleNamespace(experiment_id="1", artifact_location="/home/me/mlruns/1", lifecycle_stage="active")
    monkeypatch.setattr(
        "digitlab.tracking.store.MlflowClient", lambda _: SimpleNamespace(get_experiment_by_name=lambda _: found)
    )
    with pytest.warns(match=r"the artifacts of digitlab lie in /home/me/mlruns/1, which other hosts may not have"):
        Store("postgresql://me:word@host/db", "digitlab").open()


def test_an_object_store_that_cannot_be_reached_is_said_in_one_line(harness):
    store = Store(harness.uri, "digitlab")
    store.open()
    client = MlflowClient(harness.uri)
    client.rename_experiment(store.experiment_id, "old")
    client.create_experiment("digitlab", "s3://no-such-bucket/x")
    end = harness.main(*SETTINGS)
    assert (
        end.partition(" (free")[0]
        == f"error: uri={harness.uri}: No module named 'botocore', which the place of its artifacts needs"
    )
    assert {run.info.status for run in harness.runs()} == {"FAILED"}


@pytest.mark.parametrize("name", ["NoCredentialsError", "EndpointConnectionError"])
def test_errors_of_an_object_stores_client_are_one_line(harness, name):
    error = type(name, (Exception,), {"__module__": "botocore.exceptions"})("no answer\nfrom there")
    with pytest.raises(OSError, match=f"uri={harness.uri}: no answer"), Store(harness.uri, "x").translate_errors():
        raise error

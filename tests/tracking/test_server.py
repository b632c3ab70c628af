"""A tracking server instead of a file: runs, sweeps and reports work, and a silent server is reported soon."""

import csv
import socket
import time
from collections.abc import Iterator

import pytest
from conftest import Harness
from mlflow.artifacts import download_artifacts
from servers import tracking_server

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
    assert not server.folder.exists()  # nothing is stored locally


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

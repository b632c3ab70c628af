"""Runs that are written as those of a server are, and what that server does with what it is asked."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from mlflow.exceptions import MlflowException

from digitlab.tracking import delivery, journal, run
from digitlab.tracking.store import Store

ELSEWHERE = "elsewhere:1:1"  # a process of another host


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store whose runs are written as those of a server are."""
    monkeypatch.setenv("DIGITLAB_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setattr(run, "file_of", lambda _: None)
    monkeypatch.setattr(delivery, "AGAIN", 0.01)
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "digitlab")
    store.open()
    return store


@pytest.fixture
def server(monkeypatch) -> SimpleNamespace:
    """What the server does before it does what it is asked: `server.fault(entry)`."""
    server, real = SimpleNamespace(fault=lambda _: None), delivery.deliver

    def deliver(client, info, entry) -> None:
        if server.fault(entry) != "done":
            real(client, info, entry)

    monkeypatch.setattr(delivery, "deliver", deliver)
    return server


def away(*_, **__) -> None:
    """Answer nothing."""
    raise MlflowException("Connection refused")


def refusal(status: int) -> requests.HTTPError:
    """What a proxy in front of the artifacts answers."""
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError(f"{status} of a proxy", response=answer)


def log(made: run.Run, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        made.logger.log_metrics({"val/loss": 1 / epoch}, epoch)
        made.flush()
        made.log_text(str(epoch), f"{epoch}.txt")


def state(store: Store, made: run.Run) -> tuple[str, str | None, list[int], list[str]]:
    """Status, tag done, steps in the order of their arrival, files."""
    found = store.client.get_run(made.id)
    steps = [point.step for point in store.client.get_metric_history(made.id, "val/loss")]
    files = [each.path for each in store.client.list_artifacts(made.id)]
    return found.info.status, found.data.tags.get("done"), steps, files


def journals(store: Store) -> list[Path]:
    return list(journal.root().glob("*-*"))

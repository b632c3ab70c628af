"""What a store is asked: that it does not answer is never taken for an answer."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from served import away

from digitlab.tracking import queries
from digitlab.tracking.store import Store


@pytest.fixture
def store(harness) -> Store:
    harness.folder.mkdir(exist_ok=True)
    store = Store(harness.uri, "digitlab")
    store.open()
    return store


def test_a_wrong_filter_is_told_from_an_outage(store, monkeypatch):
    with pytest.raises(ValueError, match="filter=nonsense"):
        list(queries.search(store, "nonsense"))
    monkeypatch.setattr(MlflowClient, "search_runs", away)
    with pytest.raises(MlflowException, match="Connection refused"):
        list(queries.search(store, ""))


def test_an_artifact_that_is_not_there_is_told_from_one_that_cannot_be_read(store, monkeypatch):
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run_id, "yes", "folder/there.txt")
    with queries.artifact(store, run_id, "folder/there.txt") as file:
        assert file.read_text() == "yes"
    for name in ("folder/not.txt", "not/there.txt", "not.txt"):
        with queries.artifact(store, run_id, name) as file:
            assert file is None
    monkeypatch.setattr(queries, "download_artifacts", away)
    with pytest.raises(MlflowException), queries.artifact(store, run_id, "folder/there.txt"):
        pass

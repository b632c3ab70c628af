"""Leases: when a run is another's, and which of several hosts makes it."""

import pytest
from mlflow.exceptions import MlflowException

from digitlab.tracking import begin, lease
from digitlab.tracking.store import Store
from digitlab.tracking.turn import find_or_begin


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "digitlab")
    store.open()
    return store


@pytest.fixture
def quick(monkeypatch):
    """Let nothing take time, and return the clock: a list of one number of seconds."""
    clock = [0.0]
    monkeypatch.setattr(lease, "_sights", {})
    monkeypatch.setattr(lease, "sleep", lambda _: None)
    monkeypatch.setattr(lease, "monotonic", lambda: clock[0])
    return clock


def test_a_run_has_lapsed_where_it_stood_still_while_it_was_looked_at(store, quick):
    run = store.client.create_run(store.experiment_id, tags={"owner": "elsewhere:1:1"})
    seen = []
    for quick[0] in (0, 50, 100, 150, 400, 450, 500, 550):  # not looked at from 150 to 400
        if quick[0] == 100:
            store.client.log_metric(run.info.run_id, "val/loss", 1.0)
        seen.append(lease.has_lapsed(store.client.get_run(run.info.run_id)))
    assert seen == [False] * 7 + [True]


@pytest.mark.parametrize("has_begun", [False, True])
def test_of_runs_that_are_created_together_the_earliest_is_made(store, quick, has_begun):
    times = (5, 3) if has_begun else (3, 5)  # the clock of the second host is late
    a, b = (
        store.client.create_run(store.experiment_id, start_time=at, tags={"fingerprint": "f"}).info.run_id
        for at in times
    )
    if has_begun:
        store.client.set_tag(a, lease.WON, "1")
    assert not lease.is_first(store.client, store.experiment_id, b, "f")
    assert store.client.get_run(b).info.lifecycle_stage == "deleted"
    assert store.client.get_run(b).info.status == "KILLED"
    if not has_begun:
        assert lease.is_first(store.client, store.experiment_id, a, "f")


def test_a_run_whose_creation_was_not_answered_is_the_one_that_is_made(store, quick, monkeypatch):
    create = store.client.create_run

    def create_twice(*args, **kwargs):  # as MLflow's client does where the first answer is lost
        create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(store.client, "create_run", create_twice)
    store.file = None  # as for a server
    run, done = find_or_begin(store, "run", {"fingerprint": "f"}, rerun=False, may_wait=True)
    assert done is None
    (left,) = store.client.search_runs([store.experiment_id])
    assert left.info.run_id == run.id


@pytest.mark.parametrize("is_created", [False, True])
def test_a_run_whose_creation_was_not_answered_is_created_once(store, quick, monkeypatch, is_created):
    create, calls = store.client.create_run, []

    def lose(*args, **kwargs):
        calls.append(create(*args, **kwargs) if calls or is_created else None)
        if len(calls) == 1:
            raise MlflowException("Connection aborted")
        return calls[-1]

    monkeypatch.setattr(begin, "AGAIN", 0.01)
    monkeypatch.setattr(store.client, "create_run", lose)
    store.file = None
    made = begin.begin(store, "run", {"fingerprint": "f"})
    assert [each.info.run_id for each in store.client.search_runs([store.experiment_id])] == [made.id]
    assert len(calls) == 2 - is_created

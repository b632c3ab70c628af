"""The store: owners of runs, which of several runs counts, hidden passwords."""

import pytest

from digitlab.platform.process import this_process
from digitlab.tracking import locks, queries
from digitlab.tracking.begin import begin
from digitlab.tracking.queries import is_done
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store, redact


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "digitlab")
    store.open()
    return store


def test_the_newest_done_run_is_found_and_a_newer_one_that_is_not_done(store):
    runs = [begin(store, f"run {number}", {"fingerprint": "f"}) for number in range(3)]
    assert queries.find(store, "f")[0] is None
    for run in runs[:2]:
        with run:
            pass
    done, broken = queries.find(store, "f")
    assert (done.info.run_id, broken.info.run_id) == (runs[1].id, runs[2].id)
    assert queries.find(store, "g") == (None, None)


def test_finished_is_not_done(store):
    run = begin(store, "run", {"fingerprint": "f"})
    store.client.set_terminated(run.id, "FINISHED")
    assert not is_done(store.client.get_run(run.id))


def test_a_run_that_finishes_after_an_error_has_no_error_tag(store):
    run = begin(store, "run", {"fingerprint": "f"})
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError("by zero")
    _, broken = queries.find(store, "f")
    assert (broken.info.status, broken.data.tags["error"]) == ("FAILED", "ZeroDivisionError: by zero")
    with Run(store.client, broken):
        pass
    done, _ = queries.find(store, "f")
    assert "error" not in done.data.tags


@pytest.mark.parametrize(
    ("owner", "lives"),
    [
        (this_process(), False),
        ("elsewhere:1:1", True),
        (this_process().rpartition(":")[0] + ":1", False),
        (None, False),
    ],
    ids=["this process", "another host", "an earlier process", "nobody"],
)
def test_the_owner_of_a_run_is_checked_only_with_a_server(store, owner, lives):
    run = store.client.create_run(store.experiment_id, tags={"owner": owner} if owner else {})
    assert not locks.is_owner_alive(store, run)
    store.file = None  # as for a server
    assert locks.is_owner_alive(store, run) is lives


def test_a_run_in_progress_on_another_host_is_not_marked_dead(store):
    run = store.client.create_run(store.experiment_id, tags={"owner": "elsewhere:1:1"})
    store.file = None  # as for a server
    assert locks.mark_dead_run(store, run) == "RUNNING"
    assert store.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_passwords_are_redacted():
    assert redact("tracking.uri=https://me:secret@host:1/x seed=1") == "tracking.uri=https://***@host:1/x seed=1"


def test_two_paths_of_one_file_are_the_same_store(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert Store(f"sqlite:///{tmp_path}/link/a.db", "x").uri == Store(f"sqlite:///{tmp_path}/a.db", "x").uri

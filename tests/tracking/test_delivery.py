"""What waits for a server arrives once and in order, whatever the server does, and the run is its owner's."""

import errno
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException, RestException

from digitlab.tracking import begin, delivery, journal, lease, maintenance, run
from digitlab.tracking.journal import Journal
from digitlab.tracking.store import Store

ELSEWHERE = "elsewhere:1:1"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store whose runs are written as those of a server are."""
    monkeypatch.setenv("DIGITLAB_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setattr(run, "file_of", lambda _: None)
    monkeypatch.setattr(delivery, "AGAIN", 0.01)
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "digitlab")
    store.open()
    return store


@pytest.fixture
def server(monkeypatch):
    """What the server does before it does what it is asked: `server.fault(entry)`."""
    server, real = SimpleNamespace(fault=lambda _: None), delivery.deliver

    def deliver(client, info, entry) -> None:
        if server.fault(entry) != "done":
            real(client, info, entry)

    monkeypatch.setattr(delivery, "deliver", deliver)
    return server


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


@pytest.mark.parametrize("is_disk", [False, True])
def test_a_full_journal_or_disk_ends_the_run_in_one_line_and_it_can_go_on(store, server, monkeypatch, is_disk):
    def away(_) -> None:
        raise MlflowException("Connection refused")

    server.fault = away
    monkeypatch.setattr(delivery, "PATIENCE", 0.1)
    made = begin.begin(store, "run", {"fingerprint": "f"})

    def train() -> None:
        with made:
            if is_disk:
                made.client.journal._database.execute("pragma max_page_count = 6")
            else:
                monkeypatch.setattr(journal, "LARGEST", 1000)
            log(made, 1000)

    with pytest.raises(OSError, match=r"full|wait for the server already") as caught, store.translate_errors():
        train()
    assert caught.value.__cause__.errno == (errno.ENOSPC if is_disk else errno.EDQUOT)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(journal, "LARGEST", 2**30)
    monkeypatch.setattr(delivery, "is_running", lambda _: False)
    server.fault = lambda _: None
    assert len(list(delivery.sync(store))) == 1
    status, done, steps, files = state(store, made)
    assert status in ("FAILED", "KILLED")
    assert done is None
    assert len(steps) >= len(files) > 0
    assert journals(store) == []


def faults() -> dict:
    """By name: what a server does to each call; they answer again after a while."""
    left = {}

    def times(entry, number: int) -> bool:
        left.setdefault(entry.number, number)
        left[entry.number] -= 1
        return left[entry.number] >= 0

    def fail(error: MlflowException, entry) -> None:
        if times(entry, 2):
            raise error

    def endless(entry) -> None:
        if times(entry, 1):
            time.sleep(1)

    # As MLflow says it where its database is away.
    restarted = RestException({"error_code": "BAD_REQUEST", "message": "(psycopg2.InterfaceError) closed"})
    gone = MlflowException("Connection refused")
    return {"gone": partial(fail, gone), "restarted": partial(fail, restarted), "endless": endless}


@pytest.mark.parametrize("name", [*faults(), "lost"])
def test_all_arrives_once_and_in_order(store, server, monkeypatch, name):
    monkeypatch.setattr(delivery, "SLOWEST", 0.05)
    real = delivery.deliver
    if name == "lost":
        asked = set()

        def lost(entry) -> None:
            if entry.number not in asked:
                asked.add(entry.number)
                server.fault = lambda _: None
                real(store.client, made.run.info, entry)
                server.fault = lost
                raise MlflowException("Connection aborted")

        server.fault = lost
    else:
        server.fault = faults()[name]
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with made:
        log(made, 3)
    assert state(store, made) == ("FINISHED", "true", [1, 2, 3], ["1.txt", "2.txt", "3.txt"])
    assert journals(store) == []


def test_a_run_does_not_wait_for_the_server(store, server):
    over = threading.Event()
    server.fault = lambda _: over.wait(30)
    with begin.begin(store, "run", {"fingerprint": "f"}) as made:
        began = time.monotonic()
        log(made, 20)
        assert time.monotonic() - began < 20  # a second each
        assert made.history("val/loss")[0] == list(range(1, 21))
        over.set()
    assert state(store, made)[:3] == ("FINISHED", "true", list(range(1, 21)))


def test_a_run_that_ends_without_its_server_is_completed_later(store, server, monkeypatch, capsys):
    def away(_) -> None:
        raise MlflowException("Connection refused")

    monkeypatch.setattr(delivery, "PATIENCE", 0.1)
    made = begin.begin(store, "run", {"fingerprint": "f"})

    def train() -> None:
        with made:
            log(made, 2)
            server.fault = away
            made.logger.log_metrics({"val/loss": 0.3}, 3)

    with pytest.raises(delivery.AwayError, match=r"(Connection refused|no answer).*digitlab store sync, sends it"):
        train()
    assert state(store, made)[0] == "RUNNING"
    store.client.set_tag(made.id, "error", "killed, no exit status")  # as whoever looks at it notes
    server.fault = lambda _: None
    monkeypatch.setattr(delivery, "is_running", lambda _: False)
    store.file = None
    monkeypatch.setattr(store, "peek", lambda: True)
    assert list(maintenance.sync(store)) == [f"run {made.id} is complete: FINISHED"]
    assert state(store, made)[:3] == ("FINISHED", "true", [1, 2, 3])
    assert "error" not in store.client.get_run(made.id).data.tags
    assert list(maintenance.sync(store)) == ["nothing waits for the server"]


def killed(store: Store, server, monkeypatch) -> run.Run:
    """A run whose process ended without a word while the server was away, after three epochs."""

    def away(_) -> None:
        raise MlflowException("Connection refused")

    server.fault = away
    made = begin.begin(store, "run", {"fingerprint": "f"})
    made.__enter__()
    log(made, 3)
    made.client.check.__self__._end()
    made.client.journal.close()
    server.fault = lambda _: None
    monkeypatch.setattr(delivery, "is_running", lambda owner: owner.startswith(ELSEWHERE[:9]))
    return made


def test_a_killed_run_is_not_left_running(store, server, monkeypatch):
    made = killed(store, server, monkeypatch)
    assert list(delivery.sync(store, "another")) == []
    assert list(delivery.sync(store, "f")) == [f"run {made.id} is complete: KILLED"]
    assert state(store, made) == ("KILLED", None, [1, 2, 3], ["1.txt", "2.txt", "3.txt"])
    assert store.client.get_run(made.id).data.tags["error"] == "killed, no exit status"


def test_a_run_is_continued_only_when_what_another_command_sends_has_arrived(store, server, monkeypatch):
    made = killed(store, server, monkeypatch)
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(_) -> None:
        is_asked.set()
        may_answer.wait(30)

    server.fault = slow
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(lambda: list(delivery.sync(store)))
        assert is_asked.wait(30)
        continued = pool.submit(lambda: (list(delivery.sync(store, "f")), state(store, made)))
        with pytest.raises(TimeoutError):
            continued.result(1)
        assert list(delivery.sync(store, "another")) == []
        may_answer.set()
    assert sent.result() == [f"run {made.id} is complete: KILLED"]
    assert continued.result() == ([], ("KILLED", None, [1, 2, 3], ["1.txt", "2.txt", "3.txt"]))


@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_waits_for_a_run_of_somebody_else_is_dropped(store, server, monkeypatch, is_deleted):
    made = killed(store, server, monkeypatch)
    if is_deleted:
        store.client.delete_run(made.id)
    else:
        store.client.set_tag(made.id, "owner", ELSEWHERE)
    (line,) = delivery.sync(store)
    assert ("was deleted" if is_deleted else "was taken over") in line
    assert state(store, made)[2:] == ([], [])
    assert journals(store) == []


def test_what_another_host_left_is_sent_from_there(store, tmp_path):
    about = {"run": "1" * 32, "owner": ELSEWHERE, "fingerprint": "f"}
    Journal(journal.folder_of(store.uri, "1" * 32, ELSEWHERE), about).close()
    assert list(delivery.sync(store)) == [f"run {'1' * 32} is of host elsewhere: what waits there is sent from there"]
    assert len(journals(store)) == 1


def test_a_run_that_was_taken_over_during_an_outage_ends_and_writes_nothing(store, server, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.2)
    made = begin.begin(store, "run", {"fingerprint": "f"})

    def train() -> None:
        with made:
            log(made, 1)
            while state(store, made)[2] != [1]:
                time.sleep(0.01)
            store.client.set_tag(made.id, "owner", ELSEWHERE)
            time.sleep(0.5)
            log(made, 3)

    with pytest.raises(lease.TakenOverError):
        train()
    assert state(store, made)[:3] == ("RUNNING", None, [1])
    assert journals(store) == []


def test_what_the_server_refuses_ends_the_run_as_failed(store, server):
    def refuse(entry) -> None:
        if entry.call == "log_artifact":
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no such path"})

    server.fault = refuse
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with pytest.raises(MlflowException, match="no such path"), made:
        log(made, 1)
    assert state(store, made)[:3] == ("FAILED", None, [1])
    assert journals(store) == []


def test_an_interrupt_does_not_wait_long_for_a_server(store, server, monkeypatch, capsys):
    over = threading.Event()
    server.fault = lambda _: over.wait(30)
    monkeypatch.setattr(delivery, "PATIENCE_OF_SIGNALS", 0.1)
    made, began = begin.begin(store, "run", {"fingerprint": "f"}), time.monotonic()

    with pytest.raises(SystemExit), made:
        sys.exit(log(made, 2))
    assert time.monotonic() - began < 5
    assert "what the run recorded waits in" in capsys.readouterr().out
    over.set()
    assert len(journals(store)) == 1


def test_a_run_whose_journal_has_no_place_is_not_left_running(store, tmp_path):
    (tmp_path / "journal").write_text("a file")
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with pytest.raises(OSError, match="journal"), made:
        pass
    assert store.client.get_run(made.id).info.status == "FAILED"


def test_a_tag_is_removed_though_the_answer_to_that_was_lost(store, server):
    def lose(entry) -> str | None:
        if entry.call == "delete_tag" and not lost:
            lost.append(entry)
            store.client.delete_tag(made.id, "error")
            raise MlflowException("Connection aborted")
        return None

    lost: list = []
    server.fault = lose
    made = begin.begin(store, "run", {"fingerprint": "f", "error": "of an earlier start"})
    with made:
        log(made, 1)
    assert "error" not in store.client.get_run(made.id).data.tags
    assert state(store, made)[0] == "FINISHED"

"""What a run left behind that ended before its server had all of it: it is completed, once, or dropped."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import served
from served import ELSEWHERE, away, journals, log, refusal, state

from digitlab.platform import process
from digitlab.tracking import begin, delivery, journal, maintenance, run
from digitlab.tracking.journal import Journal
from digitlab.tracking.store import Store

store, server = served.store, served.server  # fixtures


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_run_that_ends_without_its_server_is_completed_later(store, server, monkeypatch, has_ended):
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
    monkeypatch.setattr(delivery, "is_running", lambda _: not has_ended)  # as in a notebook, which goes on
    store.file = None
    monkeypatch.setattr(store, "peek", lambda: True)
    assert list(maintenance.sync(store)) == [f"run {made.id} is complete: FINISHED"]
    assert state(store, made)[:3] == ("FINISHED", "true", [1, 2, 3])
    assert "error" not in store.client.get_run(made.id).data.tags
    assert list(maintenance.sync(store)) == ["nothing waits for the server"]


def test_what_waits_outlives_an_error_of_the_thread_that_delivers_it(store, server, monkeypatch):
    def unread(_) -> None:
        raise SystemExit(141)  # nobody reads what is printed

    monkeypatch.setattr(delivery, "OUTAGE", 0)
    monkeypatch.setattr(delivery.console, "warn", unread)
    made = begin.begin(store, "run", {"fingerprint": "f"})

    def train() -> None:
        with made:
            server.fault = away
            for epoch in range(1, 200):
                made.logger.log_metrics({"val/loss": 1.0}, epoch)
                made.flush()
                time.sleep(0.05)

    with pytest.raises(SystemExit):
        train()
    assert len(journals(store)) == 1
    server.fault = lambda _: None
    monkeypatch.setattr(delivery, "OUTAGE", 10)
    assert list(delivery.sync(store)) == [f"run {made.id} is complete: KILLED"]
    steps = state(store, made)[2]
    assert steps == list(range(1, len(steps) + 1))
    assert steps


def killed(store: Store, server, monkeypatch) -> run.Run:
    """A run whose process ended without a word while the server was away, after three epochs."""

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


def test_a_run_is_completed_from_a_container_that_was_started_again(store, server, monkeypatch):
    made = killed(store, server, monkeypatch)
    monkeypatch.setattr(process, "_namespace", lambda: "4026999999")  # of the same name, with processes of its own
    assert list(delivery.sync(store)) == [f"run {made.id} is complete: KILLED"]
    assert state(store, made)[2] == [1, 2, 3]


def test_why_a_run_failed_is_told_though_somebody_found_it_dead_before(store, server, monkeypatch):
    monkeypatch.setattr(delivery, "PATIENCE", 0.1)
    server.fault = away
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with pytest.raises(ZeroDivisionError), made:
        log(made, 1 // 0)
    store.client.set_terminated(made.id, "KILLED")
    store.client.set_tag(made.id, "error", "killed, no exit status")
    server.fault = lambda _: None
    monkeypatch.setattr(delivery, "is_running", lambda _: False)
    assert list(delivery.sync(store)) == [f"run {made.id} is complete: FAILED"]
    assert store.client.get_run(made.id).data.tags["error"].startswith("ZeroDivisionError: ")


def test_what_the_server_will_never_take_of_a_dead_run_is_told_once_and_dropped(store, server, monkeypatch):
    made = killed(store, server, monkeypatch)

    def refuse(entry) -> None:
        if entry.call == "log_artifact":
            raise refusal(413)

    server.fault = refuse
    (line,) = delivery.sync(store)
    assert line == f"run {made.id} is complete, but for what the server refused (413 of a proxy): FAILED"
    assert state(store, made) == ("FAILED", None, [1, 2, 3], [])
    assert list(delivery.sync(store)) == []


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

"""What waits for a server arrives once and in order, whatever the server does, and the run is its owner's."""

import errno
import sys
import threading
import time
from functools import partial

import pytest
import served
from mlflow.exceptions import MlflowException, RestException
from served import ELSEWHERE, away, journals, log, refusal, state

from digitlab.tracking import begin, delivery, journal, lease

store, server = served.store, served.server  # fixtures


@pytest.mark.parametrize("is_disk", [False, True])
def test_a_full_journal_or_disk_ends_the_run_in_one_line_and_it_can_go_on(store, server, monkeypatch, is_disk):
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


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str):
        super().__init__(f"An error occurred ({code}) when calling the PutObject operation")
        self.response = {"Error": {"Code": code}}


def of_s3(code: str) -> Exception:
    error = RuntimeError("Failed to upload")  # boto3's, of which botocore's is the reason
    error.__context__ = ClientError(code)
    return error


def faults() -> dict:
    """By name: what a server does to each call; they answer again after a while."""
    left = {}

    def times(entry, number: int) -> bool:
        left.setdefault(entry.number, number)
        left[entry.number] -= 1
        return left[entry.number] >= 0

    def fail(error: Exception, entry) -> None:
        if times(entry, 2):
            raise error

    def endless(entry) -> None:
        if times(entry, 1):
            time.sleep(1)

    # As MLflow says it where its database is away.
    restarted = RestException({"error_code": "BAD_REQUEST", "message": "(psycopg2.InterfaceError) closed"})
    gone = MlflowException("Connection refused")
    errors = {"gone": gone, "restarted": restarted, "502": refusal(502), "expired": of_s3("ExpiredToken")}
    return {name: partial(fail, error) for name, error in errors.items()} | {"endless": endless}


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


def test_a_large_file_has_the_time_that_it_takes(store, server, monkeypatch):
    monkeypatch.setattr(delivery, "PATIENCE", 0.2)
    monkeypatch.setattr(delivery, "RATE", 100)
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with made:
        server.fault = lambda entry: time.sleep(1.0 if entry.call == "log_artifact" else 0)
        made.log_text("x" * 1000, "large.txt")
    assert state(store, made)[0] == "FINISHED"
    assert state(store, made)[3] == ["large.txt"]


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


@pytest.mark.parametrize(
    "error",
    [RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "x"}), refusal(413), of_s3("AccessDenied")],
    ids=["MLflow", "proxy", "S3"],
)
def test_what_the_server_refuses_ends_the_run_as_failed(store, server, error):
    def refuse(entry) -> None:
        if entry.call == "log_artifact":
            raise error

    server.fault = refuse
    made = begin.begin(store, "run", {"fingerprint": "f"})
    with pytest.raises(type(error)), made:
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

"""The queue on disk of what waits for a server: a kill at any moment loses nothing that was put into it."""

import multiprocessing
import subprocess
import sys

import pytest

from digitlab.tracking.journal import FOLDER, Journal, abandoned, folder_of

KILLED = """
import os, sys
sys.path.insert(0, "src")
from pathlib import Path
from digitlab.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), {"owner": "x"})
for number in range(10_000):
    Path(sys.argv[2]).write_text(str(number))
    journal.put("log_artifact", {"number": number}, Path(sys.argv[2]))
    os.unlink(sys.argv[2])
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_was_put(tmp_path):
    folder, file = tmp_path / "journal", tmp_path / "file"
    command = [sys.executable, "-c", KILLED, folder, file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        said += map(int, process.stdout.read().split())
    opened = Journal(folder)
    found = []
    while entry := opened.first():
        found.append(entry.arguments["number"])
        assert entry.file is not None
        assert entry.file.read_text() == str(found[-1])
        opened.remove(entry)
    assert found[: len(said)] == said
    assert len(found) - len(said) in (0, 1)
    assert opened.about == {"owner": "x"}
    opened.discard()


def test_of_a_file_only_the_last_version_waits_at_its_turn(tmp_path):
    opened, file = Journal(tmp_path / "journal"), tmp_path / "last.ckpt"
    for number in range(3):
        file.unlink(missing_ok=True)
        file.write_text(str(number))
        opened.put("log_batch", {"number": number})
        opened.put("log_artifact", {}, file, "checkpoints/last.ckpt")
    calls = []
    while entry := opened.first():
        calls.append(entry.arguments.get("number", entry.file and entry.file.read_text()))
        opened.remove(entry)
    assert calls == [0, 1, 2, "2"]
    opened.discard()


def test_a_version_of_a_file_may_take_the_room_of_the_one_that_it_replaces(tmp_path, monkeypatch):
    monkeypatch.setattr("digitlab.tracking.journal.LARGEST", 1000)
    opened, file = Journal(tmp_path / "journal"), tmp_path / "last.ckpt"
    file.write_bytes(bytes(600))
    for _ in range(3):
        opened.put("log_artifact", {}, file, "checkpoints/last.ckpt")
    with pytest.raises(OSError, match="1,000 bytes wait"):
        opened.put("log_artifact", {}, file, "checkpoints/best.ckpt")
    with pytest.raises(OSError, match="1,000 bytes wait"):
        opened.put("log_model", {"name": "x" * 500})
    opened.discard()


def test_a_journal_is_found_again_by_another_user_of_the_same_server(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    Journal(folder_of("https://ann:old@lab.example:5000/mlflow", "1", "a:1:1"), {"run": "1"}).close()
    for uri in ("https://ann:new@lab.example:5000/mlflow/", "https://lab.example:5000/mlflow"):
        assert [found.about for found in abandoned(uri, lambda _: False)] == [{"run": "1"}]
    for uri in ("https://lab.example:5001/mlflow", "https://lab.example:5000", "http://lab.example:5000/mlflow"):
        assert not list(abandoned(uri, lambda _: False))


def test_calls_of_lists_are_joined_until_the_first_is_on_its_way_or_there_is_no_room(tmp_path):
    opened = Journal(tmp_path / "journal")

    def put(count: int) -> None:
        opened.extend("log_batch", {"metrics": [1] * count, "params": [], "tags": []})

    put(400)
    put(600)
    put(1)
    assert opened.first().number == 1
    opened.remove(opened.first())
    assert opened.first().arguments["metrics"] == [1]
    put(2)  # while the one before is on its way
    opened.put("set_terminated", {})
    put(3)
    counts = []
    while entry := opened.first():
        counts.append(len(entry.arguments.get("metrics", ())))
        opened.remove(entry)
    assert counts == [1, 2, 0, 3]
    opened.discard()


def look_for_abandoned(uri: str, is_over) -> None:
    while not is_over.is_set():
        for journal in abandoned(uri, lambda _: False):
            assert not journal.about  # else it has been taken from its run
            journal.discard()


def test_a_journal_is_never_taken_from_the_run_that_makes_or_removes_it(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    fork = multiprocessing.get_context("fork")
    uri, is_over = "http://127.0.0.1:9", fork.Event()
    others = [fork.Process(target=look_for_abandoned, args=(uri, is_over)) for _ in range(2)]
    for other in others:
        other.start()
    for number in range(60):
        journal = Journal(folder_of(uri, str(number), "a:1:1"), {"run": str(number)})
        journal.put("set_tag", {"key": "a"})
        assert journal.first()
        journal.discard()
    is_over.set()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_a_run_that_is_taken_over_has_a_journal_of_its_own_beside_that_of_the_process_before(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))  # on a disk that both hosts have
    before, after = (Journal(folder_of("http://127.0.0.1:9", "1", owner), {"run": "1"}) for owner in ("a:1:1", "b:1:1"))
    after.put("set_tag", {"key": "a"})
    before.discard()
    assert after.first()
    after.discard()

"""Leases: when a run is another's, and which of several hosts makes it."""

from collections.abc import Callable
from itertools import combinations
from threading import Semaphore, Thread, current_thread
from types import SimpleNamespace
from typing import Any

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


def test_a_run_that_is_left_to_another_host_is_never_found_as_one_that_broke_off(store, quick, monkeypatch):
    a, b = (
        store.client.create_run(store.experiment_id, start_time=at, tags={"fingerprint": "f"}).info.run_id
        for at in (3, 5)
    )
    seen = []

    def then_look(call):
        def made(*args, **kwargs):
            call(*args, **kwargs)
            found = store.client.search_runs([store.experiment_id], "tags.fingerprint = 'f'")
            seen.append([(run.info.run_id, run.info.status) for run in found])

        return made

    for name in ("set_tag", "delete_tag", "set_terminated", "update_run", "delete_run"):
        monkeypatch.setattr(store.client, name, then_look(getattr(store.client, name)))
    assert not lease.is_first(store.client, store.experiment_id, b, "f")
    assert {status for runs in seen for _, status in runs} == {"RUNNING"}
    assert seen[-1] == [(a, "RUNNING")]


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


class Turns:
    """A server of one run, to which two hosts make their calls in the order that is given."""

    def __init__(self, order: list[str]):
        self.order, self.tags, self.status = order, {"owner": "dead"}, "KILLED"
        self.may_go = {name: Semaphore(0) for name in "ab"}
        self.has_asked = Semaphore(0)
        self.is_busy = set("ab")

    def look(self, run_id: str = "r") -> Any:
        self._wait()
        return SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, status=self.status),
            data=SimpleNamespace(tags=dict(self.tags), metrics={}),
        )

    get_run = look

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self._wait()
        self.tags[key] = value

    def delete_tag(self, run_id: str, key: str) -> None:
        self._wait()
        self.tags.pop(key, None)

    def update_run(self, run_id: str, status: str) -> None:
        self._wait()
        self.status = status

    def log_batch(self, run_id: str, tags: list) -> None:
        self._wait()
        self.tags |= {each.key: each.value for each in tags}

    def _wait(self) -> None:
        self.has_asked.release()
        self.may_go[current_thread().name].acquire()

    def play(self, host: Callable[[], None]) -> None:
        def live() -> None:
            host()
            self.is_busy.discard(current_thread().name)
            self.has_asked.release()

        threads = [Thread(target=live, name=name) for name in "ab"]
        for thread in threads:
            thread.start()
            self.has_asked.acquire()
        for name in [*self.order, *"ab" * 20]:
            if name in self.is_busy:
                self.may_go[name].release()
                self.has_asked.acquire()
        for thread in threads:
            thread.join()


def test_of_two_hosts_that_want_a_run_at_most_one_gets_it_in_whatever_order_their_calls_arrive(quick, monkeypatch):
    monkeypatch.setattr(lease, "this_process", lambda: current_thread().name)
    monkeypatch.setattr(lease, "owner_tags", lambda _: {"owner": current_thread().name})
    winners = set()
    for places in combinations(range(12), 6):  # of a's calls: a look and five that take the run over
        server, won = Turns(["a" if n in places else "b" for n in range(12)]), []

        def take_over(server=server, won=won) -> None:
            seen = server.look()
            if seen.info.status == "KILLED" and lease.take_over(server, seen):
                won.append(current_thread().name)

        server.play(take_over)
        assert len(won) <= 1, server.order
        assert not won or server.tags == {"owner": won[0]}
        assert [key for key in server.tags if key != "owner"] == []
        winners.add("".join(won))
    assert winners == {"", "a", "b"}


def test_a_host_that_died_while_it_took_a_run_over_is_waited_for_and_then_forgotten(store, quick):
    run_id = store.client.create_run(
        store.experiment_id, tags={"owner": "dead:1:1", lease.WANTED + "x": "1"}
    ).info.run_id
    taken = []
    for quick[0] in (0, 50, 100, 150):
        taken.append(lease.take_over(store.client, store.client.get_run(run_id)))
    assert taken == [False, False, False, True]
    tags = store.client.get_run(run_id).data.tags
    assert not [key for key in tags if key.startswith(lease.WANTED)]
    assert tags["owner"] != "dead:1:1"


def test_of_two_new_runs_the_one_that_another_host_has_begun_meanwhile_is_not_made(store, quick, monkeypatch):
    a, b = (
        store.client.create_run(store.experiment_id, start_time=at, tags={"fingerprint": "f"}).info.run_id
        for at in (5, 3)
    )
    set_tag = store.client.set_tag

    def slow(run_id, key, value):  # `a`, whose host asked before `b` was there, says only now that it has begun
        set_tag(a, key, value)
        set_tag(run_id, key, value)

    monkeypatch.setattr(store.client, "set_tag", slow)
    assert not lease.is_first(store.client, store.experiment_id, b, "f")
    assert [run.info.run_id for run in store.client.search_runs([store.experiment_id])] == [a]

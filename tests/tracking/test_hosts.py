"""Several hosts on one server: each run is made by one of them, and goes on elsewhere where that one dies."""

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fault_run import LEAN, FaultRun
from mlflow import MlflowClient
from mlflow.entities import ViewType
from servers import Server, tracking_server

from digitlab.tracking import turn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with tracking_server(folder / "db.sqlite", folder / "kept") as server:
        yield server


class Host(FaultRun):
    """A machine with its own temporary folder, whose processes are known by its name."""

    def __init__(self, folder: Path, server: Server, experiment: str):
        super().__init__(folder, [*LEAN, "hooks:on_another_host"])
        self.uri, self.experiment = server.uri, experiment
        self.environment["HOST"] = folder.name

    def end(self, process) -> int:
        assert wait([process.sentinel], 300), self.output
        with self.reading:
            process.join()
        return process.exitcode


@pytest.fixture
def hosts(tmp_path, server, request) -> tuple[Host, Host]:
    return Host(tmp_path / "a", server, request.node.name), Host(tmp_path / "b", server, request.node.name)


def end_all(hosts: tuple[Host, Host], processes: list) -> None:
    codes = [host.end(process) for host, process in zip(hosts, processes, strict=True)]
    assert codes == [0, 0], "\n".join(host.output for host in hosts)


def runs(host: Host) -> list:
    """Every run of the test's experiment but sweeps themselves, deleted ones too."""
    client = MlflowClient(host.uri)
    found = client.search_runs([client.get_experiment_by_name(host.experiment).experiment_id], "", ViewType.ALL)
    return [run for run in found if not run.data.tags.get("fingerprint", "").startswith("sweep-")]


def check_made_once(host: Host, count: int = 1) -> list:
    """Check that `count` runs are there, each done with each of its points once, and that none is left RUNNING."""
    found = runs(host)
    assert "RUNNING" not in {run.info.status for run in found}
    done = [run for run in found if run.info.lifecycle_stage == "active"]
    assert [(run.info.status, run.data.tags.get("done")) for run in done] == [("FINISHED", "true")] * count
    for run in done:
        epochs = int(run.data.params["trainer.max_epochs"])
        steps = {
            key: [point.step for point in MlflowClient(host.uri).get_metric_history(run.info.run_id, key)]
            for key in ("train/loss", "val/loss", "train/loss_step", "test/acc")
        }
        assert steps["train/loss"] == [*range(1, epochs + 1)]
        assert steps["val/loss"] == [*range(epochs + 1)]
        every = steps["train/loss_step"]
        assert every == sorted(set(every))
        assert len(every) % epochs == 0
        assert len(steps["test/acc"]) == 1
    return done


def test_of_hosts_that_begin_together_one_makes_the_run(hosts):
    processes = [host.start() for host in hosts]
    end_all(hosts, processes)
    check_made_once(hosts[0])
    assert sum("is done already" in host.output for host in hosts) == 1


def test_the_run_of_a_host_that_died_goes_on_elsewhere(hosts):
    a, b = hosts
    assert a.execute("KILL@points:after#3") == -signal.SIGKILL
    assert [run.info.status for run in runs(a)] == ["RUNNING"]
    assert b.execute() == 0, b.output
    assert "under way on host a; rerun=true starts another" in b.output
    assert "continuing mlp" in b.output
    check_made_once(a)


def test_a_host_that_wakes_up_leaves_its_run_to_the_one_that_took_it_over(hosts):
    a, b = hosts
    process = a.start("STOP@epoch:before#3")
    while "epoch:before#3" not in a.trace or psutil.Process(process.pid).status() != "stopped":
        assert not wait([process.sentinel], 0.05), a.output
    assert b.execute() == 0, b.output
    os.kill(process.pid, signal.SIGCONT)
    assert a.end(process) == 1
    assert "another process has taken the run over" in a.output.splitlines()[-1]
    assert check_made_once(a)[0].data.tags["owner"].startswith("b:")


def test_hosts_share_the_cells_of_a_sweep(hosts):
    cells = ("-m", "seed=range(4)", "sweep.name=shared")
    processes = [host.start("", *cells) for host in hosts]
    end_all(hosts, processes)
    assert {run.data.tags["owner"][0] for run in check_made_once(hosts[0], 4)} == {"a", "b"}
    assert all("4 of 4 cells are done" in host.output for host in hosts)
    client = MlflowClient(hosts[0].uri)
    experiment = client.get_experiment_by_name(hosts[0].experiment).experiment_id
    (parent,) = client.search_runs([experiment], "tags.fingerprint = 'sweep-shared'")
    assert parent.info.status == "FINISHED"


def test_of_hosts_that_continue_the_same_run_one_does_though_the_other_was_stopped_before_it_asked(hosts):
    a, b = hosts
    assert a.execute("INT@points:after#3") == 130, a.output
    process = a.start("STOP@wanted:before#1")
    while "wanted:before#1" not in a.trace or psutil.Process(process.pid).status() != "stopped":
        assert not wait([process.sentinel], 0.05), a.output
    assert b.execute() == 0, b.output
    os.kill(process.pid, signal.SIGCONT)
    assert a.end(process) == 0, a.output
    assert "is done already" in a.output
    assert check_made_once(a)[0].data.tags["owner"].startswith("b:")


def test_a_job_of_slurm_that_is_queued_again_on_another_host_continues_at_once(hosts):
    a, b = hosts
    for host in hosts:
        host.environment |= {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "5"}
    assert a.execute("KILL@points:after#3") == -signal.SIGKILL
    assert [run.data.tags["job"] for run in runs(a)] == ["5"]
    assert b.execute() == 0, b.output
    assert "waiting for run" not in b.output
    assert "continuing" in b.output
    check_made_once(b)


def test_a_run_is_not_taken_over_between_its_last_two_words(monkeypatch):
    ended, done = (SimpleNamespace(info=SimpleNamespace(run_id="r", run_name="r", status="FINISHED")) for _ in range(2))
    answers = iter([(None, ended), (done, None)])
    monkeypatch.setattr(turn.queries, "find", lambda *_: next(answers))
    monkeypatch.setattr(turn, "sync", lambda *_: [])
    monkeypatch.setattr(turn.time, "sleep", lambda _: None)
    monkeypatch.setattr(turn, "Run", lambda _, run: run)
    store: Any = SimpleNamespace(file=None, client=None)
    assert turn.find_or_begin(store, "r", {"fingerprint": "f"}, rerun=False, may_wait=True) == (done, done)

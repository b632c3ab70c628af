"""Which cells a sweep launches, and which it counts as made, where workers die, time runs out or runs are repeated."""

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from mlflow.exceptions import MlflowException

from digitlab.sweep import jobs, plan, runner, squeue
from digitlab.sweep.plan import SweepCell
from digitlab.sweep.rounds import Rounds
from digitlab.tracking import queries
from digitlab.tracking.begin import open_parent
from digitlab.tracking.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", "digitlab")
    store.open()
    return store


def make(store: Store, fingerprint: str) -> None:
    """Record a run that is done."""
    run = store.client.create_run(store.experiment_id, run_name=fingerprint, tags={"fingerprint": fingerprint})
    for key in ("val/acc", "val/loss", "test/loss"):
        for step in (0, 1):
            store.client.log_metric(run.info.run_id, key, 0.5, step=step)
    store.client.set_terminated(run.info.run_id, "FINISHED")
    store.client.set_tag(run.info.run_id, "done", "true")


def cells(*names: str) -> list[SweepCell]:
    return [SweepCell(name, name, [f"seed={name}"], "mlp", "mnist5k", 1) for name in names]


def test_cells_that_are_made_again_are_launched_again_though_their_workers_died(store):
    for name in "01":
        make(store, name)
    again, tried = cells("0", "1"), []
    plan.look_past(store, again)  # as with rerun=true

    def launch(overrides, number):
        tried.append([each[0] for each in overrides])
        if len(tried) == 1:
            make(store, "0")
            raise BrokenProcessPool("A worker process was killed")
        make(store, "1")
        return [JobReturn(status=JobStatus.COMPLETED) for _ in overrides]

    runner.launch_all(store, again, launch, "p", 0)
    assert tried == [["seed=0", "seed=1"], ["seed=1"]]
    plan.look_up(store, again, is_over=True)
    assert [cell.status for cell in again] == ["done", "done"]


def test_a_cell_that_is_made_again_is_not_done_where_its_job_never_began(store, monkeypatch):
    make(store, "0")
    (cell,) = cells("0")
    plan.look_past(store, [cell])
    cell.job, of_sweep = "7", jobs.Jobs(store, "s", None, False)
    of_sweep.queue = {"7": squeue.Job("CANCELLED", "None", "mark")}
    monkeypatch.setattr(jobs, "result", lambda *_: None)
    monkeypatch.setattr(jobs, "log", lambda *_: Path("7.out"))
    of_sweep._conclude(cell)
    assert (cell.status, cell.reason) == ("failed", "job 7 ended: CANCELLED; its output: 7.out")


class Timed(Rounds):
    """Rounds with time for four cells."""

    has_budget = True

    def __init__(self):
        self.left = 4

    def may_start(self, store, cells) -> bool:
        self.left -= len(cells)
        return self.left >= 0


@pytest.mark.parametrize(("at_once", "launched"), [(2, [2, 2]), (3, [3]), (4, [4]), (None, [])])
def test_no_more_cells_are_launched_than_a_budget_has_time_for(store, at_once, launched):
    several, sizes = cells(*"012345"), []

    def launch(overrides, number):
        sizes.append(len(overrides))
        for each in overrides:
            make(store, each[0].removeprefix("seed="))
        return [JobReturn(status=JobStatus.COMPLETED) for _ in overrides]

    with open_parent(store, "s") as parent:
        one = runner.Runner(store, launch, parent, at_once, Timed(), False, None)
        refused = one.run(several)
    assert sizes == launched
    assert [cell.name for cell in refused] == [cell.name for cell in several[sum(launched) :]]


def test_a_store_that_goes_away_after_the_plan_is_said_in_a_line(harness, monkeypatch):
    def away(*_):
        raise MlflowException("Connection refused")

    monkeypatch.setattr(queries, "pace", away)
    end = harness.main("-m", "model=mlp", "optim=adam,sgd", "data=mnist5k", "trainer=smoke")
    assert end.startswith("error: uri=sqlite:///")
    assert "Connection refused" in end
    assert "\n" not in end


def test_lines_that_are_no_jobs_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs: a note'\necho '7|RUNNING|None|my words | mark'\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert squeue.jobs() == {"7": squeue.Job("RUNNING", "None", "my words | mark")}

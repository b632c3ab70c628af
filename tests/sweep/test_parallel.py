"""Many processes on one store: parallel cells, interrupted and continued; the same run twice; new stores."""

import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from contextlib import ExitStack, suppress

import filelock._unix
import psutil
import pytest
from conftest import Harness
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from program import Program, wait_until_gone

from digitlab.tracking import locks
from digitlab.tracking.begin import begin
from digitlab.tracking.store import Store

# Seven cells that can be trained, and one that needs more memory than there is.
EIGHT = (
    "hydra.mode=MULTIRUN", "model=mlp", "optim=sgd", "data.test_fraction=0.8", "trainer.max_epochs=2",
    f"model.hidden={','.join(f'[{{units: {2**i}}}]' for i in range(3, 10))},[{{units: {10**13}}}]",
)  # fmt: skip
TWO_AT_ONCE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def workers(program: Program) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(program.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # a child such as git may have ended meanwhile
                found += [child] if "LokyProcess" in " ".join(child.cmdline()) else []
    return found


def is_intact(harness: Harness) -> bool:
    return sqlite3.connect(harness.folder / "mlflow.db").execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_launcher_that_is_not_installed_names_its_extra(harness, monkeypatch):
    classes = Plugins.instance().class_name_to_class  # this loads them
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "joblib.yaml")
    end = harness.main("sweep=smoke", "hydra/launcher=joblib")
    assert end.startswith("error: hydra/launcher=joblib: not found; allowed: ")
    assert end.endswith("; joblib is in the extra parallel")
    monkeypatch.delitem(classes, "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher")
    end = harness.main("sweep=smoke", "hydra/launcher=slurm")
    assert end == "error: hydra/launcher=slurm: is not installed; pip install '.[slurm]' in digitlab's folder"
    assert not harness.folder.exists()


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_only_slurm_is_left_its_jobs(harness, launcher):
    end = harness.main("sweep=smoke", f"hydra/launcher={launcher}", "sweep.detach=true")
    assert end == f"error: sweep.detach=true: leaves jobs to SLURM, and hydra/launcher={launcher} has none; allowed: " \
        "hydra/launcher=slurm"  # fmt: skip
    assert harness.main("sweep.detach=true").startswith("error: sweep.detach=true: is for a sweep, and this is one run")
    assert not harness.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.night)],
    ids=["INT", "TERM"],
)
def test_a_signal_stops_all_workers_and_the_same_command_continues(harness, number, whole_group, code):
    command = ("sweep=smoke", "model=mlp", "data.test_fraction=0.5", "trainer.max_epochs=8", *TWO_AT_ONCE)
    program = Program(harness, *command)
    assert program.wait_for("epoch 2/8")
    running = workers(program)
    assert len(running) == 2
    if whole_group:  # as a terminal does
        os.killpg(program.process.pid, number)
    else:
        program.process.send_signal(number)
    assert program.wait(timeout=20) == code
    wait_until_gone(running, 5)
    assert "Traceback" not in program.output()
    assert harness.parent().info.status == "KILLED"
    assert {run.info.status for run in harness.cells()} == {"KILLED"}
    before = {run.info.run_id for run in harness.cells()}
    assert 1 <= len(before) <= 2

    program = Program(harness, *command)
    assert program.wait(timeout=400) == 0  # a minute of work for two idle cores, four beside other tests
    assert f"3 cells: 0 done, {len(before)} to resume, {3 - len(before)} to run" in program.output()
    assert "Done   3 out of   3" in program.output() or "Done 3 out of 3" in program.output()
    after = harness.cells()
    assert before < {run.info.run_id for run in after}
    assert {run.data.tags["done"] for run in after} == {"true"}
    assert len(after) == 3
    assert harness.parent().info.status == "FINISHED"
    assert is_intact(harness)


@pytest.mark.slow
def test_a_parallel_sweep_killed_at_each_third_runs_every_cell_once(harness):
    done: dict[str, int] = {}
    for count in (2, 4):
        program = Program(harness, *EIGHT, *TWO_AT_ONCE)
        while program.process.poll() is None and program.output().count("test accuracy") < 2:
            time.sleep(0.05)
        running = workers(program)
        assert len(running) == 2
        program.process.kill()
        program.wait()
        wait_until_gone(running, 5)
        assert "another process runs the same" not in program.output()  # the locks of dead workers are free at once
        ends = {run.info.run_id: run.info.end_time for run in harness.cells() if run.data.tags.get("done")}
        assert done.items() <= ends.items()  # none of them run again
        assert len(ends) >= count
        done = ends

    program = Program(harness, *EIGHT, *TWO_AT_ONCE)
    while not (running := workers(program)) and program.process.poll() is None:
        time.sleep(0.1)
    time.sleep(3)
    for worker in running[:1]:
        with suppress(psutil.NoSuchProcess):  # all cells may be done by then
            worker.kill()
    assert program.wait() == 1  # because of the cell that cannot be built
    program = Program(harness, *EIGHT, *TWO_AT_ONCE)
    assert program.wait() == 1
    assert "7 of 8 cells are done" in program.output()
    assert "error: 1 of 8 cells failed; the same command tries them again" in program.output()
    assert "can't allocate memory" in program.output()
    runs = harness.cells()
    assert len(runs) == 7
    ends = {run.info.run_id: run.info.end_time for run in runs}
    assert done.items() <= ends.items()
    for run in runs:
        steps = [point.step for point in harness.client.get_metric_history(run.info.run_id, "train/loss")]
        assert (steps, run.info.status, run.data.tags["done"]) == ([1, 2], "FINISHED", "true")
    assert harness.parent().info.status == "FAILED"
    assert is_intact(harness)


def train_each_round(folder, barrier, rounds: int) -> None:
    harness = Harness(folder)
    for seed in range(rounds):
        barrier.wait()
        harness.train("data=mnist5k", "data.test_fraction=0.8", "trainer=smoke", "model=mlp", f"seed={seed}")


@pytest.mark.slow
@pytest.mark.night  # test_kills has one
def test_five_runs_started_by_two_processes_at_once_are_each_trained_once(harness):
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [spawn.Process(target=train_each_round, args=(harness.folder, barrier, 5)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    runs = harness.runs()
    assert sorted(int(run.data.tags["seed"]) for run in runs) == list(range(5))
    assert {run.data.tags["done"] for run in runs} == {"true"}


def hold(uri: str, ready) -> None:
    with locks.owner(Store(uri, "digitlab"), "f"):
        ready.set()
        time.sleep(600)


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_free_at_once(harness):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=hold, args=(harness.uri, ready))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    began = time.monotonic()
    with locks.owner(Store(harness.uri, "digitlab"), "f"):  # the warning that it waits would fail this test
        assert time.monotonic() - began < 1


@pytest.mark.filterwarnings("ignore:another process runs the same")
def test_the_lock_of_a_server_leaves_no_file_and_holds_though_it_was_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store, lock, first = Store("http://127.0.0.1:9", "digitlab"), filelock._unix.lock_fd_nonblocking, ExitStack()
    first.enter_context(locks.owner(store, "f"))

    def lock_late(descriptor: int) -> bool:
        first.close()  # between the opening of the file by who waits, and its lock
        return lock(descriptor)

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", lock_late)
    with locks.owner(store, "f"):
        (file,) = tmp_path.rglob("*.lock")
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(file).acquire(timeout=0)
    assert not list(tmp_path.rglob("*.lock"))


def open_each(folder, barrier, rounds: int) -> None:
    for number in range(rounds):
        barrier.wait()
        Store(f"sqlite:///{folder / str(number) / 'mlflow.db'}", "digitlab").open()


def write_rows(uri: str, barrier, rows: int) -> None:
    store = Store(uri, "digitlab")
    barrier.wait()
    store.open()
    with begin(store, "run", {"fingerprint": str(os.getpid())}) as run:
        for step in range(rows):
            run.logger.log_metrics({"loss": step / 7}, step)
            if step % 20 == 19:
                run.logger.flush()


def together(count: int, target, *arguments) -> None:
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(count)
    processes = [fork.Process(target=target, args=(arguments[0], barrier, *arguments[1:])) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


@pytest.mark.slow
def test_sixteen_processes_open_a_new_store_at_once(tmp_path):
    together(16, open_each, tmp_path, 6)
    for number in range(6):
        with sqlite3.connect(tmp_path / str(number) / "mlflow.db") as file:
            assert file.execute("select count(*) from alembic_version").fetchone() == (1,)
            assert file.execute("select count(*) from experiments where name = 'digitlab'").fetchone() == (1,)
            assert file.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_ten_processes_write_points_at_once_and_none_is_lost(harness):
    together(10, write_rows, harness.uri, 200)
    for run in harness.runs():
        points = harness.client.get_metric_history(run.info.run_id, "loss")
        assert sorted((point.step, point.value) for point in points) == [(step, step / 7) for step in range(200)]
    assert len(harness.runs()) == 10
    assert is_intact(harness)

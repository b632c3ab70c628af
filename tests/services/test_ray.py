"""Sweeps on workers of Ray: killed workers, signals, a cluster that is there, secrets, GPUs, mistakes."""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

import psutil
import pytest
from clusters import RayCluster, named, ray_cluster, wait_for_cells
from conftest import REPOSITORY, Harness
from program import Program, wait_until_gone
from servers import free_port, tracking_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.skipif(find_spec("ray") is None, reason="make test-services installs what it needs: ray"),
]
RAY = ("hydra/launcher=ray", "hydra.launcher.n_jobs=2")
TWO = ("-m", "model=mlp", "optim=sgd", "seed=0,1", "trainer.max_epochs=10", *RAY)
# What a user's own callback does, in a folder that the sweep is started in.
OWN = """
import os, signal
from pytorch_lightning.callbacks import Callback

class Die(Callback):
    def __init__(self, seed):
        self.seed = seed

    def on_train_start(self, trainer, pl_module):
        if os.environ.get("DIES") == str(self.seed):
            os.kill(os.getpid(), signal.SIGKILL)
        print("sees GPU", repr(os.environ.get("CUDA_VISIBLE_DEVICES")), "and", os.environ["OMP_NUM_THREADS"], "threads")
"""


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("digitlab-ray-*"))


def check_all_done(harness: Harness, count: int, epochs: int) -> None:
    runs = harness.cells()
    assert len(runs) == count
    for run in runs:
        assert (run.info.status, run.data.tags["done"]) == ("FINISHED", "true")
        assert [step for step, _ in harness.history(run, "train/loss")] == list(range(1, epochs + 1))
        assert [step for step, _ in harness.history(run, "val/loss")] == list(range(epochs + 1))


def test_the_cell_of_a_killed_worker_goes_on_in_the_same_run(harness):
    before = folders()
    program = Program(harness, *TWO)
    assert program.wait_for("epoch  3/10")
    workers = wait_for_cells(2, program.process.pid, program=program)
    started = psutil.Process(program.process.pid).children(recursive=True)
    begun = {run.info.run_id for run in harness.cells()}
    workers[0].kill()
    assert program.wait(300) == 0
    said = program.output()
    assert said.count("its worker process died (WorkerCrashedError); another one goes on with it") == 1
    assert said.count("continuing mlp-sgd-") == 1
    assert "2 of 2 cells have ended\n" in said
    assert begun <= {run.info.run_id for run in harness.cells()}
    check_all_done(harness, 2, 10)
    wait_until_gone(started, 5)
    assert folders() <= before


def test_a_cell_whose_workers_die_again_and_again_is_given_up(harness, monkeypatch):
    harness.folder.mkdir()
    (harness.folder / "own.py").write_text(OWN)
    monkeypatch.chdir(harness.folder)
    monkeypatch.setenv("DIES", "1")
    own = ("+trainer.callbacks.die={_target_: own.Die, seed: ${seed}}",)
    program = Program(harness, *TWO, *own)
    assert program.wait(300) == 1
    said = program.output()
    assert said.count("another one goes on with it") == 3
    assert "its worker process died (WorkerCrashedError), 4 times" in said
    assert "error: 1 of 2 cells failed; the same command tries them again" in said
    assert "Traceback" not in said
    assert sorted(run.info.status for run in harness.cells()) == ["FINISHED", "KILLED"]
    assert harness.parent().info.status == "FAILED"
    monkeypatch.delenv("DIES")
    program = Program(harness, *TWO, *own)
    assert program.wait(300) == 0
    check_all_done(harness, 2, 10)


@pytest.mark.parametrize(
    ("number", "whole_group", "code"), [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_workers_and_cluster_and_the_same_command_continues(harness, number, whole_group, code):
    before = folders()
    program = Program(harness, *TWO)
    assert program.wait_for("epoch  2/10")
    started = psutil.Process(program.process.pid).children(recursive=True)
    assert len(named("ray::digitlab_cell", program.process.pid)) == 2
    if whole_group:
        os.killpg(program.process.pid, number)
    else:
        program.process.send_signal(number)
    assert program.wait(20) == code
    wait_until_gone(started, 5)
    assert program.output().count("interrupted; the same command continues after the last finished epoch") == 1
    assert "SIGTERM received" not in program.output()  # a page of Ray's
    assert "Traceback" not in program.output()
    assert folders() <= before
    assert harness.parent().info.status == "KILLED"
    assert {run.info.status for run in harness.cells()} == {"KILLED"}
    if whole_group:
        program = Program(harness, *TWO)
        assert program.wait(300) == 0
        check_all_done(harness, 2, 10)


def test_workers_do_not_outlive_a_sweep_that_is_killed(harness):
    program = Program(harness, *TWO)
    assert program.wait_for("epoch  2/10")
    workers = named("ray::digitlab_cell", program.process.pid)
    assert len(workers) == 2
    program.process.kill()
    wait_until_gone(workers, 5)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster("--num-cpus=2", "--num-gpus=2") as cluster:
        yield cluster


@pytest.fixture
def join(cluster, monkeypatch) -> tuple[str, ...]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, cluster.environment[name])
    return ("hydra/launcher=ray", f"hydra.launcher.address={cluster.address}")


def test_a_cluster_goes_on_after_a_sweep_and_keeps_no_password(harness, cluster, join, tmp_path, monkeypatch):
    harness.folder.mkdir()
    (harness.folder / "own.py").write_text(OWN)
    monkeypatch.chdir(harness.folder)
    password, key = token_hex(), token_hex()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        address = server.uri.replace("//", f"//me:{password}@")
        one = ("-m", "model=mlp", "seed=0,1", "trainer.max_epochs=2", f"tracking.uri={address}")
        program = Program(harness, *one, *join, "+trainer.callbacks.see={_target_: own.Die, seed: 7}")
        wait_for_cells(2, *[each.pid for each in cluster.machines], program=program)
        shown = [" ".join(each.cmdline()) for each in named("", *[each.pid for each in cluster.machines])]
        assert program.wait(300) == 0, program.output()
        harness.uri = server.uri
        check_all_done(harness, 2, 2)
    assert len(cluster.ask("ray.nodes()")) == 1
    assert program.output().count("sees GPU '' and 1 threads") == 2  # this machine has none
    jobs = cluster.ask("[each['Entrypoint'] for each in ray._private.state.jobs()]")
    files = [file for file in [*cluster.folder.rglob("*"), *tmp_path.rglob("*")] if file.is_file()]
    for secret in (password, key):
        assert secret not in program.output() + str(shown) + str(jobs)
        assert [file for file in files if secret.encode() in file.read_bytes()] == []
    assert "digitlab sweep" in jobs


def test_each_cell_sees_the_gpu_that_it_was_given(harness, join, monkeypatch):
    harness.folder.mkdir()
    (harness.folder / "own.py").write_text(OWN)
    # A machine without a GPU plans cells on the CPU, so the one that plans has to see one too.
    (harness.folder / "sitecustomize.py").write_text("import torch; torch.cuda.is_available = lambda: True")
    monkeypatch.chdir(harness.folder)
    monkeypatch.setenv("PYTHONPATH", str(harness.folder))
    two = ("-m", "model=mlp", "seed=0,1", "trainer.max_epochs=3", *join)
    see = "+trainer.callbacks.see={_target_: own.Die, seed: 7}"
    program = Program(harness, *two, see)
    assert program.wait(300) == 0
    assert {word for word in program.output().split() if word in ("'0'", "'1'")} == {"'0'", "'1'"}
    check_all_done(harness, 2, 3)


@pytest.mark.parametrize("found", range(1, 9))
@pytest.mark.parametrize("n_jobs", range(1, 20))
def test_the_gpus_have_room_for_as_many_cells_as_are_to_run_at_once(monkeypatch, found, n_jobs):
    of_ray = pytest.importorskip("digitlab.sweep.ray_cluster")
    monkeypatch.setattr(of_ray.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(of_ray.ray, "cluster_resources", lambda: {"GPU": float(found)})
    share = round(of_ray._gpus(None, n_jobs) * 10_000)  # as Ray counts
    assert 0 < share <= 10_000
    assert found * (10_000 // share) >= n_jobs or (share == 10_000 and found >= n_jobs)


@pytest.mark.parametrize("kind", ["closed", "silent", "another program"])
def test_an_address_without_a_cluster_is_one_line_within_15_seconds(harness, kind, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, suppress(FileNotFoundError):
        port = free_port() if kind == "closed" else silent.getsockname()[1]
        if kind == "another program":
            with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
                check_refused(harness, server.uri.removeprefix("http://"))
        else:
            check_refused(harness, f"127.0.0.1:{port}")


def check_refused(harness: Harness, address: str) -> None:
    program = Program(harness, *TWO, f"hydra.launcher.address={address}")
    assert program.wait_for("to run, unknown time")
    began = time.monotonic()
    assert program.wait(60) == 1
    assert time.monotonic() - began < 15 + 20  # while Ray loads, and the program ends
    *_, line = program.output().splitlines()
    assert line.startswith(f"error: hydra.launcher.address={address}: "), program.output()
    assert "Traceback" not in program.output()
    assert harness.runs() == []


@pytest.mark.parametrize(
    ("told", "line"),
    [("hydra.launcher.cpus=99", "error: hydra.launcher.cpus=99: the largest machine of the cluster has 2"),
     ("hydra.launcher.gpus=1", "error: hydra.launcher.gpus=1: start the sweep on a machine that has a GPU too")],
)  # fmt: skip
def test_a_cell_that_no_machine_can_take_is_refused(harness, join, told, line):
    result = harness.cli("-m", "model=mlp", "data=mnist5k", "trainer=smoke", *join, told)
    assert (result.returncode, result.stderr.strip().splitlines()[-1]) == (1, line)
    assert harness.runs() == []


def test_a_worker_without_the_folder_of_the_sweep_says_so(tmp_path, monkeypatch):
    from digitlab.sweep.ray_task import make_task, origin

    folder = tmp_path / "sweep"
    folder.mkdir()
    monkeypatch.chdir(folder)
    there = origin(1, has_gpu=False)
    monkeypatch.chdir(REPOSITORY)
    folder.rmdir()
    said = make_task()(there, b"", [], 0)
    assert said == f"host {socket.gethostname()}: has no folder {folder}, which each machine needs as this one has it"

"""Sweeps as jobs of a real SLURM: what is done to them, and what is left: a row of the table in docs/reliability.md."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster import NODES, Cluster, missing_slurm
from conftest import REPOSITORY
from fault_run import SETTINGS, Oracle
from outages import Outcome, check, printed
from program import Program
from swept import SHORT, Swept

pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.skipif(bool(missing_slurm()), reason=f"make test-services installs what it needs: {missing_slurm()}"),
]
ENDLESS = "trainer.max_epochs=100000"
TWO = "data.drop_last=false,true"  # two cells of the same points: the batches divide the images
FOUR = (TWO, "early_stopping.patience=3000,4000")  # more epochs than there are


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("short"), overrides=[SHORT])


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, Outcome]]:
    with printed("what is done") as rows:
        yield rows


@pytest.fixture(autouse=True)
def _no_jobs_left(cluster) -> Iterator[None]:
    yield
    cluster.end_jobs()


@pytest.fixture
def swept(harness, cluster) -> Swept:
    return Swept(harness, cluster, TWO)


def test_a_sweep_is_one_array(harness, cluster, short, rows):
    swept = Swept(harness, cluster, *FOUR)
    driver = swept.start()
    assert driver.wait(300) == 0, driver.output()
    assert "Traceback" not in driver.output()
    print(driver.output())
    jobs = {run.data.tags["job"] for run in harness.runs() if "job" in run.data.tags}
    (array,) = {job.partition("_")[0] for job in jobs}
    assert jobs == {f"{array}_{number}" for number in range(4)}
    check(rows, "a sweep of four cells", swept.outcome(0, short, count=4))


def test_a_job_that_is_requeued_continues_its_run(swept, cluster, short, rows):
    driver = swept.start()
    swept.wait_for(swept.trained, driver)
    job = swept.trained()[0]
    cluster.ask("scontrol", "requeue", job)
    assert swept.wait(driver) == 0, driver.output()
    check(rows, "scontrol requeue of a running job", swept.outcome(0, short, swept.not_continued(job)))


@pytest.mark.night
def test_jobs_that_make_room_for_another_continue_their_runs(swept, cluster, short, rows):
    driver = swept.start()
    jobs = swept.hold(2)
    urgent = ["--partition=urgent", "--nodes=2", "--cpus-per-task=8", "--ntasks-per-node=1", "sleep", "5"]
    blocker = subprocess.Popen(["srun", *urgent], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert swept.wait(driver) == 0, driver.output()
    assert blocker.wait(10) == 0
    check(rows, "jobs preempted by another one", swept.outcome(0, short, *map(swept.not_continued, jobs)))


def test_a_job_that_its_time_limit_ends_continues_its_run(harness, cluster, short, rows):
    swept = Swept(harness, cluster)
    driver = swept.start("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=1")
    (process,) = swept.hold().values()  # until SLURM lets it go on, to tell it to end
    swept.wait_for(lambda: is_stopped(process), driver)
    swept.wait_for(lambda: not is_stopped(process), driver, 200)
    assert swept.wait(driver) == 0, driver.output()
    (run,) = swept.harness.cells()
    log = swept.log(run.data.tags["job"])
    ended = log.count("this job is timed-out")
    wrong = "" if ended and "continuing " in log and "Traceback" not in log else log
    check(rows, "a time limit that ends the job", swept.outcome(0, short, wrong, count=1))


def is_stopped(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_STOPPED
    return False


def test_a_job_that_is_cancelled_ends_the_sweep_with_its_name(swept, cluster, short, rows):
    driver = swept.start()
    swept.wait_for(swept.trained, driver)
    job = swept.trained()[0]
    cluster.ask("scancel", job)
    check_one_failed(rows, "scancel of a running job", swept, driver, short, job, "CANCELLED")


@pytest.mark.night
def test_a_job_that_is_cancelled_before_it_starts_ends_the_sweep_too(swept, cluster, short, rows):
    driver = swept.start("hydra.launcher.array_parallelism=1")
    swept.wait_for(lambda: len(cluster.jobs()) > 1 and "RUNNING" in cluster.jobs().values(), driver)
    job = next(job for job, state in cluster.jobs().items() if state == "PENDING")
    cluster.ask("scancel", job)
    check_one_failed(rows, "scancel of a pending job", swept, driver, short, job, "CANCELLED")


@pytest.mark.night
def test_a_job_whose_process_dies_ends_the_sweep_with_its_name(swept, short, rows):
    driver = swept.start()
    swept.wait_for(swept.trained, driver)
    job = swept.trained()[0]
    swept.process(job).kill()
    check_one_failed(rows, "kill -9 of a job's process", swept, driver, short, job, "FAILED")


def check_one_failed(rows, name: str, swept: Swept, driver: Program, oracle: Oracle, job: str, state: str) -> None:
    """Check that the sweep ends and names the job and its output, and that the same command makes up for it."""
    code, said = driver.wait(300), driver.output()
    told = re.search(rf"job {job} ended: {state}; its output: (\S+)", said)
    wrong = [] if told and "1 of 2 cells failed; the same command tries them again" in said else [said]
    wrong += ["RUNNING" for run in swept.harness.cells() if run.info.status == "RUNNING"]
    wrong += [] if told and (Path(told[1]).exists() or "pending" in name) else ["no output"]
    seconds = time.monotonic() - swept.began
    again = swept.start()
    wrong += [] if again.wait(300) == 0 else [again.output()]
    check(rows, name, swept.outcome(code, oracle, "" if code == 1 else f"exit code {code}", *wrong, seconds=seconds))


def test_the_jobs_of_a_node_that_goes_away_continue_on_another(swept, cluster, short, rows):
    driver = swept.start()
    (job, _), (_, other) = swept.hold(2).items()
    cluster.lose_node(NODES[0])
    other.resume()
    try:
        assert swept.wait(driver) == 0, driver.output()
    finally:
        cluster.start_node(NODES[0])
    check(rows, "a node that goes away, and another one", swept.outcome(0, short, swept.not_continued(job)))


@pytest.mark.night
def test_the_jobs_of_nodes_that_go_away_continue_when_they_are_back(swept, cluster, short, rows):
    driver = swept.start()
    jobs = swept.hold(2)
    for node in NODES:
        cluster.lose_node(node)
    assert driver.wait_for("2 pending")
    for node in NODES:
        cluster.start_node(node)
    assert swept.wait(driver) == 0, driver.output()
    check(rows, "all nodes gone, then back", swept.outcome(0, short, *map(swept.not_continued, jobs)))


@pytest.mark.parametrize(
    ("name", "number"),
    [pytest.param("Ctrl-C", signal.SIGINT, marks=pytest.mark.night), ("kill -9", signal.SIGKILL)],
)
def test_jobs_go_on_without_their_sweep_and_get_no_twins(name, number, swept, cluster, short, rows):
    driver = swept.start("hydra.launcher.array_parallelism=1")  # one is running, the other pending
    swept.wait_for(lambda: len(cluster.jobs()) > 1 and swept.trained(), driver)
    jobs = cluster.jobs()
    driver.process.send_signal(number)
    code = driver.wait()
    wrong = [] if code in (130, -9) else [driver.output()]
    again = swept.start("hydra.launcher.array_parallelism=1")
    wrong += [] if swept.wait(again) == 0 else [again.output()]
    wrong += [job for job in cluster.jobs() if job not in jobs]
    check(rows, f"{name} of the sweep", swept.outcome(code, short, *wrong))


def test_a_sweep_that_detaches_says_how_it_stands(swept, cluster, short, rows):
    def tell(*more: str) -> tuple[int, str]:
        program = swept.start("hydra.launcher.array_parallelism=1", *more)
        return program.wait(), program.output()

    code, said = tell("sweep.detach=true")
    wrong = [] if (code, len(said.splitlines())) == (0, 1) and "2 jobs submitted" in said else [said]
    jobs = cluster.jobs()
    wrong += [] if swept.harness.parent().info.status == "SCHEDULED" else ["status of the sweep"]
    (held,) = swept.hold().values()
    code, said = tell("sweep.detach=true")
    wrong += [] if code == 0 and "0 of 2 cells are done, 1 pending (JobArrayTaskLimit), 1 running" in said else [said]
    pending = next(job for job, state in cluster.jobs().items() if state == "PENDING")
    cluster.ask("scancel", pending)
    held.resume()
    while set(cluster.jobs().values()) & {"RUNNING", "COMPLETING"}:
        time.sleep(1)
    code, said = tell("sweep.detach=true")
    wrong += [] if code == 1 and "1 of 2 cells failed" in said and pending in said else [said]
    wrong += [job for job in cluster.jobs() if job not in jobs]
    code, said = tell("sweep.detach=true")
    wrong += [] if code == 0 and "1 of 2 cells are done, 1 job submitted" in said else [said]
    code, said = tell()
    wrong += [] if code == 0 and "2 of 2 cells are done" in said else [said]
    check(rows, "sweep.detach=true, a job cancelled, then waited for", swept.outcome(code, short, *wrong))


@pytest.mark.usefixtures("cluster")
def test_a_script_of_the_users_own_leaves_no_checkpoint_of_lightnings(harness, tmp_path, monkeypatch):
    for name, place in harness.places.items():
        monkeypatch.setenv(name, place)
    script = tmp_path / "own.sh"
    train = f"{sys.executable} {REPOSITORY}/src/train.py {shlex.join([*SETTINGS, ENDLESS])}"
    script.write_text(f"#!/bin/bash\n#SBATCH --signal=SIGUSR1@60 --time=2\nsrun {train}\n")
    subprocess.run(["sbatch", "--wait", f"--chdir={tmp_path}", "--output=log", script], timeout=300)
    assert "interrupted; the same command continues after the last finished epoch" in (tmp_path / "log").read_text()
    assert not [*tmp_path.rglob("hpc_ckpt*")]
    assert [run.info.status for run in harness.runs()] == ["KILLED"]

"""Cells as cluster jobs: through submitit's local executor, and through a fake SLURM of three scripts.

tests/services has a real one."""

import json
import signal
import sys
import time
from pathlib import Path
from secrets import token_hex

import pytest
from conftest import REPOSITORY, Harness
from mlflow.artifacts import download_artifacts
from program import Program, processes
from servers import tracking_server

pytestmark = pytest.mark.slow

# One cell that can be trained, and one whose network cannot be built.
TWO = (
    "-m", "model=mlp", "optim=sgd", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke",
    "model.hidden=[{units: 8}],[{units: 8, kernel: 3}]",
)  # fmt: skip

# sbatch runs the jobs of the array at once, one after the other, and again those that are killed; srun drops its own
# options.
SBATCH = r"""
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
array = re.search(r"--array=0-(\d+)", text)
own = [f"SLURM_JOB_ID=7{i} SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID={i}" for i in range(int(array[1]) + 1)] if array \
    else ["SLURM_JOB_ID=7"]
job = f"bash {sys.argv[-1]}; if [ $? = 137 ]; then bash {sys.argv[-1]}; fi"
jobs = "; ".join(f"export {each}; {job}" for each in own)
one = dict(SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0",
           SLURM_JOB_NUM_NODES="1", SLURM_JOB_NODELIST="here")
runner = subprocess.Popen(["bash", "-c", jobs], env={**os.environ, **one}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
ids = [f"7_{i}" for i in range(len(own))] if array else ["7"]
mark = re.search(r"--comment=(\S+)", text)[1]
open(os.path.dirname(sys.argv[0]) + "/jobs", "w").write(f"{' '.join(ids)}:{runner.pid}:{mark}")
print("Submitted batch job 7")
"""
SRUN = r"""
import os, sys
start = next(i for i, word in enumerate(sys.argv) if "python" in word)
os.execvp(sys.argv[start], sys.argv[start:])
"""
SQUEUE = r"""
import os, sys
folder = os.path.dirname(sys.argv[0])
jobs, runner, mark = open(f"{folder}/jobs").read().split(":")
stat = f"/proc/{runner}/stat"
if os.path.exists(stat) and open(stat).read().split()[2] != "Z":
    print("\n".join(f"{job}|RUNNING|None|{mark}" for job in jobs.split()))
"""


@pytest.fixture
def cluster(tmp_path):
    """The folder of the fake sbatch, srun and squeue."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE)):
        (folder / name).write_text(f"#!{sys.executable}\n{script}")
        (folder / name).chmod(0o755)
    return folder


def check_one_done_one_failed(harness: Harness, result) -> None:
    """Check that one cell is done and the other failed with a reason, in the output, parent run and exit code."""
    assert result.returncode == 1
    assert "1 of 2 cells are done" in result.stdout
    assert "error: 1 of 2 cells failed; the same command tries them again" in result.stderr
    (child,) = harness.cells()
    parent = harness.parent()
    assert child.data.tags["done"] == "true"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FAILED"
    file = download_artifacts(run_id=parent.info.run_id, artifact_path="sweep.json", tracking_uri=harness.uri)
    recorded = json.loads(Path(file).read_text())
    assert [cell["status"] for cell in recorded] == ["done", "failed"]
    assert "kernel: unknown key of a dense" in recorded[1]["reason"]


@pytest.mark.night
def test_cells_run_as_submitits_local_jobs(harness, tmp_path):
    local = ("hydra/launcher=submitit_local", f"hydra.launcher.submitit_folder={tmp_path}/jobs/%j")
    result = harness.cli(*TWO, *local, PYTHONPATH=str(REPOSITORY / "src"))
    check_one_done_one_failed(harness, result)


def test_cells_run_as_jobs_of_a_cluster_and_none_of_their_files_holds_the_servers_password(harness, tmp_path, cluster):
    folder = f"hydra.launcher.submitit_folder={tmp_path}/jobs/%j"
    environment = {"PATH": f"{cluster}:/usr/bin:/bin", "USER": "me", "TMPDIR": str(tmp_path)}
    password = token_hex()  # and nothing that stands in this file, of which a run may store the changes
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        address = f"tracking.uri={server.uri.replace('//', f'//me:{password}@')}"
        harness.uri = "sqlite:////no/such/store.db"  # the environment's, which the address given overrides
        result = harness.cli(
            *TWO, "hydra/launcher=slurm", "hydra.launcher.partition=short", folder, address, **environment
        )
        harness.uri = server.uri
        check_one_done_one_failed(harness, result)
    script = next(tmp_path.rglob("7_submission.sh")).read_text()
    for line in ("--partition=short", "--cpus-per-task=4", "--mem=8GB", "--time=240", "--job-name=digitlab"):
        assert f"#SBATCH {line}\n" in script
    assert f'export PYTHONPATH="{REPOSITORY}/src"\n' in script
    assert password not in result.stdout + result.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {".pkl", ".json", ".sqlite"} <= {file.suffix for file in files}
    assert [file for file in files if password.encode() in file.read_bytes()] == []


def test_a_job_that_slurm_ends_stays_with_its_run_closed_and_continues_it_when_it_is_queued_again(
    harness, tmp_path, cluster
):
    small = ("data=mnist5k", "data.test_fraction=0.8", "early_stopping.patience=null")
    slow = ("-m", "model=mlp", "trainer=cpu", "trainer.max_epochs=100", *small)
    jobs = ("hydra/launcher=slurm", f"hydra.launcher.submitit_folder={tmp_path}/jobs/%j")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{cluster}:/usr/bin:/bin")
        driver = Program(harness, *slow, *jobs)
        deadline = time.monotonic() + 120
        while not (points := [len(harness.history(run, "val/loss")) for run in harness.cells()]) or points[0] < 3:
            assert time.monotonic() < deadline, driver.output()
            time.sleep(0.5)
        (job,) = processes(lambda each: f"_submit {tmp_path}/jobs" in " ".join(each.cmdline()))
        job.send_signal(signal.SIGTERM)
        while harness.cells()[0].info.status == "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert harness.cells()[0].info.status == "KILLED"
        time.sleep(2)
        job.kill()  # the end of SLURM's patience
        assert driver.wait(300) == 0
    (run,) = harness.cells()
    assert run.data.tags["done"] == "true"
    assert [step for step, _ in harness.history(run, "val/loss")] == list(range(101))


def test_the_output_of_jobs_is_kept_in_mlruns(harness):
    said = harness.cli("hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher", "--resolve").stdout
    assert f"submitit_folder: {REPOSITORY}/mlruns/submitit/%j\n" in said

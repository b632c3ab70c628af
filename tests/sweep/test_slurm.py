"""Cells as cluster jobs: through submitit's local executor, and through a fake SLURM of three scripts."""

import json
import sys

import mlflow
import pytest
from conftest import REPOSITORY, Harness

pytestmark = pytest.mark.slow

# One cell that can be trained, and one whose network cannot be built.
TWO = (
    "-m", "model=mlp", "optim=sgd", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke",
    "model.hidden=[{units: 8}],[{units: 8, kernel: 3}]",
)  # fmt: skip

# sbatch runs the jobs of the array at once, one after the other; srun drops its own options.
SBATCH = r"""
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
last = int(re.search(r"--array=0-(\d+)", text)[1])
jobs = " && ".join(f"SLURM_JOB_ID=7{i} SLURM_ARRAY_TASK_ID={i} bash {sys.argv[-1]}" for i in range(last + 1))
one = dict(SLURM_ARRAY_JOB_ID="7", SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_NODEID="0",
           SLURM_JOB_NUM_NODES="1", SLURM_JOB_NODELIST="here")
subprocess.Popen(["bash", "-c", jobs], env={**os.environ, **one}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""
SRUN = r"""
import os, sys
start = next(i for i, word in enumerate(sys.argv) if "python" in word)
os.execvp(sys.argv[start], sys.argv[start:])
"""
SACCT = r"""
print("JobID|State|NodeList")
for i in range(9):
    print(f"7_{i}|RUNNING|here")
"""


@pytest.fixture
def cluster(tmp_path):
    """The folder of the fake sbatch, srun and sacct."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(f"#!{sys.executable}\n{script}")
        (folder / name).chmod(0o755)
    return folder


def check_one_done_one_failed(harness: Harness, result) -> None:
    """Check that one cell is done and the other failed with a reason, in the output, parent run and exit code."""
    assert result.returncode == 1
    assert "1 of 2 cells are done" in result.stdout
    assert "error: 1 of 2 cells failed; the same command tries them again" in result.stderr
    (child,) = [run for run in harness.runs() if "model" in run.data.tags]
    (parent,) = [run for run in harness.runs() if "model" not in run.data.tags]
    assert child.data.tags["done"] == "true"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FAILED"
    recorded = json.loads(mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/sweep.json"))
    assert [cell["status"] for cell in recorded] == ["done", "failed"]
    assert "kernel: unknown key of a dense" in recorded[1]["reason"]


def test_cells_run_as_submitits_local_jobs(harness, tmp_path):
    local = ("hydra/launcher=submitit_local", f"hydra.launcher.submitit_folder={tmp_path}/jobs/%j")
    result = harness.cli(*TWO, *local, PYTHONPATH=str(REPOSITORY / "src"))
    check_one_done_one_failed(harness, result)


def test_cells_run_as_jobs_of_a_cluster(harness, tmp_path, cluster):
    folder = f"hydra.launcher.submitit_folder={tmp_path}/jobs/%j"
    environment = {"PATH": f"{cluster}:/usr/bin:/bin", "USER": "me"}
    result = harness.cli(*TWO, "hydra/launcher=slurm", "hydra.launcher.partition=short", folder, **environment)
    check_one_done_one_failed(harness, result)
    script = next(tmp_path.rglob("7_submission.sh")).read_text()
    for line in ("--partition=short", "--cpus-per-task=4", "--mem=8GB", "--time=240", "--job-name=digitlab"):
        assert f"#SBATCH {line}\n" in script
    assert f'export PYTHONPATH="{REPOSITORY}/src"\n' in script


def test_the_output_of_jobs_is_kept_in_mlruns(harness):
    said = harness.cli("hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher", "--resolve").stdout
    assert f"submitit_folder: {REPOSITORY}/mlruns/submitit/%j\n" in said

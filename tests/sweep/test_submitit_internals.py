"""What sweep/submitit_internals.py takes for granted of submitit and of Hydra's launcher for it."""

import os
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import REPOSITORY
from omegaconf import OmegaConf

from digitlab.sweep.submitit_internals import TARGET, log, result, submit


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Hydra's launcher, where sbatch only keeps what it is given."""
    for name, script in (("sbatch", 'cp "$1" "$(dirname "$0")/script"; echo Submitted batch job 7'), ("srun", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    module, _, name = TARGET.rpartition(".")
    launcher = getattr(import_module(module), name)(submitit_folder=f"{tmp_path}/jobs/%j", comment="mine")
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    launcher.setup(hydra_context=None, task_function=print, config=config)
    return launcher


def test_jobs_are_submitted_without_waiting_and_what_they_leave_is_found(launcher, tmp_path):
    assert submit(launcher, [["a=1"], ["a=2"]], 0, "mark") == ["7_0", "7_1"]
    script = (tmp_path / "script").read_text()
    assert "--comment='mine mark'" in script
    assert "--array=0-1%2" in script
    written = script.partition("--error=")[2].split()[0].replace("%A_%a", "7_0").replace("%A", "7")
    assert str(log(launcher, "7_0")) == written.replace(".err", ".out")
    assert result(launcher, "7_1") is None
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    command = [sys.executable, "-m", "submitit.core._submit", f"{tmp_path}/jobs/%j"]
    environment = os.environ | job | {"PYTHONPATH": f"{REPOSITORY}/src"}
    assert subprocess.run(command, env=environment, capture_output=True).returncode
    assert result(launcher, "7_1") == "AssertionError"  # of the launcher, which has no Hydra there


def test_a_single_cell_is_a_job_and_no_array(launcher, tmp_path):
    assert submit(launcher, [["a=1"]], 0, "mark") == ["7"]
    assert "--array" not in (tmp_path / "script").read_text()

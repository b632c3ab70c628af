"""What the user's environment says to a library neither ends a run nor changes it nor makes it noisy."""

import os
import subprocess
import sys
import warnings

import pytest

from digitlab.platform.environment import shielded
from digitlab.plots import run_figures

RUN = ("data=mnist5k", "model=mlp", "trainer=cpu", "trainer.max_epochs=1")
HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
    "PL_GLOBAL_SEED": "abc",
    "LOCAL_RANK": "abc",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "abc",
    "SLURM_JOB_NAME": "train",
    "MLFLOW_RUN_ID": "0" * 32,
    "MLFLOW_EXPERIMENT_NAME": "other",
    "MLFLOW_EXPERIMENT_ID": "77",
    "MLFLOW_REGISTRY_URI": "http://127.0.0.1:1",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "abc",
    "MLFLOW_LOGGING_LEVEL": "abc",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "abc",
    "MLFLOW_TRACKING_USERNAME": "somebody",
    "GIT_DIR": "/no/such",
    "GIT_PYTHON_REFRESH": "raise",
    "GIT_PYTHON_GIT_EXECUTABLE": "/no/such",
    "TORCH_LOGS": "abc",
    "OMP_NUM_THREADS": "abc",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONIOENCODING": "ascii",
    "COLUMNS": "0",
    "TERM": "dumb",
    "TMPDIR": "/no/such",
    "HOME": "/proc",
    "TZ": "abc",
    "FORCE_COLOR": "1",
}


@pytest.mark.slow
def test_a_hostile_environment_changes_nothing_of_a_run(harness, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "srun").chmod(0o755)
    harness.folder.mkdir()
    (harness.folder / "matplotlibrc").write_text("text.usetex: True\nfont.size: abc\nbackend: abc\n")
    (harness.folder / "hpc_ckpt_1.ckpt").write_text("what Lightning leaves, and loads, where a cluster warns a job")
    run = harness.cli(*RUN, **HOSTILE, PATH=str(tmp_path / "bin"))  # where there is no git
    assert (run.returncode, run.stderr) == (0, "")
    assert "warning" not in run.stdout
    assert "Traceback" not in run.stdout
    assert len(run.stdout.splitlines()) < 30
    harness.train(*RUN, "rerun=true")
    hostile, undisturbed = sorted(harness.runs(), key=lambda run: run.info.start_time)
    for key in ("train/loss", "val/loss", "test/loss"):
        assert hostile.data.metrics[key] == pytest.approx(undisturbed.data.metrics[key], rel=1e-2)  # other threads


@pytest.mark.parametrize(
    ("starter", "variables"),
    [
        ("torchrun", {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}),
        ("srun", {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}),
        ("mpirun", {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}),
    ],
)
def test_one_of_several_processes_is_refused_in_one_line(harness, monkeypatch, starter, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    end = harness.main(*RUN)
    assert f": {starter} started several processes, and a run is one" in end
    assert "\n" not in end
    assert not harness.folder.exists()


def test_what_a_library_may_not_read_is_hidden_and_then_there_again(monkeypatch):
    for name, value in (HOSTILE | {"WORLD_SIZE": "2"}).items():  # which alone says nothing
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with warnings.catch_warnings(), shielded():
        kept = {"MLFLOW_TRACKING_USERNAME", "PYTHONIOENCODING", "TERM", "TMPDIR", "HOME", "TZ", "FORCE_COLOR",
                "SLURM_JOB_NAME", "GIT_PYTHON_REFRESH", "PYTHONOPTIMIZE"}  # fmt: skip
        assert kept == HOSTILE.keys() & os.environ.keys()
        assert os.environ["GIT_PYTHON_REFRESH"] == "quiet"
        assert not any(action == "error" for action, *_ in warnings.filters)
    assert dict(os.environ) == before


def test_a_notebooks_backend_stays_where_it_can_be_loaded(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib.backends.backend_agg")
    with shielded():
        assert "MPLBACKEND" in os.environ


def test_a_figure_is_the_same_whatever_matplotlibrc_says(tmp_path):
    import matplotlib

    curves = {"val/loss": ([0, 1], [2.0, 1.0])}
    plain, styled = tmp_path / "plain.png", tmp_path / "styled.png"
    run_figures.curves(curves, "$ 5").savefig(plain)
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "savefig.dpi": 7, "font.size": 30}):
        run_figures.curves(curves, "$ 5").savefig(styled)
    assert plain.read_bytes() == styled.read_bytes()


def test_signs_that_an_encoding_lacks_are_written_in_ascii():
    code = "from digitlab.platform.environment import shielded\nwith shielded(): print('7 × 3, 0.5 ± 0.1 … é ┃')\n"
    source = os.path.dirname(os.path.dirname(os.path.dirname(sys.modules["digitlab.platform"].__file__)))
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": source}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert said.stdout == "7 x 3, 0.5 +- 0.1 ... e ?\n"

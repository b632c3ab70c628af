"""Sweeps through the command line: planned, run, interrupted, continued, extended; and no cell twice."""

import gc
import json
import os
import resource
import signal
import weakref

import mlflow
import numpy as np
import psutil
import pytest
import pytorch_lightning as pl
from conftest import Harness
from hydra.core.hydra_config import HydraConfig

from digitlab.platform import machine
from digitlab.training import run as training_run
from hydra_plugins.digitlab_sweeper import sweeper

CELLS = ("-m", "model=mlp", "optim=adam,sgd", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke")
NAMES = {f"mlp-{optim}-s{seed}-mnist5k-data.test_fraction=0.8-smoke" for optim in ("adam", "sgd") for seed in (0, 1)}


def sweep_json(parent) -> dict[str, dict]:
    return {
        cell["name"]: cell for cell in json.loads(mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/sweep.json"))
    }


def test_a_dry_run_prints_the_plan_and_does_nothing(harness, capsys):
    assert harness.main(*CELLS, "sweep.dry_run=true") is None
    assert "2 cells: 0 done, 0 to resume, 2 to run, unknown time" in capsys.readouterr().out
    assert not harness.folder.exists()


def test_values_of_the_command_line_stand_in_place_of_the_sweep_files(harness, monkeypatch, capsys):
    monkeypatch.setattr(sweeper, "MOST_CELLS", 4)
    arguments = ("-m", "sweep=smoke", "model=mlp,cnn_pool", "optim=adam,sgd", "data=mnist5k", "sweep.dry_run=true")
    assert harness.main(*arguments) is None
    assert "sweep smoke: 4 cells" in capsys.readouterr().out
    assert "8 cells: allowed: 4" in harness.main(*arguments, "seed=0,1")


@pytest.mark.slow
def test_cells_leave_nothing_in_memory(harness, monkeypatch):
    fit, trainers, trimmed = pl.Trainer.fit, [], []

    def recording_fit(trainer, *args, **kwargs):
        trainers.append(weakref.ref(trainer))
        return fit(trainer, *args, **kwargs)

    monkeypatch.setattr(pl.Trainer, "fit", recording_fit)
    monkeypatch.setattr(machine, "trim_malloc", lambda: trimmed.append(True))
    assert harness.main(*CELLS) is None
    gc.collect()
    assert [trainer() for trainer in trainers] == [None, None]
    assert trimmed == [True, True]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A harness with a sweep of two optimizers x two seeds, after a single run of its first cell."""
    harness = Harness(tmp_path_factory.mktemp("swept") / "harness", pictures=False)
    assert harness.main(*CELLS[1:2], "optim=adam", *CELLS[3:]) is None
    assert harness.main(*CELLS, "seed=0,1") is None
    return harness


def test_every_cell_is_run_once_under_one_parent_except_one_that_was_done_before(swept):
    children, parent = swept.cells(), swept.parent()
    assert sorted(run.info.run_name for run in children) == sorted(NAMES)
    parents = [run.data.tags.get("mlflow.parentRunId") for run in children]
    assert sorted(parents, key=bool) == [None, *[parent.info.run_id] * 3]
    assert (parent.info.status, parent.data.tags["done"]) == ("FINISHED", "true")
    recorded = sweep_json(parent)
    for run in children:
        cell = recorded[run.info.run_name]
        assert cell["run_id"] == run.info.run_id
        assert cell["fingerprint"] == run.data.tags["fingerprint"]
        assert (cell["status"], cell["test_acc"]) == ("done", run.data.metrics["test/acc"])


def test_done_cells_are_neither_run_nor_planned_again(swept, capsys):
    assert swept.main(*CELLS, "seed=0,1") is None
    said = capsys.readouterr().out
    assert "4 cells: 4 done, 0 to resume, 0 to run, about 0 s" in said
    assert "4 of 4 cells are done" in said
    assert len(swept.runs()) == 5
    swept.main(*CELLS, "seed=0,1,2", "sweep.dry_run=true")
    assert "6 cells: 4 done, 0 to resume, 2 to run, about" in capsys.readouterr().out


def test_seeds_are_paired_across_optimizers(swept):
    untrained = {}
    for run in swept.cells():
        first = swept.client.get_metric_history(run.info.run_id, "val/loss")[0]
        untrained[run.data.tags["optim"], run.data.tags["seed"]] = first.value
    assert untrained["adam", "0"] == untrained["sgd", "0"] != untrained["adam", "1"] == untrained["sgd", "1"]


@pytest.mark.slow
@pytest.mark.lean
def test_a_failing_cell_does_not_stop_the_others_and_is_tried_again(harness, capsys, monkeypatch):
    evaluate = training_run.evaluate

    def fail(run, job):
        if job.cfg.optim.lr == 0.01:
            raise MemoryError("out of it")
        return evaluate(run, job)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "evaluate", fail)
        assert harness.main(*CELLS) == "error: 1 of 2 cells failed; the same command tries them again"
    said = capsys.readouterr().out
    assert "mlp-sgd-s0-mnist5k-data.test_fraction=0.8-smoke failed: out of it" in said
    assert "MemoryError" in said  # in the table
    children, parent = harness.cells(), harness.parent()
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    assert parent.info.status == "FAILED"

    assert harness.main(*CELLS) is None
    assert "2 cells: 1 done, 1 to resume, 0 to run" in capsys.readouterr().out
    children, parent = harness.cells(), harness.parent()
    assert len(children) == 2
    assert {run.info.status for run in [*children, parent]} == {"FINISHED"}
    assert not any("error" in run.data.tags for run in [*children, parent])


@pytest.mark.slow
def test_a_done_cell_that_fails_on_a_rerun_is_reported_as_failed(swept, capsys, monkeypatch):
    def fail(*_):
        raise MemoryError("[enforce fail at alloc_cpu.cpp] out of it")

    done = {run.info.run_id: run for run in swept.runs()}
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "evaluate", fail)
        assert swept.main(*CELLS, "rerun=true") == "error: 2 of 2 cells failed; the same command tries them again"
    said = capsys.readouterr().out
    assert "2 cells: 0 done, 0 to resume, 2 to run" in said
    assert said.count("MemoryError: [enforce fail at alloc_cpu.cpp] out of it") == 2  # in the table
    for run in (run for run in swept.runs() if run.info.run_id not in done):
        swept.client.delete_run(run.info.run_id)


@pytest.mark.slow
@pytest.mark.lean
def test_ctrl_c_ends_a_sweep_and_the_same_command_continues_it(harness, capsys, monkeypatch):
    evaluate, seen = training_run.evaluate, []

    def interrupt(*arguments):
        seen.append(arguments)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "evaluate", interrupt)
        assert harness.main(*CELLS, "seed=0,1") == 130
    assert "│ interrupted" in capsys.readouterr().out
    children, parent = harness.cells(), harness.parent()
    assert sorted(run.info.status for run in children) == ["FINISHED", "KILLED"]
    assert parent.info.status == "KILLED"
    capsys.readouterr()
    assert harness.main(*CELLS, "seed=0,1") is None
    assert "4 cells: 1 done, 1 to resume, 2 to run" in capsys.readouterr().out
    assert len(harness.cells()) == 4


def test_seeds_given_in_two_ways_are_refused(harness):
    said = harness.main("sweep=smoke", "sweep.seeds=4", "seed=5")
    assert said == "error: sweep.seeds=4 and seed=5: both say which seeds to run; give one"
    assert not harness.folder.exists()


def test_an_invalid_cell_is_refused_before_any_cell_runs(harness):
    assert harness.main(*CELLS, "optim.lr=0.1,-1").startswith("error: optim.lr=-1: must be a number above 0")
    assert not harness.folder.exists()


@pytest.mark.lean
def test_a_cell_whose_network_cannot_be_built_fails_alone(harness, capsys):
    blocks = "model.blocks=[],[{channels: 4, kernel: 99}]"
    assert (
        harness.main(*CELLS, "optim=sgd", "seed=0", blocks)
        == "error: 1 of 2 cells failed; the same command tries them again"
    )
    assert "failed: model: " in capsys.readouterr().out
    assert len(harness.cells()) == 1


@pytest.mark.slow
def test_cells_without_enough_memory_fail_alone_before_they_have_a_run(harness, capsys):
    # The first cannot be built; the second has no memory for its gradients and Adam's moments.
    widths = f"model.hidden=[{{units: {10**13}}}],[{{units: 100000}}],[{{units: 8}}]"
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 900_000_000, hard))
    try:
        end = harness.main(*CELLS, "optim=adam", widths)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert end == "error: 2 of 3 cells failed; the same command tries them again"
    children, parent = harness.cells(), harness.parent()
    assert [child.data.params["model.hidden"] for child in children] == ['[{"units": 8}]']
    assert children[0].data.tags["done"] == "true"
    cells = sweep_json(parent).values()
    assert sorted(cell["status"] for cell in cells) == ["done", "failed", "failed"]
    assert all("can't allocate memory" in cell["reason"] for cell in cells if cell["status"] == "failed")
    assert capsys.readouterr().out.count("can't allocate memory") >= 2


@pytest.mark.slow
@pytest.mark.lean
def test_a_diverged_cell_is_done_and_has_the_status_diverged(harness, capsys):
    assert harness.main(*CELLS, "model=cnn_simple", "optim=sgd", "optim.lr=0.01,1e20") is None
    parent = harness.parent()
    assert sorted(cell["status"] for cell in sweep_json(parent).values()) == ["diverged", "done"]


@pytest.mark.parametrize(
    ("name", "seeds", "count"),
    [
        ("smoke", 3, 18),
        pytest.param("grid", 1, 21, marks=pytest.mark.slow),
        pytest.param("grid_full", 1, 27, marks=pytest.mark.slow),
        pytest.param("tune", 2, 30, marks=pytest.mark.slow),
    ],
)
def test_sweep_files_have_their_cells(harness, capsys, name, seeds, count):
    assert harness.main(f"sweep={name}", "data=mnist5k", "sweep.dry_run=true", f"sweep.seeds={seeds}") is None
    assert f"sweep {name}: {count} cells" in capsys.readouterr().out


def rates_to_try(harness, optim: str) -> list[float]:
    harness.compose("sweep=tune")
    return [float(rate) for rate in HydraConfig.get().sweeper.per_optim[optim].removeprefix("optim.lr=").split(",")]


def test_tuning_tries_five_rates_at_equal_ratios_for_each_optimizer(harness):
    rates = {optim: rates_to_try(harness, optim) for optim in ("adam", "sgd", "adadelta")}
    ratios = np.array([np.diff(np.log10(each)) for each in rates.values()])
    np.testing.assert_allclose(ratios, np.full((3, 4), 0.5), atol=1e-4)
    assert all(harness.compose(f"optim={optim}").optim.lr in rates[optim] for optim in rates)
    end = harness.main("sweep=tune", "data=mnist5k", "optim=sgd,adamw")
    assert end == "error: optim=adamw: this sweep has values for adam, sgd, adadelta only"


@pytest.mark.parametrize("seeds", ["0", "-1", "1.5", "two"])
def test_an_invalid_number_of_seeds_gets_one_line(harness, seeds):
    assert harness.main("sweep=smoke", f"sweep.seeds={seeds}") == (
        f"error: sweep.seeds={seeds}: must be a whole number from 1 to 2147483647 or auto"
    )
    assert not harness.folder.exists()

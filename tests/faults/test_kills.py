"""SIGKILL at random in real processes, then the same command again, until the run is done."""

import random
import signal
import sqlite3
import time

import pytest
import torch
from conftest import Harness, rest_at_night
from program import Program

pytestmark = pytest.mark.slow

SETTINGS = {
    "adam": ["optim=adam", "scheduler=one_cycle", "model=cnn_pool"],
    "sgd": ["optim=sgd", "early_stopping.patience=2", "optim.lr=0.5", "model=cnn_pool"],
    "adadelta": ["optim=adadelta", "scheduler=cosine", "model=cnn_simple", "data.augment.shift=1"],
}


def outcome(harness: Harness) -> tuple[dict, dict]:
    """Return the tested weights of the only run, and every point of its metrics."""
    (run,) = harness.runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["done"] == "true"
    checkpoints = harness.folder / "artifacts" / run.info.run_id / "artifacts" / "checkpoints"
    assert [file.name for file in checkpoints.iterdir()] == ["best.ckpt"]
    points = {
        key: [(point.step, point.value) for point in harness.client.get_metric_history(run.info.run_id, key)]
        for key in run.data.metrics
        if key.startswith(("train/", "val/", "test/"))
    }
    return torch.load(checkpoints / "best.ckpt", weights_only=True)["state_dict"], points


@pytest.mark.parametrize("name", rest_at_night(SETTINGS))
def test_a_run_killed_at_random_until_done_gives_the_same_results(tmp_path, name):
    whole, broken = Harness(tmp_path / "whole"), Harness(tmp_path / "broken")
    assert Program(whole, *SETTINGS[name]).wait() == 0

    moments = random.Random(name)
    kills = 0
    for epoch, longest in [(1, 0.5), (2, 0.5), (4, 0.5), (5, 3.0)]:  # the last one: in the test, the figures, the model
        program = Program(broken, *SETTINGS[name])
        if program.wait_for(f"epoch {epoch}/5"):
            time.sleep(moments.uniform(0, longest))
            kills += program.kill()
    assert Program(broken, *SETTINGS[name]).wait() == 0
    assert kills >= 2
    print(f"{name}: {kills} kills survived")

    (weights, points), (expected_weights, expected_points) = outcome(broken), outcome(whole)
    assert all(torch.equal(weights[key], expected_weights[key]) for key in expected_weights)
    assert points == expected_points
    assert sqlite3.connect(broken.folder / "mlflow.db").execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.night  # test_parallel kills such a sweep
def test_cells_run_in_parallel_on_a_new_store(harness):
    program = Program(
        harness, "sweep=smoke", "trainer.max_epochs=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert program.wait(timeout=300) == 0
    assert "6 of 6 cells are done" in program.output()
    runs = harness.cells()
    assert len(runs) == 6
    assert {len(harness.client.get_metric_history(run.info.run_id, "train/loss_step")) for run in runs} == {32}


def test_a_sweep_killed_repeatedly_runs_every_cell_once(harness):
    moments = random.Random(1)
    cells = ["sweep=smoke", "data.test_fraction=0.5", "trainer.max_epochs=2"]
    finished: set[str] = set()
    for _ in range(3):
        program = Program(harness, *cells)
        assert program.wait_for("cell 2 of")
        time.sleep(moments.uniform(0, 0.5))  # less than a cell takes, so that cells remain for the next start
        assert program.kill()
        now = {run.info.run_id for run in harness.runs() if run.data.tags.get("done") == "true"}
        assert finished < now  # progress in each start, and no cell undone
        finished = now
    program = Program(harness, *cells)
    assert program.wait() == 0
    assert "6 of 6 cells are done" in program.output()
    runs = harness.cells()
    assert len(runs) == 6
    assert finished < {run.info.run_id for run in runs}
    for run in runs:
        steps = [point.step for point in harness.client.get_metric_history(run.info.run_id, "train/loss")]
        assert (steps, run.info.status) == ([1, 2], "FINISHED")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_end_the_program_with_the_shells_exit_code(harness, number, code):
    program = Program(harness, "trainer.max_epochs=500", "model=mlp")
    assert program.wait_for("epoch   2/500")
    program.process.send_signal(number)
    assert program.wait(timeout=15) == code
    assert "Traceback" not in program.output()
    (run,) = harness.runs()
    assert run.info.status == "KILLED"


@pytest.mark.night  # test_parallel has sixteen that do nothing else
@pytest.mark.parametrize("count", [4, 8])
def test_programs_open_a_new_store_at_once(harness, count):
    programs = [Program(harness, "trainer.max_epochs=1", "model=mlp", f"seed={seed}") for seed in range(count)]
    assert [program.wait(timeout=300) for program in programs] == [0] * count
    runs = harness.runs()
    assert sorted(run.data.tags["seed"] for run in runs) == [str(seed) for seed in range(count)]
    assert all(len(harness.client.get_metric_history(run.info.run_id, "train/loss_step")) == 32 for run in runs)


def test_two_processes_with_the_same_run_train_it_once(harness):
    programs = [Program(harness, "model=cnn_pool", "trainer.max_epochs=2") for _ in range(2)]
    assert [program.wait() for program in programs] == [0, 0]
    assert len(harness.runs()) == 1
    words = [program.output() for program in programs]
    assert sum("another process runs the same; waiting for it to end" in each for each in words) == 1
    assert sum("is done already" in each for each in words) == 1


@pytest.mark.parametrize("number", rest_at_night([signal.SIGINT, signal.SIGTERM]))
def test_a_signal_during_start_up_does_not_affect_the_next_start(harness, number):
    for delay in (0.3, 0.6, 1.0, 2.0, 3.0):  # while Hydra, torch and digitlab load; before that Python may end with 1
        program = Program(harness, "trainer.max_epochs=2", "model=mlp")
        time.sleep(delay)
        program.process.send_signal(number)
        assert program.wait(timeout=15) in (128 + number, -number)  # to a shell these are the same
    assert Program(harness, "trainer.max_epochs=2", "model=mlp").wait() == 0
    (run,) = harness.runs()
    assert run.data.tags["done"] == "true"

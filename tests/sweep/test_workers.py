"""Worker processes of a sweep: they end with it, and new ones take the place of killed ones."""

import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import psutil
import pytest
from hydra.core.utils import JobReturn, JobStatus
from program import Program, wait_until_gone
from test_parallel import TWO_AT_ONCE, workers

from digitlab.config.errors import UserError
from digitlab.sweep import runner
from digitlab.sweep.plan import SweepCell


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2])
def test_workers_end_with_a_sweep_that_is_killed_while_they_load(harness, after):
    program = Program(harness, "sweep=smoke", "model=mlp", "trainer.max_epochs=10", *TWO_AT_ONCE)
    while len(running := workers(program)) < 2:
        assert program.process.poll() is None
        time.sleep(0.05)
    time.sleep(after)
    program.process.kill()
    program.wait()
    wait_until_gone(running, 5)
    assert "epoch  1/10" not in program.output()


@pytest.mark.slow
def test_new_workers_are_started_where_all_have_been_killed(harness):
    program = Program(
        harness, "sweep=smoke", "model=mlp", "data.test_fraction=0.5", "trainer.max_epochs=8", *TWO_AT_ONCE
    )
    for words in ("sweep smoke: ", "epoch 2/8"):  # before any cell, and in two of them
        assert program.wait_for(words)
        while len(running := workers(program)) < 2:
            assert program.process.poll() is None
            time.sleep(0.05)
        said = program.output().count("starting new workers")
        for worker in running:
            with suppress(psutil.NoSuchProcess):  # the first one's death ends the others
                worker.kill()
        while program.output().count("starting new workers") == said:
            assert program.process.poll() is None
            time.sleep(0.05)
    assert program.wait(timeout=400) == 0
    assert "3 of 3 cells are done" in program.output()
    assert len(harness.cells()) == 3
    assert {run.data.tags["done"] for run in harness.cells()} == {"true"}


@pytest.mark.parametrize(("deaths", "starts"), [(1, 2), (3, 4), (9, 4)])
@pytest.mark.parametrize("is_running", [True, False])
def test_new_workers_are_started_three_times(monkeypatch, deaths, starts, is_running):
    cells = [SweepCell(name, name, [f"seed={name}"], "mlp", "mnist5k", 1) for name in "01"]
    tried: list[list[str]] = []

    def interrupted(store, cells):  # the first cell is what kills the workers
        running = [cell for cell in cells if is_running and cell.name == "0"]
        return running, [cell for cell in cells if cell not in running]

    monkeypatch.setattr(runner, "_interrupted", interrupted)

    def launch(overrides, number):
        tried.append([each[0] for each in overrides])
        if len(tried) <= deaths and (not is_running or len(overrides) == 2):
            raise BrokenProcessPool("A worker process was killed")
        return [JobReturn(status=JobStatus.COMPLETED) for _ in overrides]

    if deaths > 3 and not is_running:
        with pytest.raises(UserError, match="no cell can be run: A worker process was killed"):
            runner.launch_all(None, cells, launch, "p", 0)
        assert len(tried) == 4
        return
    runner.launch_all(None, cells, launch, "p", 0)
    given_up = deaths > 3
    assert len(tried) == starts + given_up
    assert tried[-1] == (["seed=1"] if given_up else ["seed=1", "seed=0"] if is_running else ["seed=0", "seed=1"])
    assert cells[0].reason == ("its worker process died, or another one did (BrokenProcessPool), 4 times" * given_up)

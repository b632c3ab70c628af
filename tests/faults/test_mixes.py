"""Kills at random over mixes of what a run can be made of: each ends as the same run does undisturbed, to the bit.

DIGITLAB_MIXES is how many, 10 by default; each is a function of its number.
"""

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Harness
from fault_run import FaultRun, Oracle
from hooks import REPOSITORY
from program import Program

from digitlab.platform.machine import computes_in_bf16

EACH_TIME = 10
MIXES = int(os.environ.get("DIGITLAB_MIXES", EACH_TIME))
OPTIMIZERS = sorted(file.stem for file in (REPOSITORY / "conf" / "optim").glob("*.yaml"))
EMA = "+trainer.callbacks.ema={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.9}"
CHOICES: tuple[list[tuple[str, ...]], ...] = (
    [(), (), ("claim=mlp_000", "claim.data=mnist5k")],
    [("scheduler=none",), ("scheduler=cosine",), ("scheduler=one_cycle",)],
    [(), ("data.augment.shift=1",), ("data.augment.rotate=10",)],
    [(), ("+trainer.gradient_clip_val=0.5",)],
    [(), ("early_stopping.patience=1",)],
    [("evaluate_on=best",), ("evaluate_on=last",)],
    [(), (), (EMA,)],
    [(), ("data.steps_per_execution=4",)],
    [(), (), ("trainer.max_steps=25",)],
    [(), ("trainer.precision=bf16-mixed",), ("trainer.precision=bf16-true",)] if computes_in_bf16("cpu") else [()],
)
DATA = Path(os.environ.get("DIGITLAB_DATA", REPOSITORY / "data"))
DOWNLOADED = ("data=fashion_mnist", "data.skip_first=55000", "data.fallback=false")
# What is done to the store while the run lies killed, and is killed itself in half of the cases.
BETWEEN = (None, "store gc", "store relocate", "store check", "report report.filter=params.seed='0'")


def mix(number: int, draw: random.Random) -> list[str]:
    chosen = [f"optim={OPTIMIZERS[number % len(OPTIMIZERS)]}", "optim.lr=0.01"]
    return chosen + [override for choice in CHOICES for override in draw.choice(choice)]


def places(folder: Path, overrides: list[str]) -> list[str]:
    """Return `overrides` for a run in `folder`, which downloads its images to there where it downloads any."""
    return [*overrides, *([f"data.root={folder / 'data'}"] if DOWNLOADED[0] in overrides else [])]


def maintain(run: FaultRun, task: str, draw: random.Random) -> None:
    """Do a task on the store; half of the time kill it first, at any moment."""
    command = [sys.executable, "-m", "digitlab", *task.split()]
    settings = {
        "cwd": run.folder,
        "env": os.environ | {"MLFLOW_TRACKING_URI": run.uri, "PYTHONPATH": str(REPOSITORY / "src")},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    if draw.random() < 0.5:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, timeout=draw.uniform(0.5, 4), **settings)  # which kills it
    end = subprocess.run(command, timeout=120, **settings)
    # There is no run to report on as long as the only one is not done.
    assert end.returncode == 0 or "finds no run that is done" in end.stdout, end.stdout
    assert "Traceback" not in end.stdout


def test_the_page_on_reliability_has_this_number_of_mixes(repository):
    assert f"{EACH_TIME} mixes" in (repository / "docs" / "reliability.md").read_text()


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.parametrize("number", range(MIXES))
def test_a_mix_killed_at_random_ends_as_if_undisturbed(tmp_path: Path, number: int):
    draw = random.Random(number)
    overrides = mix(number, draw)
    changes = ["hooks:skip_pictures"]
    if number % 10 == 9 and (DATA / "FashionMNIST").exists() and not any("claim" in each for each in overrides):
        overrides += DOWNLOADED
        changes += ["hooks:download_from_here"]
    oracle = Oracle(tmp_path / "oracle", changes, places(tmp_path / "oracle", overrides))
    run = FaultRun(tmp_path / "run", changes)
    overrides = places(run.folder, overrides)
    run.database.with_name("artifacts").symlink_to(run.folder / "artifacts")  # where maintenance looks for them
    downloads = [point for point in oracle.trace if point.startswith("download")]
    wrong, kills = [], 0
    for _ in range(draw.randint(1, 3)):
        fault = f"KILL@{draw.choice(oracle.trace if kills else downloads or oracle.trace)}"
        newest = max((oracle.epoch(each) for each in run.saved().values()), default=0)
        killed = run.execute(fault, *overrides) != 0
        kills += killed
        if killed:
            wrong += [f"{fault}: {each}" for each in oracle.check_interrupted(run, at_least=newest)]
        if task := draw.choice(BETWEEN):
            maintain(run, task, draw)
    code = run.execute("", *overrides)
    print(f"{number}: {' '.join(overrides)}, {kills} kills")
    assert wrong == []
    assert code == 0, run.output
    assert oracle.check_finished(run) == []
    assert list((run.folder / "data").rglob("*.part")) == []
    assert kills


def outcome(harness: Harness) -> dict[str, dict[str, list]]:
    """Return the points of every done run, by name."""
    runs = [run for run in harness.cells() if run.data.tags.get("done")]
    metrics = ("train/loss", "train/loss_step", "val/loss", "val/acc", "test/acc")
    return {run.info.run_name: {key: harness.history(run, key) for key in metrics} for run in runs}


@pytest.mark.slow
@pytest.mark.night
@pytest.mark.parametrize("number", range(0, MIXES, 20))
def test_a_parallel_sweep_of_a_mix_killed_at_random_ends_as_if_undisturbed(tmp_path: Path, number: int):
    draw = random.Random(number)
    small = ("model=mlp", "data.batch_size=500", "trainer.max_epochs=3", "hydra.mode=MULTIRUN", "seed=1,2,3")
    command = (*small, *mix(number + 1, draw), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    whole, broken = Harness(tmp_path / "whole"), Harness(tmp_path / "broken")
    assert Program(whole, *command).wait(300) == 0
    for _ in range(draw.randint(1, 3)):
        program = Program(broken, *command)
        with suppress(subprocess.TimeoutExpired):
            program.process.wait(draw.uniform(2, 20))
        program.process.kill()
        program.process.wait()
    program = Program(broken, *command)
    assert program.wait(300) == 0, program.output()
    assert outcome(broken) == outcome(whole)
    assert len(outcome(whole)) == 3

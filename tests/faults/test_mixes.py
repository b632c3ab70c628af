"""Kills at random over mixes of what a run can be made of: each ends as the same run does undisturbed, to the bit.

DIGITLAB_MIXES is how many, 20 by default; each is a function of its number.
"""

import os
import random
from pathlib import Path

import pytest
from fault_run import FaultRun, Oracle
from hooks import REPOSITORY

from digitlab.platform.machine import computes_in_bf16
from digitlab.tracking import maintenance
from digitlab.tracking.store import Store

EACH_TIME = 20
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
    [(), ("trainer.precision=bf16-mixed",)] if computes_in_bf16("cpu") else [()],
)
BETWEEN = (None, "collect_garbage", "relocate", "check")  # what is done to the store while the run lies killed


def mix(number: int, draw: random.Random) -> list[str]:
    chosen = [f"optim={OPTIMIZERS[number % len(OPTIMIZERS)]}", "optim.lr=0.01"]
    return chosen + [override for choice in CHOICES for override in draw.choice(choice)]


def test_the_page_on_reliability_has_this_number_of_mixes(repository):
    assert f"{EACH_TIME} mixes" in (repository / "docs" / "reliability.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(MIXES))
def test_a_mix_killed_at_random_ends_as_if_undisturbed(tmp_path: Path, number: int):
    draw = random.Random(number)
    overrides = mix(number, draw)
    oracle = Oracle(tmp_path / "oracle", overrides=overrides)
    run = FaultRun(tmp_path / "run")
    run.database.with_name("artifacts").symlink_to(run.folder / "artifacts")  # where maintenance looks for them
    wrong, kills = [], 0
    for _ in range(draw.randint(1, 3)):
        fault = f"KILL@{draw.choice(oracle.trace)}"
        newest = max((oracle.epoch(each) for each in run.saved().values()), default=0)
        killed = run.execute(fault, *overrides) != 0
        kills += killed
        if killed:
            wrong += [f"{fault}: {each}" for each in oracle.check_interrupted(run, at_least=newest)]
        if task := draw.choice(BETWEEN):
            list(getattr(maintenance, task)(Store(run.uri, "digitlab")))
    code = run.execute("", *overrides)
    print(f"{number}: {' '.join(overrides)}, {kills} kills")
    assert wrong == []
    assert code == 0, run.output
    assert oracle.check_finished(run) == []
    assert kills

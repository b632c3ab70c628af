"""Warm-up, then decay: the rates by their formula, in a plain loop and in a run."""

import math
import warnings

import pytest
import torch

from digitlab.training.warmup import WarmupCosine


def rates(steps: int, warmup: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler, found = WarmupCosine(optimizer, steps, warmup), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.1), (7, 0.3), (1, 0.5), (2, 0.9)])
def test_the_rate_rises_in_a_line_and_falls_along_a_cosine(steps, warmup):
    first = max(1, round(warmup * steps))
    rising = [2 * (step + 1) / (first + 1) for step in range(first)]
    falling = [1 + math.cos(math.pi * step / max(1, steps - first)) for step in range(steps - first)]
    with warnings.catch_warnings(action="ignore"):
        assert rates(steps, warmup) == pytest.approx([*rising, *falling][:steps], abs=1e-9)


@pytest.mark.lean
def test_a_run_fills_in_its_steps(harness):
    small = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "model=mlp", "trainer=cpu")
    harness.train(*small, "optim=sgd", "scheduler=warmup_cosine", "data.batch_size=50", "trainer.max_epochs=2")
    (run,) = harness.runs()
    assert run.data.params["scheduler.steps"] == "20"
    (_, middle), (_, last) = harness.history(run, "lr")
    rate = float(run.data.params["optim.lr"])
    assert middle == pytest.approx(rate * (1 + math.cos(math.pi * 8 / 18)) / 2)
    assert last == pytest.approx(0, abs=1e-9)


def test_a_share_that_is_none_is_refused_in_a_line(harness):
    told = ("data=mnist5k", "model=mlp", "trainer=cpu", "scheduler=warmup_cosine", "scheduler.warmup=1.5")
    assert harness.main(*told) == "error: scheduler: warmup=1.5: must be above 0 and below 1"
    assert not harness.folder.exists()

"""`digitlab compare` of sides whose runs are compared in pairs."""

import numpy as np
import pytest
from fake_store import FakeStore
from statsmodels.stats.power import TTestPower
from test_versus import compare


@pytest.fixture
def fake(harness):
    return FakeStore(harness)


def test_of_runs_made_again_one_that_differs_is_named(fake, harness, capsys):
    fake.sweep("old", *(fake.record("mlp", "adam", seed, 0.95) for seed in range(2)))
    fake.sweep("new", *(fake.record("mlp", "adam", seed, accuracy) for seed, accuracy in enumerate((0.95, 0.94))))
    code, said = compare(harness, capsys, "old", "new")
    assert code == 3
    assert "came to 0.9400 where A has 0.9500" in said


def two_kinds(fake, accuracies) -> list[str]:
    """Record two sweeps, old and new, of two kinds of runs each."""
    return [
        fake.sweep(name, *(
            fake.record(model, "adam", seed, each, loss=0.1 if each else float("nan"), **more)
            for model, of in sides.items() for seed, each in enumerate(of)
        ))
        for (name, more), sides in zip((("old", {}), ("new", {"wide": "1"})), accuracies, strict=True)
    ]  # fmt: skip


def test_where_failures_leave_fewer_than_two_pairs_nothing_else_is_compared(fake, harness, capsys):
    two_kinds(fake, [{"mlp": [0.9, 0.91, 0], "cnn": [0, 0, 0.98]}, {"mlp": [0, 0, 0.9], "cnn": [0.99, 0.98, 0.99]}])
    code, said = compare(harness, capsys, "old", "new")
    assert code == 3
    assert said.splitlines()[-1].endswith(
        "at chance: 3 of 6 of A and 2 of 6 of B. Cannot tell more: of 6 pairs of runs 1 did not fail."
    )


def test_a_tie_of_pairs_says_how_many_pairs_would_show_the_margin(fake, harness, capsys):
    old = {"mlp": [0.95, 0.94, 0.96], "cnn": [0.98, 0.97, 0.99]}
    two_kinds(fake, [old, {"mlp": [0.951, 0.938, 0.962], "cnn": [0.978, 0.972, 0.989]}])
    code, said = compare(harness, capsys, "old", "new")
    assert code == 3
    differences = [0.001, -0.002, 0.002, -0.002, 0.002, -0.001]
    exact = TTestPower().solve_power(effect_size=0.001 / np.std(differences, ddof=1), alpha=0.05, power=0.8)
    assert f"{int(np.ceil(exact)) - 6} more pairs of runs would show 0.10 points in 8 of 10 cases" in said

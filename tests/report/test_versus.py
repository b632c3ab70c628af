"""`digitlab compare A B`, on made-up runs with known results."""

import numpy as np
import pytest
from conftest import Harness
from fake_store import FakeStore
from scipy import stats

GOOD, BAD = [0.981, 0.984, 0.979, 0.983, 0.982], [0.951, 0.954, 0.949, 0.953, 0.952]


@pytest.fixture
def fake(harness):
    return FakeStore(harness)


def compare(harness: Harness, capsys, *arguments: str) -> tuple[int, str]:
    result = harness.main("compare", *arguments, entry_point="digitlab")
    captured = capsys.readouterr()
    return result or 0, captured.out + captured.err


def record(fake, model, accuracies, optim="adam", **params) -> list[str]:
    return [fake.record(model, optim, seed, accuracy, **params) for seed, accuracy in enumerate(accuracies)]


def test_a_run_stands_for_all_its_seeds(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    record(fake, "cnn_pool", BAD, parameters="99")
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s3")
    expected = stats.ttest_ind(BAD, GOOD, equal_var=False)
    low, high = expected.confidence_interval()
    assert code == 1
    assert "A = mlp/adam: 5 runs, test accuracy 0.9818" in said
    assert f"B is worse by {-100 * (low + high) / 2:.2f} ± {100 * (high - low) / 2:.2f} points" in said
    assert f"n = 5 and 5, p = {expected.pvalue:.2g}" in said
    assert "model" in said
    assert compare(harness, capsys, "cnn_pool-adam-s3", "mlp-adam-s0")[0] == 0
    assert compare(harness, capsys, "mlp-adam-s0", "mlp-adam-s2") == (
        0,
        said.splitlines()[0]
        + said.splitlines()[0].replace("A =", "\nB =")
        + "\nA and B are the same runs: they differ in nothing but the seed.\n",
    )


def test_a_tie_says_how_many_seeds_would_show_the_margin(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    record(fake, "cnn_pool", np.roll(GOOD, 1))
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0")
    assert code == 3
    assert "Tie: B - A is 0.00 ±" in said
    assert "more seeds of each would show 0.10 points" in said
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0", "--margin", "0.01")
    assert code == 0
    assert "runs of this spread would show 1.00 points" in said


def test_single_runs_are_compared_by_their_images_and_decide_nothing(fake, harness, capsys):
    fake.record("mlp", "adam", 0, 0.95)
    fake.record("cnn_pool", "adam", 0, 0.98)
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0")
    assert code == 3
    assert "B is right where A is wrong on 30 images, A where B is wrong on 0 of 1,000" in said
    assert f"p = {stats.binomtest(0, 30).pvalue:.2g}" in said
    assert "one run tells nothing" in said


def test_equal_predictions_are_the_same_to_the_bit(fake, harness, capsys):
    fake.record("mlp", "adam", 0, 0.95, note="before")
    fake.record("mlp", "adam", 0, 0.95, note="after")
    ids = [run.info.run_id for run in harness.runs()]
    code, said = compare(harness, capsys, *(each[:8] for each in ids))
    assert code == 0
    assert "The same to the bit" in said
    assert "note" in said


@pytest.mark.table
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mlp-adam-s0", "nothing"), "error: compare: nothing: no such run; a run is named by an id"),
        (("mlp-adam-s0", "cnn"), "error: compare: cnn: no such run; alike are: "),
        (("params.model = 'x'", "latest"), "error: compare: filter=params.model = 'x': finds no run that is done"),
        (("best:model", "latest"), "error: compare: best:model: model: must be KEY=VALUE"),
        (("best:model=x", "latest"), "error: compare: best:model=x: no run that is done is of this kind"),
        (("models:/digits@champion", "latest"), "error: compare: models:/digits@champion: "),
        (("unfinished-adam-s0", "latest"), "error: compare: unfinished-adam-s0: is not done"),
        (("other-adam-s0", "mlp-adam-s0"), "error: compare: A and B were tested on other images"),
    ],
)
def test_a_mistake_is_one_line_and_no_verdict(fake, harness, capsys, arguments, words):
    record(fake, "mlp", GOOD[:2])
    record(fake, "cnn_pool", BAD[:2])
    fake.record("unfinished", "adam", 0, 0.5, done=False)
    fake.record("other", "adam", 0, 0.5, digest="0ther")
    code, said = compare(harness, capsys, *arguments)
    assert code == 2
    assert said.splitlines()[-1].startswith(words)


def test_best_and_latest_and_the_start_of_an_id_name_a_run(fake, harness, capsys):
    record(fake, "mlp", GOOD[:2])
    best = record(fake, "cnn_pool", [0.99, 0.991])[-1]
    latest = record(fake, "mlp", BAD[:2], optim="sgd")[-1]
    for reference, run_id in {"best": best, "latest": latest, "best:model=mlp,optim=adam": None}.items():
        code, said = compare(harness, capsys, reference, (run_id or "mlp-adam-s0")[:11])
        assert code == 0
        assert "the same runs" in said

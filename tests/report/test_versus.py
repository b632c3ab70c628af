"""`digitlab compare A B`, on made-up runs with known results."""

import json
import re
import subprocess

import numpy as np
import pytest
from conftest import Harness
from fake_store import FakeStore
from scipy import stats

from digitlab.data.corrupt import KINDS, STRENGTHS

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


def test_what_both_sides_withstand_is_shown_side_by_side(fake, harness, capsys):
    sides = [record(fake, "mlp", GOOD), record(fake, "cnn_pool", BAD, parameters="99")]
    assert "corrupted" not in compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0")[1]
    for ids, blurred in zip(sides, (0.25, 0.75), strict=True):
        for number, run_id in enumerate(ids[:2]):
            points = [{"accuracy": blurred + number / 100 - strength / 1000} for strength in STRENGTHS]
            scored = {"data": "mnist", "corrupted": dict.fromkeys(KINDS, points)}
            harness.client.log_text(run_id, json.dumps(scored), "eval/mnist/results.json")
        harness.client.log_text(ids[2], json.dumps({"data": "mnist"}), "eval/mnist/results.json")
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0")
    assert code == 1
    for side, value in ("A", 0.255), ("B", 0.755):
        shown = re.search(rf"blur[^\d]*{side}, n = 2[^\d]+([\d.]+)", said)
        assert shown
        assert float(shown[1]) == pytest.approx(value - 0.001)


def test_sides_chosen_by_a_result_are_warned_of(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    record(fake, "cnn_pool", BAD)
    warning = "They were chosen by a result"
    _, said = compare(harness, capsys, "metrics.`test/acc` > 0.98 and params.model = 'mlp'", "cnn_pool-adam-s0")
    assert said.count(warning) == 1
    assert warning not in compare(harness, capsys, "params.model = 'mlp'", "cnn_pool-adam-s0")[1]


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
        (
            ("best:model=x", "latest"),
            "error: compare: best:model=x: no run that is done and tested has model=x; there are: cnn_pool, mlp, other",
        ),
        (("best:modle=mlp", "latest"), "error: compare: best:modle=mlp: no run that is done and tested has modle=mlp"),
        (("best:sweep=x", "latest"), "error: compare: no sweep has been run"),
        (("mlp-adam-s0", "mlp-adam"), "error: compare: mlp-adam: no such run; alike are: "),
        (("data = 'mnist5k'", "latest"), "error: compare: filter=data = 'mnist5k': "),
        (("params.model = 'mlp'", "tags.model = 'x' OR"), "error: compare: filter=tags.model = 'x' OR: "),
        (
            ("dataset.digest = 'd1ge57' and params.seed = '0'", "mlp-adam-s0"),
            "error: compare: 1 run is in both A and B",
        ),
        (
            ("models:/digits@champion", "latest"),
            "error: compare: models:/digits@champion: no such model; no model is registered",
        ),
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


@pytest.mark.slow
def test_a_run_that_was_made_again_counts_once(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    record(fake, "cnn_pool", BAD)
    _, alone = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0")
    for _ in range(3):
        again = fake.record("mlp", "adam", 0, GOOD[0])
    for reference in (again, "params.model = 'mlp'"):
        assert compare(harness, capsys, reference, "cnn_pool-adam-s1") == (1, alone)
    code, said = compare(harness, capsys, again, fake.record("mlp", "adam", 0, GOOD[0]))
    assert (code, said.splitlines()[-1]) == (
        0,
        "The same to the bit: B is A run again, with every prediction the same.",
    )
    code, said = compare(harness, capsys, again, fake.record("mlp", "adam", 0, 0.5))
    assert code == 3
    assert "Cannot tell: B is A run again with the same settings and seed, and came to 0.5000" in said


def test_runs_that_failed_are_in_no_mean_and_count_against_their_side(fake, harness, capsys):
    """Fisher's exact test is scipy's, of runs that diverged or name one class for everything."""
    record(fake, "mlp", GOOD)
    record(fake, "cnn_pool", [*GOOD[:4], 0.1])
    fake.harness.client.log_metric(harness.runs()[0].info.run_id, "test/loss", float("nan"), step=3)
    code, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0", "--margin", "0.05")
    assert code == 3
    assert "at chance: 1 of 5 of B; they are in no mean. Tie: B - A is 0.00 ± " in said
    assert "B = cnn_pool/adam: 5 runs, of which 1 diverged or is at chance, test accuracy 0.9818 ± 0.00" in said
    assert compare(harness, capsys, "cnn_pool-adam-s0", "mlp-adam-s0", "--margin", "0.05")[0] == 0
    for seed in range(5):
        fake.record("wide", "adam", seed, 0.1, loss=float("nan"))
    code, said = compare(harness, capsys, "mlp-adam-s0", "wide-adam-s0")
    assert code == 1
    p_value = stats.fisher_exact([[5, 0], [0, 5]], alternative="greater").pvalue
    assert f"at chance: 5 of 5 of B. B fails more often (Fisher's exact test: p = {p_value:.2g})." in said


def test_a_side_is_marked_at_chance_by_the_predictions_of_the_other(fake, harness, capsys):
    for model in ("mlp", "cnn_pool"):
        for seed, accuracy in enumerate(GOOD):
            fake.record(model, "adam", seed, accuracy, predictions=False)
    fake.record("mlp", "adam", 5, 0.5, predictions=False)
    fake.record("cnn_pool", "adam", 5, 0.5, same=True)
    _, said = compare(harness, capsys, "mlp-adam-s0", "cnn_pool-adam-s0", "--margin", "0.05")
    assert "at chance: 1 of 6 of A and 1 of 6 of B; they are in no mean. Tie: B - A is 0.00 ± " in said


def test_one_run_beside_several_is_placed_among_them_and_decides_nothing(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    fake.record("cnn_pool", "adam", 7, 0.95)
    half = stats.t.ppf(0.975, 4) * np.std(GOOD, ddof=1) * np.sqrt(6 / 5)
    for sides, sign in ((("mlp-adam-s0", "cnn_pool-adam-s7"), "-"), (("cnn_pool-adam-s7", "mlp-adam-s0"), "")):
        code, said = compare(harness, capsys, *sides)
        assert code == 3
        assert f"B - A is {sign}{100 * (np.mean(GOOD) - 0.95):.2f} ± {100 * half:.2f} points if other seeds" in said


def test_sides_of_several_kinds_are_compared_run_by_run_whatever_varies(fake, harness, capsys):
    for rate, shift in (("0.1", 0), ("0.2", 0.01)):
        for seed, accuracy in enumerate(GOOD[:3]):
            fake.record("mlp", "adam", seed, accuracy - shift, **{"optim.lr": rate})
            fake.record("mlp", "adam", seed, accuracy - shift - 0.002 - 0.001 * seed, **{"optim.lr": rate, "wide": "1"})
    narrow = [accuracy - shift for shift in (0, 0.01) for accuracy in GOOD[:3]]
    wide = [accuracy - 0.002 - 0.001 * (place % 3) for place, accuracy in enumerate(narrow)]
    expected = stats.ttest_rel(wide, narrow)
    ids = {run.info.run_id: run.data.params for run in harness.runs()}
    sweeps = [fake.sweep(name, *(i for i, params in ids.items() if ("wide" in params) == (name == "new")))
              for name in ("old", "new")]  # fmt: skip
    assert all(sweeps)
    code, said = compare(harness, capsys, "old", "new", "--margin", "0.0001")
    assert code == 1
    assert (
        f"B is worse by 0.30 ± {100 * (expected.confidence_interval().high - np.mean(wide) + np.mean(narrow)):.2f}"
        in said
    )
    assert f"(6 pairs of runs, p = {expected.pvalue:.2g})" in said


def test_what_differs_is_shown_of_code_data_and_machine(fake, harness, capsys, repository):
    """The commits are two of this checkout, the patch is one of git's."""
    said = subprocess.run(["git", "-C", repository, "rev-list", "--parents", "HEAD"], capture_output=True, text=True)
    parents = {each: above for each, *above in map(str.split, said.stdout.splitlines())}
    single = [each for each, above in parents.items() if len(above) == 1]  # no merges
    new = next(each for each in single if parents[each][0] in single)
    (middle,) = parents[new]
    (old,) = parents[middle]
    a, b = fake.record("mlp", "adam", 0, 0.95), fake.record("mlp", "adam", 1, 0.96, **{"data.val_fraction": "0.2"})
    tags = {a: {"mlflow.source.git.commit": old, "owner": "one:1:1"}, b: {"mlflow.source.git.commit": new}}
    tags[b] |= {"git.dirty": "true", "git.patch": "0123456789", "code.own": "mine (abc)", "owner": "two:1:1"}
    for run_id, values in tags.items():
        for key, value in values.items():
            harness.client.set_tag(run_id, key, value)
    patch = "diff --git a/src/mine.py b/src/mine.py\n--- a/src/mine.py\n+++ b/src/mine.py\n"
    harness.client.log_text(b, patch, "uncommitted.patch")
    _, said = compare(harness, capsys, a, b)
    shown = {" ".join(line.replace("│", " ").split()) for line in said.splitlines()}
    assert {"code patch none 0123456789", "code of your own none mine (abc)", "machine one two"} <= shown
    assert {f"code commit {old[:10]} {new[:10]}", "data.val_fraction none 0.2"} <= shown
    assert f"B has 2 commits that A has not: {new[:7]}" in said
    assert middle[:7] in said
    assert "B ran with uncommitted changes: src/mine.py" in said


def test_data_split_otherwise_with_the_same_test_images_can_be_compared(fake, harness, capsys):
    record(fake, "mlp", GOOD)
    for seed, accuracy in enumerate(BAD):
        fake.record("mlp", "adam", seed, accuracy, digest="0ther", **{"data.val_fraction": "0.2"})
    newest = harness.runs()[0].info.run_id
    code, said = compare(harness, capsys, "params.`data.batch_size` = '100' and dataset.digest = 'd1ge57'", newest)
    assert code == 1, said


def test_the_best_of_a_sweep_is_found_though_an_earlier_command_made_it(fake, harness, capsys):
    best = fake.record("mlp", "adam", 0, 0.99)
    fake.record("mlp", "sgd", 0, 0.999)
    fake.sweep("first", best)
    fake.sweep("second", best, fake.record("mlp", "adam", 1, 0.9))
    harness.client.delete_tag(best, "mlflow.parentRunId")
    code, said = compare(harness, capsys, "best:sweep=second", best)
    assert code == 0
    assert "the same runs" in said

"""Claims through the entry points: what a sweep of them reports."""

import csv
import subprocess
from math import log
from pathlib import Path

import numpy as np
import pytest
from fake_store import FakeStore
from scipy import stats


def test_a_claim_overrides_the_groups_and_the_command_line_overrides_both(harness):
    assert harness.compose("trainer=smoke", "claim=simple_004").trainer.max_epochs == 15
    assert harness.compose("claim=simple_004", "trainer.max_epochs=2").trainer.max_epochs == 2


@pytest.mark.slow
def test_a_sweep_of_claims_is_reported_with_its_counterparts(harness, tmp_path, capsys):
    small = ["sweep.seeds=1", "data=mnist5k", "claim.data=mnist5k"]
    assert harness.main("sweep=claims", "claim=cnn_pool_000_first_epoch", *small) is None
    changed = ["counterpart=simple_004_torch", "trainer.max_epochs=1"]
    assert harness.main("sweep=counterparts", *changed, *small) is None
    capsys.readouterr()
    assert harness.main("report.sweep=claims", f"report.dir={tmp_path}/report", entry_point="report") is None
    assert "1 claim: 1 NOT COMPARABLE" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.md").read_text()
    assert "These runs cannot be compared with the claim (claimed for mnist, run on mnist5k)" in page
    assert "optim.eps=1e-08, trainer.max_epochs=1 (on mnist5k) |" in page
    first, other = rows_of(tmp_path / "report")
    assert (first["claim"], first["verdict"]) == ("cnn_pool_000_first_epoch", "NOT COMPARABLE")
    assert (other["claim"], other["counterpart"], other["verdict"]) == ("simple_004", "simple_004_torch", "")
    assert other["changes"] == "loss=cross_entropy, model.init=torch, optim.eps=1e-08, trainer.max_epochs=1"
    tested = {
        run.info.run_name: run.data.metrics["test/acc"] for run in harness.runs() if "test/acc" in run.data.metrics
    }
    (name,) = (each for each in tested if "simple_004_torch" in each)
    assert float(other["mean_acc"]) == pytest.approx(tested[name])
    assert harness.main("report.sweep=counterparts", f"report.dir={tmp_path}/alone", entry_point="report") is None
    assert "No claim's own recipe has been run" in capsys.readouterr().out
    (alone,) = rows_of(tmp_path / "alone")
    assert "## Curves" not in (tmp_path / "alone" / "report.md").read_text()
    assert alone["less_claim"] == ""


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "report.csv").open() as file:
        return list(csv.DictReader(file))


def recorded(fake_store: FakeStore, accuracies, *overrides: str, **more) -> dict[str, list[str]]:
    """Record a run on MNIST for each accuracy, the seeds from `seed`; return the overrides of its cell by run."""
    first, more = more.pop("seed", 0), {"data": "mnist", "claim.note": " ".join(overrides)} | more
    return {
        fake_store.record("cnn_simple", "adam", seed, accuracy, **more): ["sweep=claims", f"seed={seed}", *overrides]
        for seed, accuracy in enumerate(accuracies, first)
    }


FIVE = (0.99, 0.991, 0.992, 0.991, 0.993)


@pytest.mark.slow
def test_a_changed_recipe_is_shown_and_gets_no_verdict(fake_store, capsys):
    runs = recorded(
        fake_store, FIVE, "claim=simple_004", "trainer.precision=32-true", "trainer=cpu", "data.root=/elsewhere"
    )
    fast = recorded(
        fake_store, (0.989, 0.992, 0.99), "claim=simple_004", "trainer.precision=bf16-mixed", counterpart="fast"
    )
    short = recorded(
        fake_store, (0.98,), "claim=simple_004", "optim=sgd", "optim.lr=0.5", "+trainer.gradient_clip_val=1.0"
    )
    fake_store.sweep("claims", *runs, *fast, *short, overrides=runs | fast | short)
    assert fake_store.report() is None
    said = capsys.readouterr().out
    assert "1 claim: 1 REPRODUCED" in said
    assert "Changed recipes" in said
    assert "not the same in all runs" not in said
    assert "| trainer.precision=bf16-mixed |" in (fake_store.folder / "report.md").read_text()
    own, precision, optimizer = rows_of(fake_store.folder)
    assert (own["n"], own["changes"], own["verdict"]) == ("5", "", "REPRODUCED")
    assert (precision["changes"], precision["verdict"]) == ("trainer.precision=bf16-mixed", "")
    paired = stats.ttest_rel((0.989, 0.992, 0.99), FIVE[:3])
    low, high = paired.confidence_interval()
    found = [float(precision[key]) for key in ("less_claim", "low", "high", "common_seeds")]
    assert found == pytest.approx([np.mean((0.989, 0.992, 0.99)) - np.mean(FIVE[:3]), low, high, 3], abs=1e-6)
    assert optimizer["changes"] == "optim=sgd, optim.lr=0.5, trainer.gradient_clip_val=1.0"
    assert (optimizer["less_claim"], optimizer["common_seeds"]) == ("", "1")


@pytest.mark.slow
def test_a_confounder_of_several_claims_is_named_once(fake_store, capsys):
    runs = {}
    for name in ("simple_004", "mlp_000"):
        mine = recorded(fake_store, FIVE[:3], f"claim={name}")
        fake_store.harness.client.set_tag(next(iter(mine)), "mlflow.source.git.commit", "def")
        runs |= mine
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    said = capsys.readouterr().out
    assert "not the same in all runs: simple_004, mlp_000: code commit: abc (4 runs); def (cnn_simple-adam-s0, " in said
    assert said.count("code commit") == 1


@pytest.mark.slow
def test_counterparts_that_are_not_done_are_named(fake_store, capsys):
    runs = recorded(fake_store, FIVE, "claim=simple_004")
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    assert "The sweep counterparts, which changes recipes of claims, has not been run." in capsys.readouterr().out
    half = recorded(fake_store, (0.99,), "counterpart=simple_004_torch", done=False)
    fake_store.sweep("counterparts", *half, overrides=half)
    assert fake_store.report("report.sweep=claims") is None
    said = " ".join(capsys.readouterr().out.split())
    assert "counterparts: 1 of 1 cell of the sweep is not done, and not in this report: cnn_simple-adam-s0" in said
    assert len(rows_of(fake_store.folder)) == 1


@pytest.mark.slow
def test_flags_and_facts_are_shown_with_the_verdicts(fake_store):
    runs = recorded(fake_store, FIVE, "claim=double_3x3_001") | recorded(
        fake_store, FIVE, "claim=cnn_pool_000", parameters="53577"
    )
    runs |= recorded(fake_store, (0.991, 0.992), "claim=single_5x5_001") | recorded(
        fake_store, (0.98,), "claim=simple_004"
    )
    runs |= recorded(fake_store, (0.1,), "claim=single_5x5_001", loss=float("nan"), seed=2)
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    page, tex = ((fake_store.folder / f"report.{kind}").read_text() for kind in ("md", "tex"))
    for name, flags in (("double_3x3_001", "TUL"), ("cnn_pool_000", "L"), ("simple_004", "")):
        for line, mark in ((page, " | "), (tex.replace(r"\_", "_"), " & ")):
            (row,) = (each for each in line.splitlines() if each.startswith((f"| {name}{mark}", f"{name}{mark}")))
            assert row.removeprefix("| ").split(mark)[2].strip() == flags
    assert "- double_3x3_001: T: its validation set was the test set; U: that its kernels" in page
    rows = {row["claim"]: row for row in rows_of(fake_store.folder)}
    assert [rows[name]["validated_on_test"] for name in ("double_3x3_001", "cnn_pool_000")] == ["True", "False"]
    assert rows["cnn_pool_000"]["contradicted"].startswith("the printed log begins at a training loss of 0.0181")
    assert rows["double_3x3_001"]["unstated"].startswith("that its kernels are 3 x 3 follows")
    assert "1 of 3 diverged" in page
    assert (rows["single_5x5_001"]["mean_loss"], rows["single_5x5_001"]["diverged"]) == ("", "1")
    assert "cnn_pool_000: 53,578 parameters by the document, 53,577 counted: NOT the same." in page
    assert (
        "000: cnn_wide has 5,314,058 parameters in print, 5,314,058 counted: the same; no accuracy is claimed" in page
    )
    assert "000: cnn_pool_wide has 2,492,938 parameters in print, 2,492,938 counted: the same" in page
    assert "simple_004: 34,826" not in page
    for name, counts in (("simple_004", "320 and 18,496"), ("single_5x5_001", "832 and 589,952")):
        assert f"{name}: {counts} parameters printed of the first layers, {counts} counted: the same." in page


def test_confounders_within_a_claim_are_named(fake_store, capsys):
    runs = recorded(
        fake_store, FIVE, "claim=simple_004", **{"trainer.precision": "32-true", "trainer.accelerator": "cpu"}
    )
    fast = {"trainer.precision": "bf16-mixed", "trainer.accelerator": "cuda", "data.batch_size": "100"}
    runs |= recorded(fake_store, (0.99,), "claim=simple_004", "trainer.precision=bf16-mixed", **fast)
    runs |= recorded(fake_store, FIVE, "claim=cnn_pool_000")
    odd, *_ = runs
    fake_store.harness.client.set_tag(odd, "environment", "torch 2.14.0\nCPU: fast, 2 cores\n")
    fake_store.harness.client.set_tag(odd, "command", "python src/train.py sweep=claims")
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    said = " ".join(capsys.readouterr().out.split())
    assert "simple_004: environment torch: 2.15.0 (5 runs); 2.14.0 (cnn_simple-adam-s0)" in said
    assert "simple_004: trainer.accelerator: cpu (5 runs); cuda (cnn_simple-adam-s0)" in said
    assert "trainer.precision:" not in said  # it is what is compared
    page = (fake_store.folder / "report.md").read_text()
    assert page.index("simple_004: environment torch") < page.index("| claim |")
    origin = page.partition("## Provenance")[2]
    assert "11 runs, 2023-11-14, commit abc" in origin
    assert "python src/train.py sweep=claims" in origin


@pytest.fixture
def make_claims(repository, tmp_path):
    """Run `make claims` with a python whose train.py exits with `code`; return the commands it got, and the result."""

    def make(arguments: str, code: int = 0, names: str = "echo a,b") -> tuple[list[str], subprocess.CompletedProcess]:
        python, asked = tmp_path / "python", tmp_path / "asked"
        python.write_text(
            f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" != -m ] || {names}\n[ "$1" != src/train.py ] || exit {code}\n'
        )
        python.chmod(0o755)
        command = ["make", "-o", "setup", "claims", f"BIN={tmp_path}", f"ARGS={arguments}"]
        ended = subprocess.run(command, cwd=repository, capture_output=True, text=True)
        return asked.read_text().splitlines(), ended

    return make


def test_make_claims_reports_even_if_a_cell_fails(make_claims):
    asked, ended = make_claims("sweep.seeds=2", code=3)
    assert asked == ["src/train.py sweep=claims sweep.seeds=2", "src/report.py report.sweep=claims"]
    assert "Error 3" in ended.stderr


def test_make_claims_takes_some_of_them_by_a_word(make_claims):
    asked, _ = make_claims("claims=fashion sweep.seeds=2")
    assert asked[:2] == ["-m digitlab claims list fashion --names", "src/train.py sweep=claims claim=a,b sweep.seeds=2"]


@pytest.mark.parametrize("word", ["true", "True"])
def test_make_claims_with_dry_run_does_not_report(make_claims, word):
    asked, ended = make_claims(f"sweep.dry_run={word}")
    assert asked == [f"src/train.py sweep=claims sweep.dry_run={word}"]
    assert ended.returncode == 0


def test_make_claims_of_a_word_that_names_none_runs_nothing(make_claims):
    asked, ended = make_claims("claims=zzz", names="exit 2")
    assert asked == ["-m digitlab claims list zzz --names"]
    assert ended.returncode


@pytest.mark.slow
def test_divergence_to_one_class_is_read_from_the_stored_predictions(fake_store, capsys):
    def diverge(one_class: bool) -> dict[str, list[str]]:
        shares = (0.098, 0.113, 0.089, 0.102, 0.097)
        runs = {}
        for seed, share in enumerate(shares):
            more = {"loss": (1 - share) * -log(1e-7), "seed": seed, "same": one_class}
            runs |= recorded(
                fake_store, (share,), "claim=dense1000_raw_002", f"data.steps_per_execution={1 + one_class}", **more
            )
        return runs

    runs = diverge(True)
    fake_store.sweep("one", *runs, overrides=runs)
    assert fake_store.report() is None
    assert "1 claim: 1 DIVERGED AS PRINTED." in capsys.readouterr().out
    two = diverge(False)
    fake_store.sweep("two", *two, overrides=two)
    assert fake_store.report() is None
    assert "one class predicted in 0 of 5 runs" in rows_of(fake_store.folder)[0]["reason"]


def test_failed_runs_of_a_changed_recipe_are_in_no_mean_though_the_claim_is_that_all_fail(fake_store):
    claim = "claim=dense1000_raw_002"
    own = recorded(fake_store, (0.1, 0.1, 0.1), claim, same=True, loss=14.5)
    failed = recorded(fake_store, (0.098, 0.098), claim, "loss=cross_entropy", loss=float("nan"), counterpart="logits")
    trained = recorded(fake_store, (0.8655,), claim, "loss=cross_entropy", loss=0.4, seed=2, counterpart="logits")
    runs = own | failed | trained
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    assert "| loss=cross_entropy | 2 of 3 failed; others 0.8655 | 3 |" in (fake_store.folder / "report.md").read_text()


def test_a_run_at_chance_reproduces_nothing(fake_store, capsys):
    collapsed = recorded(fake_store, (0.1,), "claim=simple_004", same=True, loss=2.3)
    runs = collapsed | recorded(fake_store, FIVE, "claim=simple_004", seed=1, predictions=False)
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    assert "1 claim: 1 CANNOT TELL." in capsys.readouterr().out
    (row,) = rows_of(fake_store.folder)
    assert (row["diverged"], row["collapsed"], float(row["mean_acc"])) == ("0", "1", pytest.approx(np.mean(FIVE)))
    assert "1 of 6 failed; others" in (fake_store.folder / "report.md").read_text()


def test_of_two_runs_of_a_seed_the_first_counts_for_a_claim(fake_store):
    runs = recorded(fake_store, FIVE, "claim=simple_004") | recorded(fake_store, (0.95,), "claim=simple_004")
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    (row,) = rows_of(fake_store.folder)
    assert row["accuracies"] == " ".join(f"{each:.4f}" for each in FIVE)


def test_how_many_runs_reach_a_claim_is_said_and_how_often_the_test_images_were_read(fake_store, capsys):
    runs = recorded(fake_store, FIVE, "claim=simple_004")  # of 0.9914
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report() is None
    (row,) = rows_of(fake_store.folder)
    place = stats.percentileofscore(FIVE, 0.9914, kind="mean")
    assert (row["reached"], float(row["percentile"])) == ("2", pytest.approx(place))
    page = (fake_store.folder / "report.md").read_text()
    assert "2 of these runs reach the claim, which is at their percentile 60" in page
    assert "mnist: test set read 5 times in this store." in page
    assert "mnist: test set read 5 times in this store." in capsys.readouterr().out


def test_a_claim_of_training_is_judged_by_training(fake_store, capsys):
    runs = recorded(fake_store, [0.88] * 5, "claim=tf_fashion", data="fashion_mnist")
    for run_id, accuracy in zip(runs, (0.9098, 0.9101, 0.9103, 0.9107, 0.9106), strict=True):
        fake_store.harness.client.log_metric(run_id, "train/acc", accuracy, step=3)
    fake_store.sweep("claims", *runs, overrides=runs)
    assert fake_store.report("report.sweep=claims") is None
    assert "1 claim: 1 REPRODUCED" in capsys.readouterr().out
    (row,) = rows_of(fake_store.folder)
    assert row["accuracies"] == "0.9098 0.9101 0.9103 0.9107 0.9106"
    expected = 1.96 * (0.91 * 0.09 / 4000) ** 0.5  # as many as the store has for training
    assert float(row["resolution"]) == pytest.approx(expected, abs=1e-6)

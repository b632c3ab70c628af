"""The report through its entry point: on real runs, on made-up ones with known differences, and on bad input."""

import csv

import mlflow
import numpy as np
import pytest
from conftest import Harness
from fake_store import FakeStore
from scipy import stats

from digitlab.report import versus
from digitlab.tracking import references
from digitlab.tracking.store import Store

ACCURACIES = {
    ("cnn", "adam"): (0.98, 0.986, 0.983),
    ("cnn", "sgd"): (0.979, 0.987, 0.98),
    ("mlp", "adam"): (0.9, 0.91, 0.9),
}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A sweep of three cells x three seeds, and its report."""
    fake_store = FakeStore(Harness(tmp_path_factory.mktemp("reported") / "fake_store"))
    ids = [
        fake_store.record(model, optim, seed, accuracy)
        for (model, optim), accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    fake_store.parent = fake_store.sweep("small", *ids)
    assert fake_store.report("report.sweep=small") is None
    return fake_store


def test_the_numbers_of_the_table_match_scipy(reported):
    cells = reported.cells()
    assert set(cells) == {"cnn/adam", "cnn/sgd", "mlp/adam"}
    for (model, optim), accuracies in ACCURACIES.items():
        row = cells[f"{model}/{optim}"]
        mean = np.mean(accuracies)
        low, high = stats.t.interval(0.95, 2, mean, stats.sem(accuracies))
        found = [float(row[key]) for key in ("test_acc", "low", "high")]
        assert found == pytest.approx([mean, low, high], abs=1e-6)
        assert (row["n"], row["parameters"], row["epochs"], row["epoch_s"]) == ("3", "1234", "3", "2.0")
    assert [cells[name]["is_best"] for name in cells] == ["True", "False", "False"]
    assert [cells[name]["is_tied"] for name in cells] == ["False", "True", "False"]
    # val/acc is 1 and 2 points lower an epoch and two before the last; 40 steps of 100 images an epoch
    assert [cells["cnn/adam"][f"{what}_to_0.97"] for what in ("reached", "epochs", "steps", "seconds")] == [
        "3", "2.0", "80.0", "4.0"
    ]  # fmt: skip
    assert cells["mlp/adam"]["epochs_to_0.97"] == "inf"


def test_every_format_says_the_same(reported):
    html, markdown, tex = ((reported.folder / f"report.{kind}").read_text() for kind in ("html", "md", "tex"))
    best = "cnn/adam (★) is best at 0.9830 ± 0.0075 (n = 3) on these 1,000 test images"
    sentence = f"{best}; 1 of the 2 other cells (≈) is statistically indistinguishable from it."
    assert sentence in html
    assert sentence in markdown
    assert "| cnn | ★ 0.9830 ± 0.0075 | ≈ 0.9820 ± 0.0108 |" in markdown
    assert r"cnn & $\star$ 0.9830 $\pm$ 0.0075 & $\approx$ 0.9820 $\pm$ 0.0108 \\" in tex
    with (reported.folder / "pairs.csv").open() as file:
        pairs = {(row["one"], row["other"]): float(row["p"]) for row in csv.DictReader(file)}
    assert pairs["cnn/adam", "cnn/sgd"] == pytest.approx(
        stats.ttest_ind(*(ACCURACIES["cnn", optim] for optim in ("adam", "sgd")), equal_var=False).pvalue
    )


def test_the_report_is_stored_with_the_sweeps_run(reported):
    listed = {each.path for each in reported.harness.client.list_artifacts(reported.parent, "report")}
    assert {f"report/report.{kind}" for kind in ("html", "md", "csv", "tex")} < listed


def test_the_terminal_shows_the_matrix_and_the_conclusion(reported, capsys):
    assert reported.report() is None  # the latest sweep
    said = capsys.readouterr().out
    assert "★ 0.9830 ± 0.0075" in said
    assert "cnn/adam (★) is best at 0.9830" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["report.sweep=larg"], "error: report: sweep=larg: not found; there are: small"),
        (["report.filter=tags.model ="], "error: report: filter=tags.model =: "),
        (["report.filter=tags.seed = 'no'"], "error: report: filter=tags.seed = 'no': finds no run that is done"),
        (["+seed=1"], "error: seed: unknown key; allowed: report, tracking"),
        (
            ["report.swep=x"],
            "error: report.swep: unknown key; allowed: sweep, filter, counterparts, margin, arm, seed, metric, dir",
        ),
        (["tracking.experiment=other"], "error: tracking: experiment=other: not found; there are: Default, digitlab"),
        (
            ["tracking.uri=sqlite:////nowhere/x.db"],
            "error: tracking: uri=sqlite:////nowhere/x.db: there is no such file",
        ),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(reported, tmp_path, arguments, complaint):
    before = len(reported.harness.client.search_experiments())
    said = reported.harness.main(*arguments, f"report.dir={tmp_path / 'none'}", entry_point="report")
    assert str(said).startswith(complaint)
    assert "\n" not in said
    assert not (tmp_path / "none").exists()
    assert len(reported.harness.client.search_experiments()) == before


@pytest.mark.slow
def test_a_filter_selects_from_a_sweep_or_from_all_runs(reported):
    assert reported.report("report.filter=tags.fingerprint LIKE '%sgd%'") is None
    assert set(reported.cells()) == {"cnn/sgd"}
    assert reported.report("report.sweep=small", "report.filter=params.model = 'cnn'") is None
    assert set(reported.cells()) == {"cnn/sgd", "cnn/adam"}
    markdown = (reported.folder / "report.md").read_text()
    assert "Of this sweep the runs that the filter finds: params.model = 'cnn'." in markdown
    assert reported.report("report.sweep=small") is None


def test_only_done_runs_count_and_missing_cells_are_named(fake_store, capsys):
    done = fake_store.record("cnn", "adam", 0, 0.98)
    broken = fake_store.record("cnn", "sgd", 0, 0.99, done=False)
    fake_store.sweep("half", done, broken)
    assert fake_store.report() is None
    assert set(fake_store.cells()) == {"cnn/adam"}
    said = capsys.readouterr().out
    assert "1 of 2 cells of the sweep is not done, and not in this report: cnn-sgd-s0" in said
    assert "One seed only" in said


def test_two_single_runs_are_compared_by_their_predictions(fake_store, capsys):
    fake_store.sweep("pair", fake_store.record("cnn", "adam", 0, 0.99), fake_store.record("mlp", "adam", 0, 0.95))
    assert fake_store.report() is None
    with (fake_store.folder / "pairs.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert (pair["test"], float(pair["p"])) == ("McNemar", pytest.approx(2 * 0.5**40))
    assert fake_store.cells()["mlp/adam"]["is_tied"] == "False"


def test_missing_predictions_are_reported(fake_store, capsys):
    fake_store.sweep("pair", *(fake_store.record(model, "adam", 0, 0.9, predictions=False) for model in ("cnn", "mlp")))
    assert fake_store.report() is None
    assert "Not tested, and counted as indistinguishable: 1 of 1 pair." in capsys.readouterr().out


@pytest.mark.parametrize(("predictions", "said"), [(True, "by all 2 seeds"), (False, "have no predictions.npz")])
def test_misclassified_images_are_compared_where_predictions_were_stored(fake_store, predictions, said):
    fake_store.sweep(
        "seeds", *(fake_store.record("cnn", "adam", seed, 0.9, predictions=predictions) for seed in range(2))
    )
    assert fake_store.report() is None
    assert said in (fake_store.folder / "report.md").read_text()
    assert (fake_store.folder / "figures" / "misclassified_by_all.png").exists() is predictions


def test_mixed_data_is_refused_with_a_way_out(fake_store):
    ids = [fake_store.record("cnn", "adam", 0, 0.9), fake_store.record("cnn", "adam", 0, 0.9, data="mnist")]
    fake_store.sweep("mixed", *ids)
    assert str(fake_store.report()).startswith("error: report: mixed data: ")
    assert fake_store.report("report.sweep=mixed", "report.filter=params.data = 'mnist'") is None


def test_a_confounder_is_named_before_the_table(fake_store, capsys):
    ids = [fake_store.record("cnn", "adam", seed, 0.98, epochs=3) for seed in range(3)]
    ids.append(fake_store.record("cnn", "sgd", 0, 0.98, epochs=9))
    fake_store.sweep("confounded", *ids)
    assert fake_store.report() is None
    assert "not the same in all runs: trainer.max_epochs: 3 (3 runs); 9 (cnn-sgd-s0)" in capsys.readouterr().out
    markdown = (fake_store.folder / "report.md").read_text()
    assert markdown.index("trainer.max_epochs: 3 (3 runs)") < markdown.index("| network |")


def test_a_tuned_learning_rate_is_shown_with_how_many_were_tried(fake_store):
    tried = {"0.01": (0.97, 0.975), "0.1": (0.98, 0.985), "1.0": (0.9, 0.91)}
    ids = [
        fake_store.record("cnn", "sgd", seed, accuracy, **{"optim.lr": rate})
        for rate, accuracies in tried.items() for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    fake_store.sweep("tune", *ids)
    assert fake_store.report() is None
    row = fake_store.cells()["cnn/sgd"]
    assert (row["lr"], row["rates_tried"], float(row["test_acc"])) == ("0.1", "3", pytest.approx(0.9825))
    markdown = (fake_store.folder / "report.md").read_text()
    assert "0.1 of 3 tried" in markdown
    assert "(figures/rates.svg)" in markdown
    assert (fake_store.folder / "figures" / "rates.svg").stat().st_size > 1000


def test_every_report_says_how_often_the_test_images_of_its_data_were_read(fake_store, capsys):
    ids = [fake_store.record("cnn", "adam", seed, 0.99) for seed in range(2)]
    fake_store.record("cnn", "sgd", 0, 0.99, tested=False)
    fake_store.record("cnn", "sgd", 0, 0.99, data="mnist")
    fake_store.sweep("one", *ids)
    assert fake_store.report() is None
    assert "mnist5k: test set read 2 times in this store." in capsys.readouterr().out
    fake_store.record("cnn", "sgd", 1, 0.99, epochs=3, **{"data.split": "test"})  # once, and as step 0, 1, 2, 3
    deleted = fake_store.record("cnn", "sgd", 2, 0.99)
    fake_store.harness.client.delete_run(deleted)
    assert fake_store.report() is None
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist5k: test set read 8 times in this store, 4 of them to validate after an epoch." in said


def test_a_run_that_was_not_tested_has_nothing_to_report_or_compare(fake_store):
    ids = [fake_store.record("cnn", "adam", seed, 0.99, tested=False) for seed in range(2)]
    fake_store.sweep("one", *ids)
    assert fake_store.report() == "error: report: no run has been tested, so there is nothing to report"
    assert not fake_store.folder.exists()
    tested = fake_store.record("mlp", "adam", 0, 0.9)
    store = Store(f"sqlite:///{fake_store.harness.folder}/mlflow.db", "digitlab")
    store.open(create=False)
    assert references.resolve(store, "best").info.run_id == tested
    with pytest.raises(ValueError, match="has not been tested"):
        versus.compare(store, ids[0], tested, 0.001)


def test_a_folder_that_cannot_be_written_gets_one_line(fake_store, tmp_path):
    fake_store.sweep("one", fake_store.record("cnn", "adam", 0, 0.9))
    (tmp_path / "file").touch()
    said = fake_store.harness.main(f"report.dir={tmp_path / 'file'}", entry_point="report")
    assert said.startswith(f"error: report.dir={tmp_path / 'file'}: ")


@pytest.mark.slow
def test_seconds_of_runs_that_shared_their_machine_do_not_count(fake_store, capsys):
    ids = [fake_store.record("cnn", "adam", seed, 0.99) for seed in range(2)]
    fake_store.clock -= 10_000
    ids.append(fake_store.record("cnn", "adam", 2, 0.99))  # while seed 1 ran
    fake_store.sweep("contended", *ids)
    assert fake_store.report() is None
    assert "Seconds are from 1 of 3 runs" in capsys.readouterr().out


def test_a_dead_run_does_not_contend_with_later_ones(fake_store, capsys):
    dead = fake_store.harness.client.create_run(
        fake_store.experiment, fake_store.clock, {"fingerprint": "dead", "owner": "here:1:1"}
    )
    assert dead.info.status == "RUNNING"
    fake_store.clock += 1000
    fake_store.sweep("alone", *(fake_store.record("cnn", "adam", seed, 0.99) for seed in range(2)))
    assert fake_store.report() is None
    assert "Seconds are from" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A real sweep: one network x two optimizers."""
    harness = Harness(tmp_path_factory.mktemp("swept") / "harness")
    cells = ("model=mlp", "optim=adam,sgd", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke")
    assert harness.main("-m", *cells, "sweep.name=two") is None
    (described,) = (run.data.tags["mlflow.note.content"] for run in harness.runs() if run.info.run_name == "two")
    assert described.startswith("What it shows: `python src/report.py report.sweep=two`\n\n| run | status |")
    return harness


def test_a_real_sweep_is_reported(swept, tmp_path, capsys):
    assert swept.main(f"report.dir={tmp_path}", entry_point="report") is None
    said = capsys.readouterr().out
    assert "mlp/adam (★) is best at 0." in said
    assert "not the same in all runs: code" not in said.replace("code changed since its commit", "")
    adam, sgd = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    runs = {run.data.tags.get("optim"): run.data.metrics for run in swept.runs()}
    for row, optim in ((adam, "adam"), (sgd, "sgd")):
        assert float(row["test_acc"]) == pytest.approx(runs[optim]["test/acc"], abs=1e-6)
        assert row["parameters"] == "669706"
        assert float(row["epoch_s"]) > 0
    parent = swept.parent()
    assert mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report/report.md").startswith("# two: ")
    described = parent.data.tags["mlflow.note.content"]
    assert "mlp/adam (★) is best at 0." in described
    assert f"runs/{parent.info.run_id}/artifacts/report/report.html)" in described
    for run in swept.runs():
        address = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        assert f"[{run.info.run_name}]({address})" in described or run.info.run_id == parent.info.run_id


@pytest.mark.parametrize(("networks", "seeds"), [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("loss", [float("nan"), 2.3])
def test_a_report_of_nothing_but_failed_runs_says_so(fake_store, networks, seeds, loss):
    for model in ("mlp", "cnn")[:networks]:
        for seed in range(seeds):
            fake_store.record(model, "adam", seed, 0.5 if loss == loss else 0.1, loss=loss, same=loss == loss)
    assert fake_store.report("report.filter=params.data = 'mnist5k'") is None
    text = (fake_store.folder / "report.md").read_text()
    assert "diverged" in text if loss != loss else "one class" in text

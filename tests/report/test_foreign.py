"""Reports on runs that digitlab did not make, in a store that only MLflow wrote to."""

import csv
import itertools
import re

import mlflow
import numpy as np
import pytest
from conftest import Harness
from fake_store import FakeStore, empty_tables
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from scipy import stats

ACCURACIES = {
    ("resnet", "adam"): (0.91, 0.93, 0.92),
    ("resnet", "sgd"): (0.9, 0.94, 0.91),
    ("vit", "sgd"): (0.7, 0.72, 0.71),
}
KEYS = ("report.arm=params.model,params.optimizer", "report.seed=params.seed", "report.metric=metrics.test_acc")


class Others:
    """A store of somebody else's runs."""

    def __init__(self, folder):
        self.harness, self.folder = Harness(folder), folder / "report"
        folder.mkdir()
        (folder / "mlflow.db").write_bytes(empty_tables())
        self.client: MlflowClient = self.harness.client
        self.experiment = self.client.create_experiment("theirs", (folder / "artifacts").as_uri())
        self.clock = itertools.count(1_700_000_000_000, 10_000)

    def record(self, metrics: dict[str, float], status: str = "FINISHED", **params: object) -> str:
        began = next(self.clock)
        run = self.client.create_run(self.experiment, began).info.run_id
        points = [Metric(key, value, began, 1) for key, value in metrics.items()]
        self.client.log_batch(run, points, [Param(key, str(value)) for key, value in params.items()])
        self.client.set_terminated(run, status, began + 5000)
        return run

    def fill(self, metric: str = "test_acc", scale: float = 1) -> None:
        for (model, optimizer), accuracies in ACCURACIES.items():
            for seed, accuracy in enumerate(accuracies):
                self.record({metric: accuracy * scale}, model=model, optimizer=optimizer, seed=seed)

    def report(self, *arguments: str):
        arguments = (f"report.dir={self.folder}", "tracking.experiment=theirs", *arguments)
        return self.harness.main(*arguments, entry_point="report")

    def cells(self) -> dict[str, dict[str, str]]:
        with (self.folder / "report.csv").open() as file:
            return {
                "/".join(filter(None, (row["model"], row["optim"], row["variant"]))): row
                for row in csv.DictReader(file)
            }


@pytest.fixture
def others(tmp_path) -> Others:
    return Others(tmp_path / "others")


def test_runs_of_another_program_are_compared(others, capsys):
    others.fill()
    others.record({"test_acc": 0.99}, "FAILED", model="resnet", optimizer="sgd", seed=3)
    others.record({"loss": 0.1}, model="resnet", optimizer="sgd", seed=4)
    assert others.report(*KEYS) is None
    cells = others.cells()
    assert set(cells) == {"resnet/adam", "resnet/sgd", "vit/sgd"}
    for (model, optimizer), accuracies in ACCURACIES.items():
        row = cells[f"{model}/{optimizer}"]
        low, high = stats.t.interval(0.95, 2, np.mean(accuracies), stats.sem(accuracies))
        found = [float(row[key]) for key in ("test_acc", "low", "high")]
        assert found == pytest.approx([np.mean(accuracies), low, high], abs=1e-6)
    assert [cells[name]["is_best"] for name in cells] == ["True", "False", "False"]
    assert [cells[name]["is_tied"] for name in cells] == ["False", "True", "False"]
    with (others.folder / "pairs.csv").open() as file:
        pairs = {(row["one"], row["other"]): float(row["p"]) for row in csv.DictReader(file)}
    expected = stats.ttest_ind(*(ACCURACIES["resnet", each] for each in ("adam", "sgd")), equal_var=False).pvalue
    assert pairs["resnet/adam", "resnet/sgd"] == pytest.approx(expected)
    said = capsys.readouterr().out
    assert "Left out of 11 runs: 1 not finished, 1 without metrics.test_acc." in said
    markdown = (others.folder / "report.md").read_text()
    assert markdown.startswith("# theirs: 2 models × 2 optimizers on theirs\n")
    assert "| model | adam | sgd |" in markdown
    for unknown in ("test images", "validation accuracy", "Curves", "network"):  # nothing is made up
        assert unknown not in markdown.partition("## How this was decided")[0]
    assert not re.search(r"\bnan\b", markdown)


def test_digitlabs_own_runs_read_as_foreign_give_the_same_numbers(tmp_path):
    store = FakeStore(Harness(tmp_path / "fake_store"))
    for (model, optimizer), accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            store.record(model, optimizer, seed, accuracy)
    own, foreign = [], []
    for rows, keys in (
        (own, ["report.filter=params.data = 'mnist5k'"]),
        (
            foreign,
            ["report.arm=params.model, params.optim", "report.seed=params.seed", "report.metric=metrics.test/acc"],
        ),
    ):
        assert store.report(*keys) is None
        for row in store.cells().values():
            rows.append([row[key] for key in ("model", "optim", "test_acc", "low", "high", "p_best", "is_tied")])
    assert own == foreign


def test_a_filter_chooses_among_foreign_runs(others, capsys):
    others.fill()
    assert others.report(*KEYS, "report.filter=params.model = 'resnet'") is None
    assert set(others.cells()) == {"resnet/adam", "resnet/sgd"}
    assert "chosen by a result" not in capsys.readouterr().out
    assert others.report(*KEYS, "report.filter=metrics.test_acc > 0.8") is None
    assert "note: They were chosen by a result" in capsys.readouterr().out


def test_without_a_seed_the_runs_of_an_arm_are_repeats(others):
    others.fill()
    assert others.report("report.arm=params.model", "report.metric=metrics.test_acc") is None
    cells = others.cells()
    assert {name: row["n"] for name, row in cells.items()} == {"resnet": "6", "vit": "3"}
    markdown = (others.folder / "report.md").read_text()
    assert "| model | test accuracy |" in markdown
    assert "params.optimizer: sgd (6 runs); adam (3 runs)" in markdown  # it differs, and is not compared


def test_more_than_two_keys_name_the_arm(others):
    for depth, accuracy in ((18, 0.9), (50, 0.95)):
        for seed in range(3):
            others.record({"a b": accuracy + seed / 100}, net="resnet", opt="sgd", depth=depth, seed=seed)
    keys = ("report.arm=params.net,params.opt,params.depth", "report.seed=params.seed", "report.metric=metrics.`a b`")
    assert others.report(*keys) is None
    assert set(others.cells()) == {"resnet/sgd depth=18", "resnet/sgd depth=50"}


def test_runs_of_an_arm_and_a_seed_that_differ_are_not_mixed(others):
    for rate, accuracy in (("0.1", 0.9), ("0.01", 0.8)):
        for seed in range(3):
            others.record(
                {"test_acc": accuracy + seed / 100}, model="m", optimizer="o", seed=seed, **{"optim.lr": rate}
            )
    assert others.report(*KEYS) is None
    assert set(others.cells()) == {f"m/o/params.optim.lr={rate}" for rate in ("0.1", "0.01")}


def test_percent_is_read_as_a_share_and_said(others, capsys):
    others.fill(scale=100)
    assert others.report(*KEYS) is None
    assert float(others.cells()["resnet/adam"]["test_acc"]) == pytest.approx(0.92)
    assert "metrics.test_acc is in percent there" in capsys.readouterr().out


def test_a_run_that_ended_in_nan_counts_as_diverged(others):
    others.fill()
    others.record({"test_acc": float("nan")}, model="resnet", optimizer="adam", seed=3)
    assert others.report(*KEYS) is None
    row = others.cells()["resnet/adam"]
    assert (row["n"], row["diverged"], row["is_best"]) == ("4", "1", "False")


def test_the_number_of_test_images_is_that_of_the_evaluated_data_set(others):
    others.fill()
    mlflow.set_tracking_uri(others.harness.uri)
    mlflow.set_experiment("theirs")
    data = mlflow.data.from_numpy(np.zeros((250, 2)), name="digits")
    with mlflow.start_run():
        mlflow.log_input(mlflow.data.from_numpy(np.ones((9, 2)), name="other"), context="training")
        mlflow.log_input(data, context="test")
        mlflow.log_params({"model": "alone", "optimizer": "adam", "seed": 0})
        mlflow.log_metric("test_acc", 0.9)
    assert others.report(*KEYS, "report.filter=params.model = 'alone'") is None
    row = others.cells()["alone/adam"]
    expected = stats.binomtest(225, 250).proportion_ci(method="wilson")
    assert [float(row["low"]), float(row["high"])] == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert row["data"] == "digits"


def test_single_runs_of_unknown_images_claim_nothing(others, capsys):
    others.record({"test_acc": 0.9}, model="a", optimizer="o", seed=0)
    others.record({"test_acc": 0.8}, model="b", optimizer="o", seed=0)
    assert others.report(*KEYS) is None
    assert others.cells()["b/o"]["is_tied"] == "True"
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "predictions.npz" not in said
    assert "0 test images" not in said


MISTAKES = {
    "an unknown parameter": (
        ["report.arm=params.modle,params.optimizer", *KEYS[1:]],
        "report: arm=params.modle: no finished run has it; there are: params.model, params.optimizer, params.seed; "
        "did you mean: params.model",
    ),
    "an unknown metric": (
        [*KEYS[:2], "report.metric=metrics.acc"],
        "report: metric=metrics.acc: no finished run has it; there are: metrics.test_acc",
    ),
    "no tags": (
        [KEYS[0], "report.seed=tags.seed", KEYS[2]],
        "report: seed=tags.seed: no finished run has it; there are: no tags",
    ),
    "a seed that is a word": (
        [KEYS[0], "report.seed=params.model", KEYS[2]],
        "report: seed=params.model: must be a number in every run; one has 'resnet'",
    ),
    "an empty filter": (
        [*KEYS, "report.filter=params.model = 'none'"],
        "report: filter=params.model = 'none': finds no run that is finished",
    ),
    "no filter": ([*KEYS, "report.filter=params.model ="], "report: filter=params.model =: "),
    "an arm of no kind": (
        ["report.arm=model", *KEYS[1:]],
        "report.arm=model: must be null or params.NAME or tags.NAME, or several of these with commas",
    ),
    "a comma too many": (
        ["report.arm=params.model,", *KEYS[1:]],
        "report.arm=params.model,: must be null or params.NAME or tags.NAME",
    ),
    "a metric that is none": (
        [*KEYS[:2], "report.metric=params.test_acc"],
        "report.metric=params.test_acc: must be null or metrics.NAME",
    ),
    "a loss": (
        [*KEYS[:2], "report.metric=metrics.test_loss"],
        "report: metric=metrics.test_loss: must be an accuracy, of which more is better",
    ),
    "an arm alone": (KEYS[:1], f"{KEYS[0]}: is for runs that digitlab did not make, which need report.metric too"),
    "a seed alone": (KEYS[1:2], f"{KEYS[1]}: is for runs that digitlab did not make, which need report.arm too"),
    "a metric alone": (KEYS[2:], f"{KEYS[2]}: is for runs that digitlab did not make, which need report.arm too"),
    "a sweep": (
        [*KEYS, "report.sweep=latest"],
        "report.sweep=latest: has digitlab's own runs; choose others with report.filter",
    ),
}


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(mistaken, arguments, complaint):
    said = mistaken.report(*arguments)
    assert str(said).startswith(f"error: {complaint}")
    assert "\n" not in said
    assert not mistaken.folder.exists()


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory) -> Others:
    others = Others(tmp_path_factory.mktemp("mistaken") / "others")
    others.fill()
    return others


@pytest.mark.parametrize("values", [(0.9, 1.7), (97.0, 0.5), (-0.1, 0.5), (150.0, 99.0)])
def test_what_is_no_accuracy_is_refused(others, values):
    for seed, value in enumerate(values):
        others.record({"test_acc": value}, model="m", optimizer="o", seed=seed)
    assert str(others.report(*KEYS)).startswith(
        "error: report: metric=metrics.test_acc: must be an accuracy from 0 to 1"
    )
    assert not others.folder.exists()

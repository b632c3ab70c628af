"""`digitlab explain`, `rerun` and `register`: one real run, repeated and registered, and promotions of made-up ones."""

from unittest.mock import Mock

import numpy as np
import pytest
from fake_store import FakeStore
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_precision

TINY = ("model=mlp", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke", "model.hidden=[{units: 8}]")


def say(harness, capsys, *arguments):
    capsys.readouterr()
    code = harness.main(*arguments, entry_point="digitlab")
    captured = capsys.readouterr()
    return code or 0, captured.out + captured.err


@pytest.mark.slow
def test_a_run_is_explained_repeated_and_registered(harness, capsys):
    """Precision and calibration on the card are torchmetrics'."""
    import mlflow
    import torch

    assert harness.main("train", *TINY, "seed=3", entry_point="digitlab") is None
    (run,) = harness.runs()
    code, said = say(harness, capsys, "explain", run.info.run_id[:6])
    assert code == 0
    words = " ".join(said.replace("│", " ").split())
    for expected in (
        f"run {run.info.run_id}, done",
        f"command digitlab train {' '.join(TINY[:-1])}",
        f"code commit {run.data.tags['mlflow.source.git.commit']}",
        "data mnist5k: ",
        "data.test_fraction 0.8 0.1",
        "torch 2.",
    ):
        assert expected in words
    assert "\n  seed" not in said
    code, said = say(harness, capsys, "rerun", "latest")
    assert code == 0
    assert said.splitlines()[-1].startswith("identical: every prediction and the loss are the same to the bit (")
    runs = harness.runs()
    assert len(runs) == 2
    assert len({each.data.tags["fingerprint"] for each in runs}) == len({each.info.run_name for each in runs}) == 1
    code, said = say(harness, capsys, "register", run.info.run_id, "--name", "digits", "--alias", "champion")
    assert code == 0
    assert said.splitlines()[-1] == "registered as models:/digits/1, which is models:/digits@champion"
    version = harness.client.get_model_version_by_alias("digits", "champion")
    card = version.description
    experiment = [run.info.experiment_id]
    (model,) = harness.client.search_logged_models(experiment, f"source_run_id = '{run.info.run_id}'")
    assert model.tags["mlflow.note.content"] == card
    folder = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/predictions.npz")
    with np.load(folder) as arrays:
        probabilities, labels = (torch.from_numpy(arrays[name]) for name in ("probabilities", "labels"))
    error = multiclass_calibration_error(probabilities, labels, 10, n_bins=15)
    precision = multiclass_precision(probabilities.argmax(1), labels, 10, average=None)
    assert f"expected calibration error {error:.4f}" in card
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [float(row[2]) for row in rows if row[2] not in ("none", "0.0000")] == pytest.approx(
        [float(each) for each in precision if each > 0], abs=5e-5
    )
    interval = stats.binomtest(round(run.data.metrics["test/acc"] * len(labels)), len(labels)).proportion_ci(
        method="wilson"
    )
    assert f"(95 % interval {interval.low:.4f} to {interval.high:.4f}, n = {len(labels):,})" in card
    assert "license of the data: that of MNIST" in card
    program = card.partition("```python\n")[2].partition("```")[0]
    scope = {"images": np.zeros((2, 28, 28), np.uint8)}
    exec(program, scope)
    assert scope["probabilities"].shape == (2, 10)
    assert say(harness, capsys, "compare", "models:/digits@champion", run.info.run_id)[0] == 0
    assert say(harness, capsys, "register", run.info.run_id, "--name", "digits", "--alias", "champion")[0] == 0
    assert len(harness.client.search_model_versions("name = 'digits'")) == 1
    by_alias, by_id = (say(harness, capsys, "explain", each) for each in ("champion", run.info.run_id))
    assert by_alias == by_id
    assert by_alias[0] == 0


@pytest.fixture
def fake(harness):
    return FakeStore(harness)


def with_model(fake, *arguments, **settings) -> str:
    """Record a made-up run with a LoggedModel that holds nothing."""
    run_id = fake.record(*arguments, **settings)
    client = fake.harness.client
    model = client.create_logged_model(fake.experiment, name="m", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return run_id


def test_a_worse_model_is_not_promoted_unless_forced(fake, harness, capsys, monkeypatch):
    promote = ("--name", "digits", "--alias", "champion")
    first = with_model(fake, "mlp", "adam", 0, 0.95)
    assert say(harness, capsys, "register", first, *promote)[0] == 0
    worse, close = with_model(fake, "cnn", "adam", 0, 0.92), with_model(fake, "cnn", "sgd", 0, 0.949)
    code, said = say(harness, capsys, "register", worse, *promote)
    assert code == 1
    assert "On the same 1,000 test images it is worse than the model before it, by -3.00 points" in said
    assert f"p = {stats.binomtest(0, 30).pvalue:.2g}" in said
    assert harness.client.get_model_version_by_alias("digits", "champion").run_id == first
    assert len(harness.client.search_model_versions("name = 'digits'")) == 1
    code, said = say(harness, capsys, "register", close, *promote)
    assert code == 0
    assert "not shown to differ (cannot tell) from the model before it" in said
    assert harness.client.get_model_version_by_alias("digits", "champion").run_id == close
    assert say(harness, capsys, "register", worse, *promote, "--force")[0] == 0
    assert harness.client.get_model_version_by_alias("digits", "champion").run_id == worse
    with monkeypatch.context() as patch:  # who may not read the champion cannot say that another is no worse
        forbidden = MlflowException("Permission denied", PERMISSION_DENIED)
        patch.setattr(MlflowClient, "get_model_version_by_alias", Mock(side_effect=forbidden))
        assert say(harness, capsys, "register", close, *promote)[0] == 2
    assert harness.client.get_model_version_by_alias("digits", "champion").run_id == worse
    other = with_model(fake, "mlp", "adam", 0, 0.5, digest="0ther")
    code, said = say(harness, capsys, "register", other, *promote)
    assert code == 0
    assert "Cannot tell whether it is worse than the model before it: A and B were tested on other images" in said


def test_a_champion_with_a_run_at_chance_is_no_tie(fake, harness, capsys):
    promote = ("--name", "digits", "--alias", "champion")
    first = with_model(fake, "mlp", "adam", 5, 0.5, same=True)
    assert say(harness, capsys, "register", first, *promote)[0] == 0
    for seed, accuracy in enumerate((0.951, 0.949, 0.95, 0.952)):
        fake.record("mlp", "adam", seed, accuracy, predictions=False)
    for seed, accuracy in enumerate((0.901, 0.899, 0.9, 0.902), 1):
        fake.record("cnn", "adam", seed, accuracy, predictions=False)
    worse = with_model(fake, "cnn", "adam", 0, 0.9)
    code, said = say(harness, capsys, "register", worse, *promote)
    assert code == 1
    assert "at chance: 1 of 5 of A; they are in no mean. B is worse by 5.01 ± " in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["register", "nothing", "--name", "digits"], "register: nothing: no such run"),
        (["register", "mlp-adam-s0", "--name", "digits"], "register: mlp-adam-s0: has no logged model: "),
        (["register", "untested-adam-s0", "--name", "digits"], "register: untested-adam-s0: has no logged model: "),
        (["register", "cnn-adam-s0", "--name", "a/b"], "register: --name a/b: must be of letters"),
        (["register", "cnn-adam-s0", "--name", "a", "--alias", "latest"], "register: --alias latest: must be of "),
        (["register", "cnn-adam-s0", "--name", "a", "--alias", "v1"], "register: --alias v1: must be of "),
        (["register", "cnn-adam-s0", "--name", "a", "--alias", "a@b"], "register: --alias a@b: must be of "),
        (["register", "unfinished-adam-s0", "--name", "a"], "register: unfinished-adam-s0: is not done"),
        (["rerun", "unfinished-adam-s0"], "rerun: unfinished-adam-s0: is not done"),
        (["rerun", "untested-adam-s0"], "rerun: untested-adam-s0: has not been tested"),
        (["rerun", "mlp-adam-s0"], "rerun: mlp-adam-s0: has no config.yaml"),
        (["explain", "mlp"], "explain: mlp: no such run; alike are: "),
        (["explain", "latest", "--experiment", "x"], "explain: experiment=x: not found; there are: "),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(fake, harness, capsys, arguments, words):
    fake.record("mlp", "adam", 0, 0.9)
    with_model(fake, "cnn", "adam", 0, 0.9)
    fake.record("unfinished", "adam", 0, 0.9, done=False)
    fake.record("untested", "adam", 0, 0.9, tested=False)
    code, said = say(harness, capsys, *arguments)
    assert code == 2
    assert said.splitlines()[-1].startswith(f"error: {words}")
    assert not harness.client.search_registered_models()
    assert len(harness.runs()) == 4


def test_the_shell_completes_the_names_of_runs(fake, harness, capsys, monkeypatch):
    run_id = with_model(fake, "mlp", "adam", 0, 0.9)
    fake.sweep("grid", run_id)
    say(harness, capsys, "register", run_id, "--name", "digits", "--alias", "champion")
    complete = {"_DIGITLAB_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    for typed, expected in (
        ("", {"latest", "best", "mlp-adam-s0", "best:model=mlp", "best:sweep=grid", "models:/digits@champion"}),
        ("m", {"mlp-adam-s0", "models:/digits@champion"}),
        ("x", set()),
    ):
        for name, value in (complete | {"COMP_WORDS": f"digitlab compare {typed}"}).items():
            monkeypatch.setenv(name, value)
        _, said = say(harness, capsys, "compare")
        assert {line.partition(",")[2] for line in said.split()} == expected

"""What a run records: params, metrics, artifacts, figures, model."""

import json
import re

import mlflow
import numpy as np
import pytest
import torch
from conftest import Harness
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score

from digitlab.config.build import build
from digitlab.config.check import check
from digitlab.data import sources
from digitlab.training import record
from digitlab.training import run as training_run

MODELS = (
    "mlp",
    "cnn_simple",
    "cnn_pool",
    "cnn_single_5x5",
    "cnn_dense1000",
    "cnn_double_3x3",
    "cnn_double_5x5",
    "cnn_pool_wide",
    "cnn_wide",
)
TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=2", "trainer=cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """100 real images, ten of each digit, as a folder of class folders."""
    from PIL import Image

    root = tmp_path_factory.mktemp("digits")
    images, labels = sources.mnist5k().train
    for digit in range(10):
        (root / str(digit)).mkdir()
        for number, image in enumerate(images[labels == digit][:10]):
            Image.fromarray(image.numpy()).save(root / str(digit) / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return Harness(tmp_path_factory.mktemp("grid"), pictures=False)


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["adam", "sgd", "adadelta"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_learns_with_every_optimizer(grid, digits, model, optim, monkeypatch):
    monkeypatch.setattr(training_run, "evaluate", lambda *_: None)  # tested elsewhere
    monkeypatch.setattr(record, "summarize", lambda *_: None)
    wide = model in ("cnn_wide", "cnn_pool_wide")
    grid.train(
        f"model={model}", f"optim={optim}", "data=image_folder", f"data.root={digits}", "trainer=cpu",
        "data.batch_size=8", "model.dropout=false",
        *(("trainer.max_epochs=1", "data.test_fraction=0.6") if wide else ("trainer.max_epochs=3",)),
    )  # fmt: skip
    run = grid.runs()[0]
    assert run.data.params["model"] == model
    assert run.data.params["optim"] == optim
    losses = [loss for _, loss in grid.history(run, "val/loss")]
    assert min(losses[1:]) < losses[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and its harness."""
    harness = Harness(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["src/train.py", "tracking.uri=http://me:secret@host"])
        patch.setattr("digitlab.tracking.run.SYSTEM_METRICS_EVERY", 0.1)  # the run is short
        return record_one(harness)


def record_one(harness):
    result = harness.train(*TINY, "model=cnn_simple", "seed=3", "optim.lr=0.002", "data.augment.shift=1")
    return harness, harness.runs()[0], result


def test_names_tags_and_params_of_a_run_are_those_of_the_interface(finished):
    harness, run, result = finished
    assert run.info.run_name == "cnn_simple-adam-s3-mnist5k-" + "-".join(
        [
            "data.test_fraction=0.6",
            "data.val_fraction=0.3",
            "trainer.max_epochs=2",
            "optim.lr=0.002",
            "data.augment.shift=1",
        ]
    )
    assert run.info.status == "FINISHED"
    tags, params = run.data.tags, run.data.params
    assert tags["done"] == "true"
    for recorded in (tags, params):
        assert [recorded[key] for key in ("model", "optim", "data", "seed")] == ["cnn_simple", "adam", "mnist5k", "3"]
    assert tags["mlflow.user"]
    assert tags["git.dirty"] in ("true", "false")
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["command"] == "python src/train.py 'tracking.uri=http://***@host'"
    assert len(tags["fingerprint"]) == 16
    assert float(params["optim.lr"]) == 0.002
    assert json.loads(params["model.blocks"])[1] == {"channels": 64, "kernel": 3, "pool": 2, "dropout": 0.5}
    assert params["trainer.accelerator"] == "cpu"
    assert not any(key.startswith("tracking") for key in params)  # an address may hold a password
    assert result == max(value for step, value in harness.history(run, "val/acc") if step > 0)


def test_every_epoch_and_step_is_recorded_once(finished):
    harness, run, _ = finished
    steps = {key: [step for step, _ in harness.history(run, key)] for key in run.data.metrics}
    assert steps["val/loss"] == steps["val/acc"] == [0, 1, 2]
    for key in ("train/loss", "train/acc", "time/epoch_s", "images_per_s"):
        assert steps[key] == [1, 2]
    assert steps["train/loss_step"] == list(range(1, 2 * 4 + 1))
    assert len(steps["test/acc"]) == len(steps["test/loss"]) == 1
    assert "epoch" not in run.data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(steps)


def test_the_data_is_a_tracked_input(finished):
    _, run, _ = finished
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.name == "mnist5k"
    assert json.loads(dataset.profile) == {"train": 500, "val": 1500, "test": 3000}
    assert re.fullmatch(r"[0-9a-f]{12}", dataset.digest)


def test_artifacts_are_those_of_the_interface(finished):
    harness, run, _ = finished
    files = {each.path for each in harness.client.list_artifacts(run.info.run_id)}
    if run.data.tags["git.dirty"] == "true":  # this checkout's own
        files.remove("uncommitted.patch")
    assert files == {"checkpoints", "config.yaml", "environment.txt", "figures", "model_summary.txt", "predictions.npz"}
    figures = {each.path for each in harness.client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {f"figures/{name}.png" for name in ("samples", "curves", "confusion", "mistakes")}
    kept = [each.path for each in harness.client.list_artifacts(run.info.run_id, "checkpoints")]
    assert kept == ["checkpoints/best.ckpt"]
    config = OmegaConf.create(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml"))
    assert config.groups.optim == "adam"
    assert config.optim.lr == 0.002
    assert "34,826" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model_summary.txt")
    assert f"torch {torch.__version__.partition('+')[0]}" in mlflow.artifacts.load_text(
        f"{run.info.artifact_uri}/environment.txt"
    )


def test_predictions_and_the_logged_model_agree_with_the_metric(finished):
    harness, run, _ = finished
    path = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/predictions.npz")
    stored = np.load(path)
    assert accuracy_score(stored["labels"], stored["probabilities"].argmax(1)) == run.data.metrics["test/acc"]

    mlflow.set_tracking_uri(harness.uri)
    logged = harness.client.search_logged_models([run.info.experiment_id])[0]
    with pytest.MonkeyPatch.context() as patch:  # where there is a GPU, MLflow looks for a model there
        patch.setattr(torch.cuda, "is_available", lambda: True)
        model = mlflow.pyfunc.load_model(logged.model_uri)
    cfg = harness.compose(*TINY)
    data = build(check(cfg), "data")
    data.setup()
    images = data.splits["test"][0].numpy()
    np.testing.assert_allclose(model.predict(images[:7]), stored["probabilities"][:7], atol=1e-5)
    np.testing.assert_allclose(model.predict(images[:1]), stored["probabilities"][:1], atol=1e-5)
    assert logged.source_run_id == run.info.run_id
    assert model.metadata.metadata["classes"] == list("0123456789")
    by_run = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/cnn_simple-adam-s3")  # as the summary names it
    np.testing.assert_array_equal(by_run.predict(images[:7]), model.predict(images[:7]))
    weights_files = mlflow.artifacts.list_artifacts(f"{logged.artifact_location}/data")
    assert [file.path for file in weights_files] == ["data/model.pt2"]  # no pickle


def test_a_done_run_is_not_run_again(finished, capsys):
    harness, run, result = finished
    again = harness.train("optim.lr=0.002", *TINY, "seed=3", "model=cnn_simple", "data.augment.shift=1")
    assert again == result
    assert len(harness.runs()) == 1
    assert f"is done already (run {run.info.run_id})" in capsys.readouterr().out

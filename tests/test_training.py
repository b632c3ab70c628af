"""Whole runs, through the command line's own configuration: what they compute, record, skip and continue."""

import json
import os
import platform
import re
import signal
import subprocess
import sys

import mlflow
import numpy as np
import pytest
import torch
from conftest import Lab
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score

from digitlab import machine, sources, training
from digitlab.config import UserError
from digitlab.resume import EpochCheckpoint

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


def weights(lab: Lab, run) -> dict[str, torch.Tensor]:
    checkpoint = lab.folder / "artifacts" / run.info.run_id / "artifacts" / "checkpoints" / "best.ckpt"
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def history(lab: Lab, run, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in lab.client.get_metric_history(run.info.run_id, key)]


def same_numbers(lab: Lab, one, other) -> None:
    """Two runs agree to the last bit: weights, every point of every metric that is not a time."""
    ours, theirs = weights(lab, one), weights(lab, other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    keys = {key for key in one.data.metrics if key.startswith(("train/", "val/", "test/"))}
    assert keys == {
        "train/loss",
        "train/acc",
        "train/loss_step",
        "val/loss",
        "val/acc",
        "test/loss",
        "test/acc",
    }
    for key in keys:
        assert history(lab, one, key) == history(lab, other, key)


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
def grid_lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("grid"), pictures=False)


@pytest.mark.parametrize("optim", ["adam", "sgd", "adadelta"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_learns_with_every_optimizer(grid_lab, digits, model, optim, monkeypatch):
    for record in ("evaluate", "summarize"):  # they have tests of their own
        monkeypatch.setattr(training, record, lambda *_: None)
    wide = model in ("cnn_wide", "cnn_pool_wide")
    grid_lab.train(
        f"model={model}", f"optim={optim}", "data=image_folder", f"data.root={digits}", "trainer=cpu",
        "data.batch_size=8", "model.dropout=false",
        *(("trainer.max_epochs=1", "data.test_fraction=0.6") if wide else ("trainer.max_epochs=3",)),
    )  # fmt: skip
    run = grid_lab.runs()[0]
    assert run.data.params["model"] == model
    assert run.data.params["optim"] == optim
    losses = [loss for _, loss in history(grid_lab, run, "val/loss")]
    assert min(losses[1:]) < losses[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run, and its lab."""
    lab = Lab(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["src/train.py", "tracking.uri=http://me:secret@host"])
        patch.setattr("digitlab.run.SYSTEM_METRICS_EVERY", 0.1)  # the run is short
        return record_one(lab)


def record_one(lab):
    result = lab.train(*TINY, "model=cnn_simple", "seed=3", "optim.lr=0.002", "data.augment.shift=1")
    return lab, lab.runs()[0], result


def test_a_run_is_recorded_under_the_names_of_the_interface(finished):
    lab, run, result = finished
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
    for record in (tags, params):
        assert [record[key] for key in ("model", "optim", "data", "seed")] == ["cnn_simple", "adam", "mnist5k", "3"]
    assert tags["mlflow.user"]
    assert tags["git.dirty"] in ("true", "false")
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["command"] == "python src/train.py tracking.uri=http://***@host"
    assert len(tags["fingerprint"]) == 16
    assert float(params["optim.lr"]) == 0.002
    assert json.loads(params["model.blocks"])[1] == {"channels": 64, "kernel": 3, "pool": 2, "dropout": 0.5}
    assert params["trainer.accelerator"] == "cpu"
    assert not any(key.startswith("tracking") for key in params)  # an address may hold a password
    assert result == max(value for step, value in history(lab, run, "val/acc") if step > 0)


def test_every_epoch_and_every_step_is_there_once(finished):
    lab, run, _ = finished
    steps = {key: [step for step, _ in history(lab, run, key)] for key in run.data.metrics}
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


def test_artifacts_tell_the_whole_story(finished):
    lab, run, _ = finished
    files = {each.path for each in lab.client.list_artifacts(run.info.run_id)}
    assert files == {"checkpoints", "config.yaml", "environment.txt", "figures", "model_summary.txt", "predictions.npz"}
    figures = {each.path for each in lab.client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {f"figures/{name}.png" for name in ("samples", "curves", "confusion", "mistakes")}
    kept = [each.path for each in lab.client.list_artifacts(run.info.run_id, "checkpoints")]
    assert kept == ["checkpoints/best.ckpt"]
    config = OmegaConf.create(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml"))
    assert config.groups.optim == "adam"
    assert config.optim.lr == 0.002
    assert "34,826" in mlflow.artifacts.load_text(f"{run.info.artifact_uri}/model_summary.txt")
    assert f"torch {torch.__version__.partition('+')[0]}" in mlflow.artifacts.load_text(
        f"{run.info.artifact_uri}/environment.txt"
    )


def test_predictions_and_the_served_model_agree_with_the_metric(finished):
    lab, run, _ = finished
    path = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/predictions.npz")
    stored = np.load(path)
    assert accuracy_score(stored["labels"], stored["probabilities"].argmax(1)) == run.data.metrics["test/acc"]

    mlflow.set_tracking_uri(lab.uri)
    logged = lab.client.search_logged_models([run.info.experiment_id])[0]
    model = mlflow.pyfunc.load_model(logged.model_uri)
    cfg = lab.compose(*TINY)
    data = training.build(training.check(cfg), "data")
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


def test_what_is_done_is_not_run_again(finished, capsys):
    lab, run, result = finished
    again = lab.train("optim.lr=0.002", *TINY, "seed=3", "model=cnn_simple", "data.augment.shift=1")
    assert again == result
    assert len(lab.runs()) == 1
    assert f"is done already (run {run.info.run_id})" in capsys.readouterr().out


@pytest.mark.lean
def test_the_same_seed_gives_the_same_numbers_to_the_last_bit(lab):
    for _ in range(2):
        lab.train(*TINY, "model=cnn_pool", "optim=adadelta", "rerun=true", "data.augment.rotate=5")
    second, first = lab.runs()
    assert first.info.run_id != second.info.run_id
    assert first.data.tags["fingerprint"] == second.data.tags["fingerprint"]
    same_numbers(lab, first, second)


class CrashError(Exception):
    pass


@pytest.mark.lean
@pytest.mark.parametrize(
    ("optim", "extra"),
    [
        ("adam", ["scheduler=one_cycle"]),
        ("sgd", ["early_stopping.patience=3", "optim.lr=0.5"]),
        ("adadelta", ["scheduler=cosine", "data.augment.shift=2"]),
    ],
)
def test_a_broken_run_continues_in_place_as_if_nothing_had_happened(lab, optim, extra, monkeypatch):
    settings = (*TINY, "trainer.max_epochs=4", "model=cnn_pool", f"optim={optim}", *extra)
    save, saved = EpochCheckpoint.on_train_epoch_end, []

    def crash(self, trainer, module):
        save(self, trainer, module)
        saved.append(trainer.current_epoch)
        if len(saved) in (1, 3):  # after the first epoch, then after one more of the continued run
            raise CrashError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", crash)
        with pytest.raises(CrashError):
            lab.train(*settings)
        broken = lab.runs()[0]
        assert broken.info.status == "FAILED"
        assert broken.data.tags["error"] == "CrashError: power cut"
        assert "done" not in broken.data.tags
        lab.client.update_run(broken.info.run_id, status="RUNNING")  # as SIGKILL leaves it
        with pytest.raises(CrashError):
            lab.train(*settings)
    lab.train(*settings)
    assert [run.info.run_id for run in lab.runs()] == [broken.info.run_id]
    lab.train(*settings, "rerun=true")
    whole, continued = lab.runs()
    assert continued.info.status == "FINISHED"
    same_numbers(lab, continued, whole)


def test_points_of_an_epoch_without_its_checkpoint_are_not_stored_twice(lab, monkeypatch):
    settings = (*TINY, "model=cnn_simple")

    def crash(self, trainer, module):
        for logger in trainer.loggers:
            logger.save()
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", crash)
        with pytest.raises(CrashError):
            lab.train(*settings)
    lab.train(*settings)
    run = lab.runs()[0]
    for key in ("train/loss", "val/loss", "train/loss_step"):
        steps = [step for step, _ in history(lab, run, key)]
        assert steps == sorted(set(steps))


@pytest.mark.lean
def test_early_stopping_stops_and_stays_stopped(lab, monkeypatch):
    settings = (*TINY, "trainer.max_epochs=9", "early_stopping.patience=1", "optim=sgd", "optim.lr=3", "model=mlp")
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", lambda *_: (_ for _ in ()).throw(CrashError))
        with pytest.raises(CrashError):
            lab.train(*settings)
    before = history(lab, lab.runs()[0], "val/loss")
    assert 2 < len(before) < 10
    losses = [value for _, value in before[1:]]
    assert min(losses) == losses[-2]  # patience 1: one epoch without a better one ends it
    lab.train(*settings)
    assert history(lab, lab.runs()[0], "val/loss") == before


@pytest.mark.lean
def test_last_or_best_weights_are_tested_as_asked(lab):
    settings = (*TINY, "trainer.max_epochs=3", "model=mlp", "optim=sgd", "optim.lr=2")
    lab.train(*settings)
    lab.train(*settings, "evaluate_on=last")
    last, best = lab.runs()
    losses = dict(history(lab, best, "val/loss")[1:])
    (best_epoch, _), (last_epoch, _) = history(lab, best, "test/acc")[0], history(lab, last, "test/acc")[0]
    assert best_epoch == min(losses, key=losses.get)
    assert last_epoch == 3
    assert [each.path for each in lab.client.list_artifacts(last.info.run_id, "checkpoints")] == [
        "checkpoints/last.ckpt"
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_as_killed_with_the_shells_code(lab, number, code, monkeypatch):
    monkeypatch.setattr(EpochCheckpoint, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), number))
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        lab.train(*TINY, "model=mlp")
    assert end.value.code == code
    assert lab.runs()[0].info.status == "KILLED"
    assert signal.getsignal(number) == handler


def test_a_diverged_run_is_a_result_not_an_error(lab):
    lab.train(*TINY, "model=cnn_simple", "optim=sgd", "optim.lr=1e20", "loss=cross_entropy")
    run = lab.runs()[0]
    assert run.data.tags["done"] == "true"
    assert not np.isfinite(history(lab, run, "train/loss")[-1][1])


@pytest.mark.lean
def test_the_clipped_loss_lives_through_raw_pixels(lab):
    lab.train(*TINY, "model=cnn_dense1000", "optim=sgd", "data.normalize=false", "loss=clipped_cross_entropy")
    assert all(np.isfinite(value) for _, value in history(lab, lab.runs()[0], "val/loss"))


@pytest.mark.filterwarnings("ignore:.*emulated here")  # as it is on a processor without bf16
def test_precision_is_a_choice_of_its_own(lab):
    for precision in ("32-true", "bf16-mixed"):
        lab.train(*TINY, "model=mlp", f"trainer.precision={precision}")
    half, full = lab.runs()
    assert half.data.metrics["train/loss"] != full.data.metrics["train/loss"]
    assert half.data.metrics["train/loss"] == pytest.approx(full.data.metrics["train/loss"], rel=0.05)


@pytest.mark.lean
@pytest.mark.parametrize(("flags", "taken"), [("fpu avx2", "32-true"), ("fpu avx512_bf16", "bf16-mixed")])
def test_auto_takes_bf16_where_the_processor_computes_in_it(lab, monkeypatch, flags, taken):
    monkeypatch.setattr(machine, "_cpu_info", lambda field: flags)
    lab.train(*TINY, "model=mlp", "trainer.precision=auto", "trainer.accelerator=cpu")
    assert lab.runs()[0].data.params["trainer.precision"] == taken


@pytest.mark.lean
@pytest.mark.filterwarnings("always:.*emulated here")
def test_bf16_without_hardware_for_it_is_warned_of(lab, monkeypatch, capsys):
    monkeypatch.setattr(machine, "_cpu_info", lambda field: "fpu avx2")
    lab.train(*TINY, "model=mlp", "trainer.precision=bf16-mixed", "trainer.accelerator=cpu")
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: trainer.precision=bf16-mixed: emulated here, so slower than 32-true" in said


@pytest.mark.lean
@pytest.mark.filterwarnings("always:.*Taking the embedded")
def test_the_fallback_runs_under_the_name_of_what_it_trained_on(lab, tmp_path, monkeypatch, capsys):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    settings = ("trainer=smoke", "model=cnn_simple", "data.test_fraction=0.5")
    lab.train("data=mnist", f"data.root={tmp_path}", *settings)
    assert "Taking the embedded mnist5k in its place" in capsys.readouterr().out
    run = lab.runs()[0]
    assert run.info.run_name == "cnn_simple-adam-s0-mnist5k-smoke-data.test_fraction=0.5"
    assert run.data.tags["data"] == "mnist5k"
    lab.train("data=mnist5k", *settings)  # the same images, so the same run
    assert len(lab.runs()) == 1
    with pytest.raises(UserError, match="is missing and cannot be downloaded"):
        lab.train("data=mnist", f"data.root={tmp_path}", "data.fallback=false", *settings)


@pytest.mark.lean
def test_no_optimizer_step_asks_nvml_for_a_gpu(lab, monkeypatch):
    asked = []
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning leaves it, and no run before this one
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: asked.append(True) or -1)
    lab.train(*TINY, "model=mlp")
    steps = lab.client.get_metric_history(lab.runs()[0].info.run_id, "train/loss_step")
    assert len(asked) < len(steps)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept_until_it_is_given_back(repository):
    code = (
        "import psutil, torch; from digitlab import machine\n"
        "def used(): return psutil.Process().memory_info().rss >> 20\n"
        "machine.keep_memory(); before = used()\n"
        "blocks = [torch.ones(2**18) for _ in range(400)]; del blocks\n"
        "kept = used() - before; machine.give_memory_back()\n"
        "assert kept > 300 > 100 > used() - before, (before, kept, used())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(repository / "src")})

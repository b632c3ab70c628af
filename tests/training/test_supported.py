"""Every callback of Lightning and every argument of its Trainer works here or is refused by name, with the reason."""

import inspect
import logging
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.callbacks import Callback
from test_strangers import points

from digitlab.config.build import REFUSED, build
from digitlab.config.errors import UserError
from digitlab.training.callbacks import EMPTY
from digitlab.training.callbacks import REFUSED as REFUSED_CALLBACKS
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.setup import _callbacks
from digitlab.training.user_checkpoints import follow, move_checkpoints, place_checkpoints

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=3", "trainer=cpu")
TINY += ("data.batch_size=100", "model=mlp", "model.hidden=[{units: 8, dropout: 0.2}]")
STEPS = 5  # of an epoch
WORKING_CALLBACKS = {
    "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "LearningRateMonitor", "ModelCheckpoint",
    "ModelSummary", "RichModelSummary", "RichProgressBar", "TQDMProgressBar", "WeightAveraging",
}  # fmt: skip
WORKING_ARGUMENTS = {
    "accelerator", "accumulate_grad_batches", "callbacks", "detect_anomaly", "deterministic", "devices",
    "enable_model_summary", "enable_progress_bar", "gradient_clip_val", "inference_mode", "max_epochs", "max_steps",
    "num_nodes", "num_sanity_val_steps", "precision", "profiler",
}  # fmt: skip
ONLY_FALSE = {"use_distributed_sampler"}
# What those callbacks need that are refused; the others need nothing.
NEEDED = {
    "GradientAccumulationScheduler": "scheduling: {2: 2}",
    "ModelPruning": "pruning_fn: l1_unstructured",
    "OnExceptionCheckpoint": "dirpath: here",
    "StochasticWeightAveraging": "swa_lrs: 0.01",
    "ThroughputMonitor": "batch_size_fn: 3",
}
REFUSED_NAMES = {kind.__name__ for kind in (*REFUSED_CALLBACKS, *EMPTY)}


def use(name: str, text: str, key: str = "x") -> str:
    more = f", {text}" if text else ""
    return f"+trainer.callbacks.{key}={{_target_: pytorch_lightning.callbacks.{name}{more}}}"


def test_every_callback_of_lightning_is_classified():
    exported = {name for name in lightning.__all__ if inspect.isclass(getattr(lightning, name))}
    assert exported == WORKING_CALLBACKS | REFUSED_NAMES
    assert not WORKING_CALLBACKS & REFUSED_NAMES


def test_every_argument_of_the_trainer_is_classified():
    assert set(inspect.signature(pl.Trainer).parameters) == WORKING_ARGUMENTS | ONLY_FALSE | set(REFUSED["trainer"])
    assert not (WORKING_ARGUMENTS | ONLY_FALSE) & set(REFUSED["trainer"])


def test_a_callback_that_cannot_work_is_refused_by_name(harness):
    names = sorted(REFUSED_NAMES)
    cfg = harness.compose(*TINY, *(use(name, NEEDED.get(name, ""), name) for name in names))
    nodes = cfg.trainer.callbacks
    for name in names:
        cfg.trainer.callbacks = {name: nodes[name]}
        words = "cannot work: |does nothing by itself; "
        with pytest.raises(UserError, match=rf"^trainer\.callbacks\.{name}: {name} ({words})"):
            _callbacks(cfg)


def test_an_argument_that_cannot_work_is_refused_by_name(harness):
    composed = harness.compose(*TINY)
    for name, reason in REFUSED["trainer"].items():
        cfg = OmegaConf.merge(composed, {"trainer": {name: 1}})
        with pytest.raises(UserError, match=rf"^trainer\.{name}=1: cannot be set: {reason}$"):
            build(cfg, "trainer")


@pytest.mark.table
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.use_distributed_sampler=true", "trainer.use_distributed_sampler=true: must be false"),
        ("+trainer.profiler=pytorch", "trainer.profiler=pytorch: must be null or simple or advanced"),
        (use("RichProgressBar", ""), "trainer: Trainer was configured with `enable_progress_bar=False`"),
        (use("ModelCheckpoint", "dirpath: /tmp/elsewhere"), "trainer.callbacks.x: dirpath=/tmp/elsewhere: must be a "),
        (use("ModelCheckpoint", "dirpath: a/../../b"), "trainer.callbacks.x: dirpath=a/../../b: must be a folder in"),
        (use("ModelCheckpoint", "dirpath: '~/b'"), "trainer.callbacks.x: dirpath=~/b: must be a folder inside"),
        (use("ModelCheckpoint", "dirpath: checkpoints"), "trainer.callbacks.x: dirpath=checkpoints: is digitlab's"),
        (use("ModelCheckpoint", "filename: ../../b"), "trainer.callbacks.x: filename=../../b: must lie inside dirpath"),
    ],
)
def test_a_value_that_would_do_nothing_or_harm_is_refused(harness, override, words):
    assert harness.main(*TINY, override).startswith(f"error: {words}")
    assert not harness.folder.exists()


def artifact(run, file: str) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://")) / file


class Stop(ReseedEveryEpoch):
    """Break off at the start of the second epoch, once."""

    pending = True

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1 and Stop.pending:
            Stop.pending = False
            raise KeyboardInterrupt
        super().on_train_epoch_start(trainer, module)


def train_whole_and_broken(harness, monkeypatch, *overrides):
    """Train without a break, then with one and again; return both runs, and check that they agree in everything."""
    harness.train(*overrides)
    Stop.pending = True
    monkeypatch.setattr("digitlab.training.setup.ReseedEveryEpoch", Stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        harness.train(*overrides, "rerun=true")
    monkeypatch.undo()
    (broken,) = [run for run in harness.runs() if run.info.status != "FINISHED"]
    harness.train(*overrides, "rerun=true")
    continued, whole = harness.runs()
    assert continued.info.run_id == broken.info.run_id
    measured = ("system/", "time/", "images_per_s", "DeviceStats")
    keys = {key for key in whole.data.metrics if not key.startswith(measured)}
    for key in keys:
        assert harness.history(continued, key) == harness.history(whole, key), key
    left, right = (np.load(artifact(run, "predictions.npz")) for run in (whole, continued))
    assert np.array_equal(left["probabilities"], right["probabilities"])
    return whole, continued


@pytest.mark.slow
@pytest.mark.lean
def test_callbacks_do_what_they_are_for_and_go_on_exactly(harness, monkeypatch, capsys, caplog):
    with caplog.at_level(logging.INFO):
        whole, continued = train_whole_and_broken(
            harness, monkeypatch, *TINY, "scheduler=cosine", "evaluate_on=last",
            use("EMAWeightAveraging", "decay: 0.5", "average"),
            use("LearningRateMonitor", "logging_interval: step", "rates"),
            use("DeviceStatsMonitor", "cpu_stats: true", "device"),
            use("ModelCheckpoint", "monitor: val/acc, mode: max, save_top_k: 2, save_last: true", "mine"),
            use("ModelCheckpoint", "dirpath: theirs, every_n_epochs: 2, save_top_k: -1", "other"),
            use("ModelSummary", "", "summary"), use("RichModelSummary", "", "rich"),
            "+trainer.profiler=simple", "trainer.num_sanity_val_steps=1", "+trainer.deterministic=true",
            "+trainer.detect_anomaly=true",
        )  # fmt: skip
    assert "FIT Profiler Report" in caplog.text
    assert "| Name" in caplog.text  # ModelSummary's table
    assert "Trainable params" in capsys.readouterr().out  # RichModelSummary's
    rates = dict(harness.history(whole, "lr-Adam"))
    assert len(rates) == 3 * STEPS
    assert rates[0] == pytest.approx(1e-3)
    assert rates[3 * STEPS - 1] < 1e-4
    assert [step for step, _ in harness.history(whole, "val/loss")] == [0, 1, 2, 3]  # the sanity check adds none
    assert any(key.startswith("DeviceStatsMonitor") for key in continued.data.metrics)
    for run in (whole, continued):
        folder = artifact(run, "")
        assert len(list((folder / "mine").glob("epoch=*.ckpt"))) == 2
        assert (folder / "mine" / "last.ckpt").exists()
        assert [each.name for each in (folder / "theirs").iterdir()] == [f"epoch=1-step={2 * STEPS}.ckpt"]
        assert [each.name for each in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
        tested = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        weights = "network.classifier.1.weight"
        assert not torch.equal(tested["state_dict"][weights], tested["current_model_state"][weights])


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize(
    "overrides",
    [
        [use("WeightAveraging", ""), "evaluate_on=last"],
        [use("EMAWeightAveraging", "decay: 0.5, update_every_n_steps: 3, update_starting_at_step: 7")],
        [use("EMAWeightAveraging", "decay: 0.5, update_starting_at_epoch: 1"), "evaluate_on=last"],
        [use("EarlyStopping", "monitor: train/acc, mode: max, patience: 1"), "optim.lr=0.3"],
        ["+scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, _partial_: true, patience: 0}"],
        ["++monitor=val/acc", "early_stopping.patience=1"],
        ["++metrics=[auroc,f1_macro]", "evaluate_on=last"],
        ["++averaging={kind: ema, decay: 0.9}", "evaluate_on=last"],
        ["++trainer.accumulate_grad_batches=2", "++trainer.max_steps=8"],
        ["++averaging={kind: swa, start: 0.1}", "model.hidden=[{units: 8, dropout: 0.2, batch_norm: before}]"],
        [
            "+scheduler={_target_: torch.optim.lr_scheduler.SequentialLR, _partial_: true, milestones: [7], schedulers:"
            " [{_target_: torch.optim.lr_scheduler.LinearLR, _partial_: true, total_iters: 7},"
            " {_target_: torch.optim.lr_scheduler.ExponentialLR, _partial_: true, gamma: 0.9}]}"
        ],
        ["+trainer.gradient_clip_val=0.1", "+trainer.inference_mode=false"],
    ],
)
def test_each_goes_on_exactly(harness, monkeypatch, overrides):
    train_whole_and_broken(harness, monkeypatch, *TINY, *overrides)


@pytest.mark.lean
def test_checkpoints_of_a_users_own_are_found_again_after_the_folder_has_moved(tmp_path):
    callback = lightning.ModelCheckpoint(monitor="val/acc")
    place_checkpoints(callback, "mine")
    move_checkpoints(callback, tmp_path / "here")
    there = str(tmp_path / "there" / "mine")
    state = {"dirpath": there, "best_model_path": f"{there}/a.ckpt", "best_k_models": {f"{there}/a.ckpt": 0.9}}
    follow(callback, state)
    here = str(tmp_path / "here" / "mine")
    assert state == {"dirpath": here, "best_model_path": f"{here}/a.ckpt", "best_k_models": {f"{here}/a.ckpt": 0.9}}


class Modes(Callback):
    """See what the trainer's arguments switch on."""

    seen: set[str] = set()  # noqa: RUF012  shared, for the trainer builds its own

    def on_train_batch_start(self, trainer, module, batch, index):
        self.seen |= {"anomaly"} if torch.is_anomaly_enabled() else set()
        self.seen |= {"deterministic"} if torch.are_deterministic_algorithms_enabled() else set()

    def on_validation_batch_start(self, trainer, module, batch, index, loader=0):
        self.seen |= {"inference"} if torch.is_inference_mode_enabled() else set()


@pytest.mark.lean
def test_the_trainers_switches_are_on_where_they_are_asked_for(harness, monkeypatch, capsys):
    packages = ("digitlab", "torch", "pytorch_lightning", "test_supported")
    monkeypatch.setattr("digitlab.config.build.PACKAGES", packages)
    watch = "+trainer.callbacks.modes={_target_: test_supported.Modes}"
    Modes.seen.clear()
    harness.train(*TINY, watch, "trainer.max_epochs=1")
    assert Modes.seen == {"inference"}
    Modes.seen.clear()
    switches = ("+trainer.detect_anomaly=true", "+trainer.deterministic=true", "+trainer.inference_mode=false")
    harness.train(*TINY, watch, "trainer.max_epochs=1", *switches, "trainer.enable_progress_bar=true")
    assert Modes.seen == {"anomaly", "deterministic"}
    assert "Epoch 0" in capsys.readouterr().out
    assert points(harness, "val/loss")[0][0] == 0

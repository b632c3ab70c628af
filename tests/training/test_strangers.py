"""Code from elsewhere: any Lightning module on our data, users' callbacks and metrics in our runs."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, LambdaCallback
from torch.nn import functional as F
from torchmetrics.classification import MulticlassF1Score

from digitlab.data import sources
from digitlab.data.datamodule import ImageData

SMALL = ("data=mnist5k", "data.skip_first=4000", "data.batch_size=128", "model=mlp", "trainer=cpu")
SMALL += ("model.hidden=[{units: 8, dropout: 0.2}]", "trainer.max_epochs=2")
STEPS = 7  # of an epoch: 800 images in batches of 128


class Stranger(pl.LightningModule):
    """A module as in any tutorial on Lightning, with automatic optimization and self.log."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)
        self.shapes = set()

    def _loss(self, batch):
        images, labels = batch
        self.shapes.add((images.dtype, tuple(images.shape[1:]), labels.dtype))
        return F.cross_entropy(self.layer(images.flatten(1)), labels)

    def training_step(self, batch, index):
        return self._loss(batch)

    def validation_step(self, batch, index):
        self.log("loss", self._loss(batch))

    def test_step(self, batch, index):
        self.log("loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_any_lightning_module_trains_on_our_data():
    data, module = ImageData(sources.mnist5k, batch_size=128, augment={"shift": 1}), Stranger()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    (before,) = trainer.validate(module, data, verbose=False)
    trainer.fit(module, data)
    (after,) = trainer.test(module, data, verbose=False)
    assert module.shapes == {(torch.float32, (1, 28, 28), torch.int64)}
    assert trainer.global_step == 3 * data.steps_per_epoch
    assert after["loss"] < 1 < 2 < before["loss"]


class Watcher(Callback):
    """Log in every way that a callback can: by step, by epoch, in validation, through a torchmetrics metric."""

    seen: list[int]

    def on_train_start(self, trainer, module):
        Watcher.seen = []
        self.f1 = MulticlassF1Score(num_classes=10)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        Watcher.seen.append(trainer.global_step)
        module.log("watched/step", float(trainer.global_step), on_step=True, on_epoch=False)
        module.log("watched/loss", outputs["loss"], on_step=False, on_epoch=True)

    def on_validation_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.state.fn == "fit":
            self.f1.update(module(batch[0]), batch[1])

    def on_validation_epoch_end(self, trainer, module):
        if trainer.state.fn == "fit":
            module.log("val/f1", self.f1.compute())
            self.f1.reset()

    def on_train_epoch_end(self, trainer, module):
        module.log("watched/epoch", float(trainer.current_epoch))


class Gradients(Callback):
    """Record the calls of the hooks around a step, in order."""

    calls: list[str]

    def on_train_start(self, trainer, module):
        Gradients.calls = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.calls.append("zero_grad")

    def on_before_backward(self, trainer, module, loss):
        assert loss.requires_grad
        self.calls.append("backward")

    def on_after_backward(self, trainer, module):
        assert all(each.grad is not None for each in module.parameters())
        self.calls.append("gradients")

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.calls.append("step")


class OfLambdas(LambdaCallback):
    """Count steps by functions that the object has, and not its class."""

    counts: list[int]

    def __init__(self):
        super().__init__(on_train_start=self.start, on_train_batch_end=self.count(0), on_after_backward=self.count(1))

    def start(self, *_):
        OfLambdas.counts = [0, 0]

    def count(self, place):
        def add(*_):
            self.counts[place] += 1

        return add


class Spoiled(Callback):
    """Has a state that can be read before training, and not after an epoch of it."""

    best = None

    def on_train_epoch_end(self, trainer, module):
        self.best = np.float64(0.5)

    def state_dict(self):
        return {"best": self.best}


@pytest.fixture
def own_callbacks(monkeypatch):
    """Allow this file's callbacks as targets, as a module in src/ would be."""
    monkeypatch.setattr("digitlab.config.build.PACKAGES", ("digitlab", "torch", "pytorch_lightning", "test_strangers"))


def points(harness, key: str) -> list[tuple[int, float]]:
    return sorted(harness.history(harness.runs()[0], key))


@pytest.mark.lean
def test_what_a_callback_logs_is_stored_once_at_its_step(harness, own_callbacks):
    harness.train(*SMALL, "+trainer.callbacks.own={_target_: test_strangers.Watcher}")
    every_step = list(range(1, 2 * STEPS + 1))
    assert Watcher.seen == every_step
    assert points(harness, "watched/step") == [(step, float(step)) for step in every_step]
    assert points(harness, "watched/epoch") == [(1, 0.0), (2, 1.0)]
    assert [step for step, _ in points(harness, "val/f1")] == [1, 2]
    assert all(0 < value <= 1 for _, value in points(harness, "val/f1"))
    losses = [value for _, value in points(harness, "train/loss_step")]
    means = [sum(losses[:STEPS]) / STEPS, sum(losses[STEPS:]) / STEPS]
    assert [step for step, _ in points(harness, "watched/loss")] == [1, 2]
    assert [value for _, value in points(harness, "watched/loss")] == pytest.approx(means, rel=0.05)  # by batch size


@pytest.mark.lean
def test_the_hooks_around_a_step_are_called_in_lightnings_order(harness, own_callbacks):
    harness.train(*SMALL, "trainer.max_epochs=1", "+trainer.callbacks.own={_target_: test_strangers.Gradients}")
    assert Gradients.calls == ["zero_grad", "backward", "gradients", "step"] * STEPS


@pytest.mark.lean
@pytest.mark.parametrize("watched", [False, True])
def test_a_callback_with_step_hooks_changes_no_number(harness, own_callbacks, watched):
    harness.train(*SMALL)
    alone = points(harness, "train/loss_step")
    callbacks = ["+trainer.callbacks.own={_target_: test_strangers.Gradients}"] if watched else []
    harness.train(*SMALL, "rerun=true", "data.steps_per_execution=3", *callbacks)
    assert points(harness, "train/loss_step") == alone


@pytest.mark.slow
@pytest.mark.lean
def test_steps_per_execution_does_not_change_an_average_of_weights(harness):
    average = "+trainer.callbacks.ema={_target_: pytorch_lightning.callbacks.EMAWeightAveraging, decay: 0.8}"
    losses = set()
    for steps in ("null", "1", "5"):
        harness.train(*SMALL, average, f"data.steps_per_execution={steps}", "rerun=true", "evaluate_on=last")
        losses.add(harness.runs()[0].data.metrics["test/loss"])
    harness.train(*SMALL, "evaluate_on=last")
    assert len(losses) == 1
    assert losses != {harness.runs()[0].data.metrics["test/loss"]}
    assert issubclass(EMAWeightAveraging, Callback)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("{_target_: pytorch_lightning.callbacks.GradientAccumulationScheduler, scheduling: {2: 2}}",
         "GradientAccumulationScheduler cannot work: trainer.accumulate_grad_batches is the same in every epoch"),
        ("{_target_: pytorch_lightning.callbacks.StochasticWeightAveraging, swa_lrs: 0.01}",
         "StochasticWeightAveraging cannot work: it changes the weights after the last checkpoint"),
    ],
)  # fmt: skip
def test_an_unsupported_callback_is_refused_by_name_before_a_run_exists(harness, node, words):
    said = harness.main(*SMALL, f"+trainer.callbacks.own={node}")
    assert said.startswith(f"error: trainer.callbacks.own: {words}")
    assert not harness.folder.exists()


@pytest.mark.lean
def test_a_callback_made_of_functions_sees_every_step(harness, own_callbacks):
    harness.train(*SMALL, "+trainer.callbacks.own={_target_: test_strangers.OfLambdas}")
    assert OfLambdas.counts == [2 * STEPS, 2 * STEPS]


@pytest.mark.lean
def test_a_state_that_cannot_be_read_later_is_named(harness, own_callbacks):
    end = harness.main(*SMALL, "+trainer.callbacks.own={_target_: test_strangers.Spoiled}")
    wanted = "must be of tensors, numbers, text, lists and dicts, to be saved"
    assert end == f"error: trainer.callbacks: Spoiled: its state {wanted}"

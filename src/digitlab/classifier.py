"""Train and evaluate any network with any optimizer: the one LightningModule."""

import time

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric


def clipped_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute Keras <= 2.2's cross-entropy: softmax clipped to [1e-7, 1 - 1e-7]; what is clipped has no gradient."""
    return F.nll_loss(logits.float().softmax(1).clamp(1e-7, 1 - 1e-7).log(), labels)


LOSSES = {"cross_entropy": F.cross_entropy, "clipped_cross_entropy": clipped_cross_entropy}


class Classifier(pl.LightningModule):
    """Fit `network` to (images, labels) batches with `optimizer`, which holds its parameters, and measure it.

    Metrics go to the logger with step = finished epochs (0 = untrained), those named `_step` with step = optimizer
    steps. After a test, `probabilities` (N, C) and `labels` (N,) hold what was predicted of what.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        loss: str = "cross_entropy",
    ):
        super().__init__()
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.loss = LOSSES[loss]
        self.steps: list[tuple[Tensor, Tensor, int]] = []  # of this epoch: loss, correct, images
        # double: an accuracy is a fraction of counts and should read like one; a nan is a result, not to be left out
        means = {name: MeanMetric(nan_strategy="disable").set_dtype(torch.float64) for name in ("loss", "acc")}
        self.means = nn.ModuleDict(means)
        self.predicted: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self):
        if self.scheduler is None:
            return self.optimizer
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.scheduler, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = self.loss(logits, labels)
        self.steps.append((loss.detach(), (logits.detach().argmax(1) == labels).sum(), len(labels)))
        return loss

    def recent(self, count: int | None = None) -> tuple[float, float]:
        """Return loss and accuracy over the last `count` training steps of this epoch, or over all of them."""
        losses, correct, sizes = self._stack(count)
        return float(losses @ sizes / sizes.sum()), float(correct.sum() / sizes.sum())

    def on_train_epoch_start(self) -> None:
        self.steps.clear()
        self.started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        losses, correct, sizes = self._stack()
        first = self.global_step - len(losses) + 1
        if self.logger:
            for step, (loss, acc) in enumerate(zip(losses.tolist(), (correct / sizes).tolist(), strict=True), first):
                self.logger.log_metrics({"train/loss_step": loss, "train/acc_step": acc}, step)
        loss, acc = self.recent()
        rates = {"time/epoch_s": self.seconds, "images_per_s": float(sizes.sum()) / self.seconds}
        lr = {"lr": self.optimizer.param_groups[0]["lr"]} if self.scheduler else {}
        self._publish({"train/loss": loss, "train/acc": acc, **rates, **lr}, self.current_epoch + 1)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        if self.steps:
            self._stack(1)  # waits for the device, so that the time is of work done, not of work queued
            self.seconds = time.perf_counter() - self.started

    def on_validation_epoch_end(self) -> None:
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._publish(self._means("val"), self.current_epoch + is_fitting)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.predicted.append((self._evaluate(batch).cpu(), batch[1].cpu()))

    def on_test_epoch_end(self) -> None:
        self.probabilities, self.labels = (torch.cat(parts).numpy() for parts in zip(*self.predicted, strict=True))
        self.predicted.clear()
        self.results = self._means("test")

    def _evaluate(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        probabilities = logits.float().softmax(1)
        # One value an image: torchmetrics 1.9 forgets weights where nan_strategy is "disable".
        self.means["loss"].update(self.loss(logits, labels).expand(len(labels)))
        self.means["acc"].update((probabilities.argmax(1) == labels).double())
        return probabilities

    def _means(self, stage: str) -> dict[str, float]:
        values = {f"{stage}/{name}": float(mean.compute()) for name, mean in self.means.items()}
        with torch.inference_mode(False):  # else validate() leaves states behind that fit() may not write to
            for mean in self.means.values():
                mean.reset()
        return values

    def _publish(self, values: dict[str, float], step: int) -> None:
        """Send `values` to the logger before any checkpoint of this epoch is written, and to the callbacks."""
        if self.logger:
            self.logger.log_metrics(values, step)
        self.log_dict(values, logger=False)

    def _stack(self, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        losses, correct, sizes = zip(*(self.steps[-count:] if count else self.steps), strict=True)
        return torch.stack(losses).double().cpu(), torch.stack(correct).double().cpu(), torch.tensor(sizes).double()

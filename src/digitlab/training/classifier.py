"""Train and evaluate any network with any optimizer: the one LightningModule."""

import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric

from digitlab.config.errors import UserError
from digitlab.data.batches import Batches, Chunk
from digitlab.data.sources import Pairs
from digitlab.training.callbacks import sees_steps
from digitlab.training.cuda_graph import Graph, make_capturable
from digitlab.training.distributed import Team
from digitlab.training.lightning_internals import callbacks_of, count_optimizer_steps, datamodule_of
from digitlab.training.monitor import loss_of


def clipped_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute Keras <= 2.2's cross-entropy: softmax clipped to [1e-7, 1 - 1e-7]; what is clipped has no gradient."""
    return F.nll_loss(logits.float().softmax(1).clamp(1e-7, 1 - 1e-7).log(), labels)


LOSSES = {"cross_entropy": F.cross_entropy, "clipped_cross_entropy": clipped_cross_entropy}

LAST_POINT = "images_per_s"  # the last metric that an epoch writes: where it is stored, so are the others


class Classifier(pl.LightningModule):
    """Fit `network` to (images, labels) batches with `optimizer`, which holds its parameters, and measure it.

    `loss` is a name of LOSSES, or a module of logits (B, C) and labels (B,) whose value is a mean over the batch.

    Batches are float (B, C, H, W) and int64 (B,), of any loader; each is one optimizer step. A `Chunk` of them is taken
    as one Lightning batch, which changes no number. Norms of gradients above `clip` are cut to it. On a GPU the steps
    replay a CUDA graph, unless a callback has hooks around steps: those are called as in automatic optimization.
    `scheduler` steps with the optimizer, a ReduceLROnPlateau by `monitor` each epoch. `max_steps` end the training.
    Metrics go to the logger with step = finished epochs (0 = untrained), `train/loss_step` with step = optimizer
    steps. After a test, `probabilities` (N, C) and `labels` (N,) hold what was predicted of what.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        loss: str | nn.Module = "cross_entropy",
        clip: float | None = None,
        max_steps: int | None = None,
        monitor: str = "val/loss",
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.clip, self.max_steps, self.monitor = clip, max_steps, monitor
        self.graph: Graph | None = None
        self.team: Team | None = None  # the processes that take every step with this one, each with a part of its batch
        self.observers: list[pl.Callback] = []  # of every step
        self.steps: list[tuple[Tensor, list[int]]] = []  # of this epoch: (loss, number correct) and images of each
        # double: an accuracy is a fraction of counts and should read like one; a nan is a result, not to be left out
        self.mean_loss, self.mean_acc = (MeanMetric(nan_strategy="disable").set_dtype(torch.float64) for _ in range(2))
        self.predicted: list[tuple[Tensor, Tensor]] = []
        self.returns_results = True  # from trainer.test and validate; a run records them itself, in double precision

    @property
    def logged(self) -> list[str]:
        """The names of what every epoch logs."""
        rate = ["lr"] if self.scheduler else []
        return ["train/loss", "train/acc", "val/loss", "val/acc", "time/epoch_s", LAST_POINT, *rate]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> Any:
        if self.scheduler is None:
            return self.optimizer
        interval = "epoch" if isinstance(self.scheduler, ReduceLROnPlateau) else "step"
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.scheduler, "interval": interval}}

    def on_train_start(self) -> None:
        self.observers = [callback for callback in callbacks_of(self.trainer) if sees_steps(callback)]
        if self.team:  # each step of which speaks to others, which no graph can
            self.team.meet()
        elif not self.observers and make_capturable(self.optimizer, moves=self.scheduler is not None):
            self.graph = Graph(self._step, self.optimizer)

    def training_step(self, batch: Pairs | Chunk, index: int) -> dict[str, Tensor]:
        batches = batch if isinstance(batch, Chunk) else [batch]
        left = self.max_steps - self.global_step if self.max_steps else sys.maxsize
        results, sizes = torch.empty(min(left, len(batches)), 3 if self.team else 2, device=self.device), []
        step = self.graph or self._step
        for result, (images, labels) in zip(results, batches, strict=False):
            result.copy_(step(images.to(self.device), labels.to(self.device)))
            sizes.append(len(labels))
            self._step_scheduler()
        self.steps.append((results, sizes))
        count_optimizer_steps(self.trainer, len(sizes))
        if len(sizes) == left:
            self.trainer.should_stop = True  # which ends the epoch here, validated as any
        return {"loss": results[-1, 0]}

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one optimizer step; return its loss and how many images it got right, of a team's also how many."""
        self._tell("on_before_zero_grad", self.optimizer)
        self.optimizer.zero_grad()
        if self.team:
            results = self._propagate(images, labels) if len(labels) else torch.zeros(2, device=self.device)
            results = self.team.add_up(self.network.parameters(), results, len(labels))
        else:
            results = self._propagate(images, labels)
        self._tell("on_after_backward")
        self._tell("on_before_optimizer_step", self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()
        return results

    def _propagate(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradients of a batch; return its loss and how many images are right, float32 (2,)."""
        logits = self.network(images)
        loss = self.loss(logits, labels)
        self._tell("on_before_backward", loss)
        with torch.autocast(images.device.type, enabled=False):
            loss.backward()
        return torch.stack((loss.detach().float(), (logits.detach().argmax(1) == labels).sum().float()))

    def _step_scheduler(self) -> None:
        if self.scheduler and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()

    def follow(self, epoch: Mapping[str, Any], batches: Batches) -> None:
        """Take the steps of an epoch that the first process of the team begins, by its `handover`."""
        self.load_state_dict(epoch["weights"])
        self.optimizer.load_state_dict(epoch["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(epoch["scheduler"])
        for parameter, is_trained in zip(self.network.parameters(), epoch["is_trained"], strict=True):
            parameter.requires_grad = is_trained
        if batches.sampler:
            batches.sampler.set_epoch(epoch["number"])
        for images, labels in islice(batches, epoch["steps"]):
            self._step(images, labels)
            self._step_scheduler()

    def handover(self, number: int, steps: int) -> dict[str, Any]:
        """Return all that another process needs to take the first `steps` steps of an epoch, counted from 0."""
        return {
            "number": number,
            "steps": steps,
            "weights": self.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "is_trained": [each.requires_grad for each in self.network.parameters()],
        }

    def _tell(self, hook: str, *arguments: Any) -> None:
        for callback in self.observers:
            getattr(callback, hook)(self.trainer, self, *arguments)

    @property
    def images_seen(self) -> int:
        """How many images this epoch has trained on so far, about, where a team shares them."""
        return sum(sum(sizes) for _, sizes in self.steps) * (self.team.place.size if self.team else 1)

    def recent(self, count: int | None = None) -> tuple[float, float]:
        """Return loss and accuracy over the last `count` Lightning batches of this epoch, or over all of them."""
        losses, correct, sizes = self._stack(count)
        return float(losses @ sizes / sizes.sum()), float(correct.sum() / sizes.sum())

    def release(self) -> None:
        """Give back what a GPU holds for replays. Lightning calls no hook of ours where training ends by an error."""
        if self.graph:
            self.graph.close()
            self.graph = None

    def on_train_end(self) -> None:
        self.release()

    def on_train_epoch_start(self) -> None:
        self.steps.clear()
        self.seconds: float | None = None
        self.started = time.perf_counter()
        if self.team:
            left = self.max_steps - self.global_step if self.max_steps else sys.maxsize
            self.shared = min(left, datamodule_of(self.trainer).steps_per_epoch)
            self.team.tell(self.handover(self.current_epoch, self.shared))

    def on_train_epoch_end(self) -> None:
        seconds = self.seconds or self._stop_clock()  # which validation stops, where there is one
        losses, _, sizes = self._stack()
        if self.team and len(losses) != self.shared:  # the others wait within a step for this process
            raise UserError(f"trainer.callbacks: an epoch ended after {len(losses)} of {self.shared} steps; "
                            "allowed with trainer.devices=1")  # fmt: skip
        if self.logger:
            for step, loss in enumerate(losses.tolist(), self.global_step - len(losses) + 1):
                self.logger.log_metrics({"train/loss_step": loss}, step)
        loss, acc = self.recent()
        rates = {"time/epoch_s": seconds, LAST_POINT: float(sizes.sum()) / seconds}
        lr = {"lr": self.optimizer.param_groups[0]["lr"]} if self.scheduler else {}
        self._publish({"train/loss": loss, "train/acc": acc, **lr, **rates}, self.current_epoch + 1)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        if self.steps:
            self._stop_clock()

    def on_validation_epoch_end(self) -> None:
        values = self._means("val")
        if self.trainer.sanity_checking:  # of some batches, for Lightning's sake
            return
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        if is_fitting and isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss_of(values, self.monitor))  # pyright: ignore[reportArgumentType]  its stub
        if is_fitting or not self.returns_results:
            self._publish(values, self.current_epoch + is_fitting)
        else:
            self._return(values)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.predicted.append((self._evaluate(batch).cpu(), batch[1].cpu()))

    def on_test_epoch_end(self) -> None:
        self.probabilities, self.labels = (torch.cat(parts).numpy() for parts in zip(*self.predicted, strict=True))
        self.predicted.clear()
        self.results = self._means("test")
        if self.returns_results:
            self._return(self.results)

    def predict_step(self, batch: Tensor | Sequence[Tensor], index: int) -> Tensor:
        """Return the class probabilities (B, C) of a batch of images, or of images and labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.network(images).float().softmax(1)

    def _evaluate(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        probabilities = logits.float().softmax(1)
        # One value an image: torchmetrics 1.9 forgets weights where nan_strategy is "disable".
        self.mean_loss.update(self.loss(logits, labels).expand(len(labels)))
        self.mean_acc.update((probabilities.argmax(1) == labels).double())
        return probabilities

    def _means(self, stage: str) -> dict[str, float]:
        means = {f"{stage}/loss": self.mean_loss, f"{stage}/acc": self.mean_acc}
        values = {name: float(mean.compute()) for name, mean in means.items()}
        with torch.inference_mode(False):  # else validate() leaves states behind that fit() may not write to
            for mean in means.values():
                mean.reset()
        return values

    def _publish(self, values: dict[str, float], step: int) -> None:
        """Send `values` to the logger before any checkpoint of this epoch is written, and to the callbacks."""
        if self.logger:
            self.logger.log_metrics(values, step)
        self.log_dict(values, logger=False)

    def _return(self, values: dict[str, float]) -> None:
        """Have trainer.test or trainer.validate return `values`, as it does with what goes to a logger, if any."""
        with warnings.catch_warnings(action="ignore"):  # that there is no logger
            self.log_dict(values, logger=True)

    def _stop_clock(self) -> float:
        self._stack(1)  # waits for the device, so that the time is of work done, not of work queued
        self.seconds = time.perf_counter() - self.started
        return self.seconds

    def _stack(self, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, number correct and images of each step of the last `count` batches, or all: float64 (steps,)."""
        taken = self.steps[-count:] if count else self.steps
        columns = torch.cat([results for results, _ in taken]).double().cpu().T
        sizes = torch.tensor([size for _, sizes in taken for size in sizes], dtype=torch.float64)
        losses, correct, sizes = (
            columns if self.team else (*columns, sizes)
        )  # a team's batches are larger than seen here
        return losses, correct, sizes

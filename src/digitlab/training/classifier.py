"""Train and evaluate any network with any optimizer: the one LightningModule."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric

from digitlab.config.errors import UserError
from digitlab.data.batches import Chunk, images_of
from digitlab.data.sources import Pairs
from digitlab.training.averaging import Average
from digitlab.training.callbacks import sees_steps
from digitlab.training.cuda_graph import Graph, make_capturable
from digitlab.training.distributed import Team
from digitlab.training.handover import hand_over
from digitlab.training.lightning_internals import callbacks_of, count_optimizer_steps, datamodule_of
from digitlab.training.losses import LOSSES
from digitlab.training.monitor import loss_of
from digitlab.training.precision import OFF, scaler_of, take_step
from digitlab.training.steps import RATE, Steps


class Classifier(pl.LightningModule):
    """Fit `network` to (images, labels) batches with `optimizer`, which holds its parameters, and measure it.

    `loss` is a name of LOSSES, or a module of logits (B, C) and labels (B,) whose value is a mean over the batch.

    Batches are float (B, C, H, W) and int64 (B,), of any loader; each is one optimizer step, or `accumulate` of them
    are, of an ImageData with as many `batches_per_step`. A `Chunk` of them is taken as one Lightning batch, which
    changes no number. Norms of gradients above `clip` are cut to it. On a GPU the steps replay a CUDA graph, unless a
    callback has hooks around steps: those are called as in automatic optimization. `scheduler` steps with the
    optimizer, a ReduceLROnPlateau by `monitor` each epoch. `max_steps` end the training. In validation, checkpoints and
    after training the weights are their `average`, if there is one. Of `metrics` each is called with probabilities (N,
    C) and labels (N,), and gives one number. All go to the logger with step = finished epochs (0 = untrained),
    `train/loss_step` with step = optimizer steps. After a test, `probabilities` (N, C) and `labels` (N,) hold what was
    predicted of what.
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
        metrics: Mapping[str, Metric] = MappingProxyType({}),
        average: Average | None = None,
        accumulate: int = 1,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.loss = LOSSES[loss] if isinstance(loss, str) else loss
        self.clip, self.max_steps, self.monitor, self.average = clip, max_steps, monitor, average
        self.accumulate, self.scaler = accumulate, OFF
        self.graph: Graph | None = None
        self.team: Team | None = None  # the processes that take every step with this one, each with a part of its batch
        self.observers: list[pl.Callback] = []  # of every step
        self.steps = Steps()  # of this epoch
        # double: an accuracy is a fraction of counts and should read like one; a nan is a result, not to be left out
        self.mean_loss, self.mean_acc = (MeanMetric(nan_strategy="disable").set_dtype(torch.float64) for _ in range(2))
        self.metrics: Any = nn.ModuleDict(metrics)
        self.predicted: list[tuple[Tensor, Tensor]] = []
        self.returns_results = True  # from trainer.test and validate; a run records them itself, in double precision

    @property
    def left(self) -> int:
        """How many optimizer steps there may still be."""
        return self.max_steps - self.global_step if self.max_steps else sys.maxsize

    @property
    def logged(self) -> list[str]:
        """The names of what every epoch logs."""
        rate = ["lr"] if self.scheduler else []
        measured = [f"val/{name}" for name in self.metrics]
        return ["train/loss", "train/acc", "val/loss", "val/acc", *measured, "time/epoch_s", RATE, *rate]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> Any:
        if self.scheduler is None:
            return self.optimizer
        interval = "epoch" if isinstance(self.scheduler, ReduceLROnPlateau) else "step"
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.scheduler, "interval": interval}}

    def on_train_start(self) -> None:
        self.observers = [callback for callback in callbacks_of(self.trainer) if sees_steps(callback)]
        self.scaler = scaler_of(self.trainer)
        if self.average:
            self.average.follow(self.network)
        if self.team:  # each step of which speaks to others, which no graph can
            self.team.meet()
        elif not self.observers and make_capturable(
            self.optimizer, self.scheduler is not None, self.scaler.is_enabled()
        ):
            self.graph = Graph(self._step, self.optimizer)

    def training_step(self, batch: Pairs | Chunk, index: int) -> dict[str, Tensor]:
        if self.accumulate > 1 and not isinstance(batch, Chunk):
            raise UserError(f"accumulate={self.accumulate}: needs an ImageData whose batches_per_step says so too")
        batches = batch if isinstance(batch, Chunk) else [batch]
        count = min(self.left, -(-len(batches) // self.accumulate))
        results, sizes = torch.empty(count, 3 if self.team else 2, device=self.device), []
        step, batches = self.graph or self._step, iter(batches)
        for result in results:
            sizes.append(self._take(step, batches, result))
        self.steps.add(results, sizes)
        count_optimizer_steps(self.trainer, count)
        if not self.left:
            self.trainer.should_stop = True  # which ends the epoch here, validated as any
        return {"loss": results[-1, 0]}

    def _take(self, step: Callable[..., Tensor], batches: Iterator[Pairs], result: Tensor) -> int:
        """Take an optimizer step of the next batches, and the scheduler's; return how many images they have."""
        tensors = [each.to(self.device) for pair in islice(batches, self.accumulate) for each in pair]
        result.copy_(step(*tensors))
        if self.scheduler and not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        return sum(map(len, tensors[1::2]))

    def _step(self, *tensors: Tensor) -> Tensor:
        """Take one optimizer step; return its loss and how many images it got right, of a team also how many it had.

        `tensors` are images and labels of a batch, or of several in turn, whose gradients are those of one whole batch.
        """
        self._tell("on_before_zero_grad", self.optimizer)
        self.optimizer.zero_grad()
        total, results = sum(map(len, tensors[1::2])), []
        for images, labels in zip(tensors[::2], tensors[1::2], strict=True):
            if len(labels):  # of the last batch some process of a team may have none
                results.append(self._propagate(images, labels, total))
                self._tell("on_after_backward")
        result = results[0] if len(results) == 1 else sum(results, torch.zeros(2, device=self.device))
        if self.team:
            result = self.team.add_up(self.network.parameters(), result, total)
        self.scaler.unscale_(self.optimizer)
        self._tell("on_before_optimizer_step", self.optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        take_step(self.scaler, self.optimizer)
        if self.average:
            self.average.end_step()
        return result

    def _propagate(self, images: Tensor, labels: Tensor, total: int) -> Tensor:
        """Add up the gradients of a batch, one of `total` images or a part of it; return loss and number correct."""
        logits = self.network(images)
        loss = self.loss(logits, labels)
        if len(labels) < total:
            loss = loss * (len(labels) / total)
        self._tell("on_before_backward", loss)
        with torch.autocast(images.device.type, enabled=False):
            self.scaler.scale(loss).backward()
        return torch.stack((loss.detach().float(), (logits.detach().argmax(1) == labels).sum().float()))

    def _tell(self, hook: str, *arguments: Any) -> None:
        for callback in self.observers:
            getattr(callback, hook)(self.trainer, self, *arguments)

    @property
    def is_fitting(self) -> bool:
        """Say whether this is training, or the validation of an epoch of it."""
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def release(self) -> None:
        """Give back what a GPU holds for replays. Lightning calls no hook of ours where training ends by an error."""
        if self.graph:
            self.graph.close()
            self.graph = None

    def on_train_end(self) -> None:
        self.release()
        if self.average:
            self.average.end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average:
            self.average.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average and self.is_fitting:
            self.average.load(checkpoint)

    def on_train_epoch_start(self) -> None:
        self.steps = Steps(self.team.place.size if self.team else 1)
        self.seconds: float | None = None
        self.started = time.perf_counter()
        if self.team:
            self.shared = min(self.left, datamodule_of(self.trainer).steps_per_epoch)
            handed = hand_over(self, self.optimizer, self.scheduler, self.scaler)
            self.team.tell({"number": self.current_epoch, "steps": self.shared, **handed})

    def on_train_epoch_end(self) -> None:
        seconds = self.seconds or self._stop_clock()  # which validation stops, where there is one
        self._end_average()  # which validation does, where there is one
        losses, _, sizes = self.steps.stack()
        if self.team and len(losses) != self.shared:  # the others wait within a step for this process
            raise UserError(f"trainer.callbacks: an epoch ended after {len(losses)} of {self.shared} steps; "
                            "allowed with trainer.devices=1")  # fmt: skip
        if self.logger:
            for step, loss in enumerate(losses.tolist(), self.global_step - len(losses) + 1):
                self.logger.log_metrics({"train/loss_step": loss}, step)
        loss, acc = self.steps.means()
        rates = {"time/epoch_s": seconds, RATE: float(sizes.sum()) / seconds}
        lr = {"lr": self.optimizer.param_groups[0]["lr"]} if self.scheduler else {}
        self._publish({"train/loss": loss, "train/acc": acc, **lr, **rates}, self.current_epoch + 1)

    def _end_average(self) -> None:
        """Take the weights of this epoch into its mean, where the epoch is over."""
        if self.average and (self.trainer.is_last_batch or self.trainer.should_stop):
            images = images_of(self.trainer.train_dataloader or (), self.device)
            with self.trainer.precision_plugin.forward_context():
                self.average.end_epoch(self.current_epoch + 1, self.trainer.max_epochs or 1, self.network, images)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        if self.steps:
            self._stop_clock()
        if self.average and self.is_fitting:
            self._end_average()
            self.average.lend()

    def on_validation_epoch_end(self) -> None:
        values = self._means("val")
        if self.trainer.sanity_checking:  # of some batches, for Lightning's sake
            return
        if self.average and self.is_fitting:
            self.average.take_back()
        if self.is_fitting and isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss_of(values, self.monitor))  # pyright: ignore[reportArgumentType]  its stub
        if self.is_fitting or not self.returns_results:
            self._publish(values, self.current_epoch + self.is_fitting)
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
        for metric in self.metrics.values():
            metric.update(probabilities, labels)
        return probabilities

    def _means(self, stage: str) -> dict[str, float]:
        measured = {"loss": self.mean_loss, "acc": self.mean_acc, **self.metrics}
        values = {f"{stage}/{name}": float(metric.compute()) for name, metric in measured.items()}
        with torch.inference_mode(False):  # else validate() leaves states behind that fit() may not write to
            for metric in measured.values():
                metric.reset()
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
        self.steps.stack(1)  # waits for the device, so that the time is of work done, not of work queued
        self.seconds = time.perf_counter() - self.started
        return self.seconds

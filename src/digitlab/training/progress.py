"""Show the progress of training: a live bar in a terminal, and one line an epoch everywhere."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from digitlab.platform import console
from digitlab.training.classifier import Classifier
from digitlab.training.steps import RATE

REFRESH = 4  # Lightning batches between two updates of the bar, because reading the loss waits for the device


class Progress(Callback):
    """Show a live bar in a terminal, and one line an epoch everywhere."""

    takes_chunks = True

    def __init__(self):
        self.label = ""  # at the start of each line, where several runs print at once
        self.bar: Bar | None = None
        self.reported = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.reported = trainer.current_epoch
        if console.console.is_interactive:
            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")]
            self.bar = Bar(
                *columns,
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=console.console,
                transient=True,
                refresh_per_second=2,
            )
            batches = int(trainer.num_training_batches)
            total, completed = (trainer.max_epochs or 0) * batches, trainer.current_epoch * batches
            self.task: TaskID = self.bar.add_task("starting", total=total, completed=completed, state="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer)
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar and ((batch_idx + 1) % REFRESH == 0 or batch_idx + 1 == trainer.num_training_batches):
            assert isinstance(pl_module, Classifier)
            loss, acc = pl_module.steps.means(REFRESH)
            rate = pl_module.steps.images / (time.perf_counter() - self.started)
            self.bar.update(
                self.task,
                completed=trainer.current_epoch * trainer.num_training_batches + batch_idx + 1,
                description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                state=f"loss {loss:.4f}  acc {acc:.4f}  {rate:,.0f} images/s",
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()
        self._report(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _report(self, trainer: pl.Trainer) -> None:
        """Print the last finished epoch. Its metrics are complete only after every callback's on_train_epoch_end."""
        if trainer.current_epoch == self.reported:
            return
        self.reported = trainer.current_epoch
        of = trainer.callback_metrics
        console.say(
            f"{self.label}epoch {self.reported:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"
            f"  train loss {of['train/loss']:.4f} acc {of['train/acc']:.4f}"
            f"  val loss {of['val/loss']:.4f} acc {of['val/acc']:.4f}"
            f"  {of['time/epoch_s']:.1f} s, {of[RATE]:,.0f} images/s"
        )

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

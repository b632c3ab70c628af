"""Talk to the person at the terminal. Only this file imports rich."""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

# In a file there is room for whole names.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
REFRESH = 4  # blocks between two updates of the bar: reading the loss waits for the device

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.15
    "The number of training batches .* is smaller than the logging interval",  # every step is logged at the epoch's end
    "GPU available but not used",  # somebody chose the CPU
    "You're resuming from a checkpoint that ended before the epoch ended",  # it compares steps with blocks
    "No complete tensor found in the group",  # torch.export of a network whose weights share no storage
)


def say(text: str) -> None:
    console.print(text, markup=False)


def warn(text: str) -> None:
    console.print(f"warning: {text}", style="yellow", markup=False)


def prepare() -> None:
    """Print warnings as one line each, without the code they came from; keep quiet what nobody here can act on."""
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def draw_layers(layers: Iterable[tuple[str, str, str, int]]) -> str:
    """Return the table of a network's layers: name, type, output shape, parameters."""
    table = Table("layer", "type", "output shape")
    table.add_column("parameters", justify="right")
    total = 0
    for *words, parameters in layers:
        table.add_row(*words, f"{parameters:,}")
        total += parameters
    table.add_section()
    table.add_row("total", "", "", f"{total:,}")
    plain = Console(width=100, no_color=True, force_terminal=False)
    with plain.capture() as capture:
        plain.print(table)
    return capture.get()


def show_cells(rows: Iterable[Iterable[str]]) -> None:
    """Print how the cells of a sweep came out: name, status, val/acc, test/acc, seconds, reason."""
    table = Table("cell", "status")
    for heading in ("val/acc", "test/acc", "s"):
        table.add_column(heading, justify="right")
    table.add_column("reason", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, title: str = "") -> None:
    """Print a table; the first `text_columns` are words, the others numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < text_columns else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def show_summary(title: str, rows: Mapping[str, str]) -> None:
    """Print what a run came to."""
    say(title)
    for name, value in rows.items():  # not a table: a path must stay whole to be copied
        say(f"  {name:<14} {value}")


class Progress(Callback):
    """Show a live bar in a terminal, and one line an epoch everywhere."""

    def __init__(self):
        self.label = ""  # begins each line, where several runs speak at once
        self.bar: Bar | None = None
        self.reported = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.reported = trainer.current_epoch
        if console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")]
            self.bar = Bar(
                *columns,
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                refresh_per_second=2,
            )
            batches = trainer.num_training_batches
            total, completed = trainer.max_epochs * batches, trainer.current_epoch * batches
            self.task: TaskID = self.bar.add_task("starting", total=total, completed=completed, state="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._report(trainer)
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, index: int) -> None:
        if self.bar and ((index + 1) % REFRESH == 0 or index + 1 == trainer.num_training_batches):
            loss, acc = module.recent(REFRESH)
            rate = module.images_seen / (time.perf_counter() - self.started)
            self.bar.update(
                self.task,
                completed=trainer.current_epoch * trainer.num_training_batches + index + 1,
                description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                state=f"loss {loss:.4f}  acc {acc:.4f}  {rate:,.0f} images/s",
            )

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop()
        self._report(trainer)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _report(self, trainer: pl.Trainer) -> None:
        """Print the epoch that ended last. Its numbers are there only after the callbacks' own end of epoch."""
        if trainer.current_epoch == self.reported:
            return
        self.reported = trainer.current_epoch
        of = trainer.callback_metrics
        say(
            f"{self.label}epoch {self.reported:>{len(str(trainer.max_epochs))}}/{trainer.max_epochs}"
            f"  train loss {of['train/loss']:.4f} acc {of['train/acc']:.4f}"
            f"  val loss {of['val/loss']:.4f} acc {of['val/acc']:.4f}"
            f"  {of['time/epoch_s']:.1f} s, {of['images_per_s']:,.0f} images/s"
        )

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

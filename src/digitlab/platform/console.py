"""Print to the terminal. Only this file and training/progress.py import rich."""

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from digitlab.platform.secrets import redact
from digitlab.platform.signals import exit_on_closed_output
from digitlab.platform.text import printable


class _Console(Console):
    """A console that ends the program, as SIGPIPE does elsewhere, when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        exit_on_closed_output()


_is_file = not sys.stdout.isatty()
console = _Console(
    highlight=False,
    soft_wrap=True,
    width=160 if _is_file else None,  # wide enough for whole names
    force_interactive=False if _is_file else None,  # FORCE_COLOR asks for colours only, not for a bar that moves
)

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.15
    "The number of training batches .* is smaller than the logging interval",  # steps are logged at the epoch's end
    "The `srun` command is available on your system but is not used",  # nor is it to be
    "The ``noload`` loader strategy is deprecated",  # MLflow 3.17 with SQLAlchemy 2.1
    "GPU available but not used",  # the user chose the CPU
    "You're resuming from a checkpoint that ended before the epoch ended",  # it compares steps with Lightning batches
    "The given buffer is not writable",  # torch 2.11 where it reads back an exported model
    "No complete tensor found in the group",  # torch.export of a network whose weights share no storage
    "Checkpoint directory .* exists and is not empty",  # of a run that goes on
)


def say(text: str) -> None:
    console.print(printable(redact(text)), markup=False)


def warn(text: str) -> None:
    console.print(printable(redact(f"warning: {text}")), style="yellow", markup=False)


def prepare() -> None:
    """Print each warning as one line, without the code that it came from, and none that a user cannot act on."""
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("callbacks", "profilers"):  # what they are asked to say: tables, and verbose=true
        logging.getLogger(f"pytorch_lightning.{name}").setLevel(logging.INFO)


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep libraries from logging in many lines what is said in one."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def draw_layers(layers: Iterable[tuple[str, str, str, int]]) -> str:
    """Return as text the table of a network's layers: name, type, output shape, parameters."""
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
    """Print the cells of a sweep: name, status, val/acc, test/acc, seconds, reason."""
    table = Table("cell", "status")
    for heading in ("val/acc", "test/acc", "s"):
        table.add_column(heading, justify="right")
    table.add_column("reason", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(redact(text))) for text in row))
    console.print(table)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, title: str = "") -> None:
    """Print a table; the first `text_columns` hold text, the others numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        justify = "left" if index < text_columns else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index == 0)  # a name stays on one line
    for row in rows:
        table.add_row(*(escape(printable(redact(text))) for text in row))
    console.print(table)


def show_summary(title: str, rows: Mapping[str, str]) -> None:
    """Print the results of a run, one line each."""
    say(title)
    for name, value in rows.items():  # not a table, whose wrapping would break a path
        say(f"  {name:<14} {value}")

"""Talk to the person at the terminal. Only this file and progress.py import rich."""

import logging
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# In a file there is room for whole names.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)

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
        table.add_row(*map(escape, row))
    console.print(table)


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, title: str = "") -> None:
    """Print a table; the first `text_columns` are words, the others numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        justify = "left" if index < text_columns else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index == 0)  # a name must stay whole
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def show_summary(title: str, rows: Mapping[str, str]) -> None:
    """Print what a run came to."""
    say(title)
    for name, value in rows.items():  # not a table: a path must stay whole to be copied
        say(f"  {name:<14} {value}")

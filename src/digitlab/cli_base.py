"""What the commands share: groups of them, and the call of the one function that each is for."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any, NoReturn

import click

from digitlab import SOURCES
from digitlab.platform.signals import nothing_continues
from digitlab.platform.text import did_you_mean

TRAINING = ("bisect", "rerun", "check_claim")
EXPERIMENT = "digitlab"  # where runs are, unless another one is named

experiment = click.option("--experiment", default=EXPERIMENT, show_default=True, help="MLflow experiment of the runs.")


class Group(click.Group):
    """A group of commands whose usage is what may follow it, and which names them all where there is no such one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        settings = [each for each in args if "=" in each and not each.startswith("-")]
        if ctx.parent is None and settings and ("=" in args[0] or args[0].startswith("-")):
            command = "report" if all(each.startswith("report.") for each in settings) else "train"
            raise click.UsageError(f"no command; did you mean: digitlab {command} {shlex.join(args)}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        if args[0] not in self.commands:
            meant = did_you_mean(f"{ctx.command_path} ", args[0], self.commands)
            raise click.UsageError(f"{args[0]}: unknown command; allowed: {', '.join(self.commands)}{meant}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Whole(click.IntRange):
    """A whole number in a range, which a mistake is told."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} must be a whole number from {self.min} to {self.max}", param, ctx)


def call(
    module: str,
    task: str,
    experiment: str,
    *arguments: object,
    is_open: bool = True,
    mistake: int = 2,
    needs: Sequence[str] = (),
) -> NoReturn:
    """End the process with the code that a function of `module` returns for the store, or for a `mistake`.

    `needs` are packages of the extra that is called as the task is.
    """
    import os

    from digitlab.config.errors import check_extra, one_line_errors, user_errors
    from digitlab.platform.startup import fast_exit, fast_imports

    name = click.get_current_context().command_path.partition(" ")[2]
    if task not in TRAINING:
        nothing_continues()
    sys.path += [str(folder) if folder.is_absolute() else "" for folder in SOURCES]  # where a run's own code is
    try:
        with one_line_errors():
            check_extra(name, needs, name)
            with fast_imports():
                from digitlab.platform import console

                function = getattr(import_module(f"digitlab.{module}"), task)
                from digitlab.tracking.store import Store
            console.prepare()
            with user_errors(name):
                store = Store(os.environ.get("MLFLOW_TRACKING_URI"), experiment)
                if is_open:
                    store.open(create=False)
            with user_errors(name) if mistake == 2 else nullcontext():
                code = function(store, *arguments)
    except SystemExit as end:
        if isinstance(end.code, int) or mistake == 1:  # a signal has ended it, or Python prints the line itself
            raise
        print(end.code, file=sys.stderr)
        sys.exit(mistake)
    fast_exit(code)

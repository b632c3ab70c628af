"""The command `digitlab`: read the arguments, call one function."""

import shlex
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import NoReturn

import click

from digitlab import CONF
from digitlab.platform.text import did_you_mean

EXPERIMENT = "digitlab"  # where runs are, unless another one is named
HYDRAS = {"add_help_option": False, "context_settings": {"ignore_unknown_options": True}}  # its grammar, untouched


class _Group(click.Group):
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


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the references to runs that begin as what is typed, for the shell; none where there is no store."""
    import os

    with suppress(Exception):  # a shell wants no message
        from digitlab.tracking import references
        from digitlab.tracking.store import Store

        store = Store(os.environ.get("MLFLOW_TRACKING_URI"), EXPERIMENT)
        if store.peek():
            return [each for each in references.candidates(store) if each.startswith(incomplete)]
    return []


names_run = partial(click.argument, shell_complete=_complete)
experiment = click.option("--experiment", default=EXPERIMENT, show_default=True, help="MLflow experiment of the runs.")


@click.group(cls=_Group, no_args_is_help=False)
def digitlab() -> None:
    """Find out which differences between image classifiers are real.

    \b
    digitlab train model=mlp data=mnist5k       one run: a network, an optimizer, a data set
    digitlab train seed=1 optim.lr=0.01         any key of the configuration; --cfg job shows all of them
    digitlab sweep grid sweep.seeds=5           many runs; what is done is not run again
    digitlab report                             what the latest sweep shows, in reports/
    digitlab compare latest best                what differs between two runs, and which is better
    digitlab ui                                 the runs in MLflow's own pages

    Runs are kept in mlruns/, where MLFLOW_TRACKING_URI does not name another store. --config-dir DIR adds your own
    files of configuration: DIR/optim/mine.yaml is optim=mine. Each command has its own --help.
    """


@digitlab.command(**HYDRAS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train one network: KEY=VALUE ...; with -m one for each of KEY=A,B."""
    _hydra("train", arguments)


@digitlab.command(**HYDRAS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sweep(arguments: tuple[str, ...]) -> None:
    """Train many networks: NAME [KEY=VALUE ...], what is not done yet."""
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        arguments = (f"sweep={arguments[0]}", *arguments[1:])
    is_told = {"-m", "--multirun", "-h", "--help"} & set(arguments)
    if not is_told and not any(each.startswith("sweep=") for each in arguments):
        names = ", ".join(sorted(file.stem for file in (CONF / "sweep").glob("*.yaml")))
        raise click.UsageError(f"sweep: which one? digitlab sweep NAME; there are: {names}")
    _hydra("train", arguments)


@digitlab.command(**HYDRAS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def report(arguments: tuple[str, ...]) -> None:
    """Say which differences between a sweep's runs are real."""
    _hydra("report", arguments)


@digitlab.command()
@names_run("a")
@names_run("b")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.001,
    show_default=True,
    help="Accuracy that B may lose.",
)
@experiment
def compare(a: str, b: str, margin: float, experiment: str) -> None:
    """Say what differs between A and B, and whether B is better.

    A and B are runs (an id, a name, latest, best), sweeps or MLflow filters; a run stands for all its seeds.

    Exits with 0 where B is shown to lose less than the margin, 1 where it is shown to be worse, 3 where that cannot be
    told, 2 for a mistake.
    """
    _gate("report.versus", "compare", experiment, a, b, margin)


@digitlab.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Of this machine.")
@click.option("--experiment", default="digitlab", show_default=True, help="MLflow experiment that is shown.")
def ui(port: int, experiment: str) -> None:
    """Show the runs in MLflow's UI: say where, and serve it unless a server has it."""
    import os

    from digitlab.config.errors import one_line_errors, user_errors
    from digitlab.platform.startup import fast_exit, fast_imports

    with one_line_errors():
        with fast_imports():
            from digitlab.tracking import ui
            from digitlab.tracking.store import Store
        with user_errors("ui"):
            store = Store(os.environ.get("MLFLOW_TRACKING_URI"), experiment)
            store.open(create=False)
        ui.show(store, port)
        fast_exit()


@digitlab.command(context_settings={"ignore_unknown_options": True})
@names_run("good")
@names_run("bad")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--seeds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Of a commit that differs.")
@experiment
def bisect(good: str, bad: str, settings: tuple[str, ...], seeds: int, experiment: str) -> None:
    """Find the commit between GOOD and BAD that changed the accuracy of what KEY=VALUE ... trains.

    GOOD and BAD are commits, or runs; of runs the settings are those of GOOD, unless they are given. Each commit is
    trained in a worktree of its own. One whose run has the same bits as one before costs a single run.

    Exits with 0 where the commit is found, 3 where there is nothing to find or that cannot be told, 2 for a mistake.
    """
    _gate("report.bisect", "bisect", experiment, good, bad, settings, seeds, is_open=False)


@digitlab.command()
@names_run("run")
@experiment
def explain(run: str, experiment: str) -> None:
    """Say how RUN was made: command, code, differences from the defaults, data, machine."""
    _gate("report.explain", "explain", experiment, run)


@digitlab.command()
@names_run("run")
@experiment
def rerun(run: str, experiment: str) -> None:
    """Make RUN again from its own record, and say whether it came out the same.

    Exits with 0 where it is identical or within its interval, 1 where it is not, 2 for a mistake.
    """
    _gate("report.rerun", "rerun", experiment, run)


@digitlab.command()
@names_run("run")
@click.option("--name", required=True, help="What the model is registered as.")
@click.option("--alias", help="Name of the version, such as champion, which it takes from the version that has it.")
@click.option("--force", is_flag=True, help="Take the alias though the model is shown to be worse.")
@experiment
def register(run: str, name: str, alias: str | None, force: bool, experiment: str) -> None:
    """Register the model of RUN, with a model card, and promote it.

    Exits with 0 where that is done, 1 where it is refused, as the model is shown to be worse than the one that has the
    alias, 2 for a mistake.
    """
    _gate("report.register", "register", experiment, run, name, alias, force)


@digitlab.group(cls=_Group, no_args_is_help=False)
def store() -> None:
    """Look after the store of runs, where it is a file."""


is_dry = click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")


@store.command()
@is_dry
def relocate(dry_run: bool) -> None:
    """Make runs find their artifacts again after mlruns/ was moved."""
    _maintain("relocate", dry_run)


@store.command()
@is_dry
def gc(dry_run: bool) -> None:
    """Remove deleted runs and artifacts that no run needs."""
    _maintain("collect_garbage", dry_run)


@store.command()
def check() -> None:
    """Say whether the file of the store is sound, and of when its daily copy is."""
    _maintain("check", is_dry=False)


@store.command()
@is_dry
def restore(dry_run: bool) -> None:
    """Put the daily copy in the place of a damaged store, which is kept."""
    _maintain("restore", dry_run)


def run() -> None:
    """Run the command that the program's arguments name; a mistake ends it with one line."""
    try:
        digitlab.main(sys.argv[1:] or ["--help"], prog_name="digitlab", standalone_mode=False)
    except click.ClickException as error:
        sys.exit(f"error: {error.format_message()}")


def _hydra(app: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [click.get_current_context().command_path, *arguments]
    from digitlab import apps

    apps.start(app)


def _gate(module: str, task: str, experiment: str, *arguments: object, is_open: bool = True) -> NoReturn:
    """End the process with the code that a function of `module` returns for the store; with 2 for a mistake."""
    import os

    from digitlab.config.errors import one_line_errors, user_errors
    from digitlab.platform.startup import fast_exit, fast_imports

    try:
        with one_line_errors():
            with fast_imports():
                function = getattr(import_module(f"digitlab.{module}"), task)
                from digitlab.tracking.store import Store
            with user_errors(task):
                store = Store(os.environ.get("MLFLOW_TRACKING_URI"), experiment)
                if is_open:
                    store.open(create=False)
                code = function(store, *arguments)
    except SystemExit as end:
        if isinstance(end.code, int):  # a signal has ended it
            raise
        print(end.code, file=sys.stderr)
        sys.exit(2)  # 1 is an answer
    fast_exit(code)


def _maintain(task: str, is_dry: bool) -> None:
    import os

    from digitlab.config.errors import one_line_errors, user_errors
    from digitlab.platform.startup import fast_exit, fast_imports

    with one_line_errors():
        with fast_imports():
            from digitlab.platform import console
            from digitlab.tracking import maintenance
            from digitlab.tracking.store import Store
        with user_errors("store"):
            store = Store(os.environ.get("MLFLOW_TRACKING_URI"), EXPERIMENT)
            if is_dry:
                console.say("without --dry-run this would be done:")
            for line in getattr(maintenance, task)(store, is_dry):
                console.say(line)
        fast_exit()

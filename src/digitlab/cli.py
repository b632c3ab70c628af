"""The command `digitlab`: read the arguments, call one function."""

import sys

import click

from digitlab import CONF
from digitlab.cli_base import EXPERIMENT, Group, Whole, call, experiment
from digitlab.cli_claims import claims
from digitlab.cli_runs import COMMANDS
from digitlab.platform.secrets import mask_screen
from digitlab.platform.signals import nothing_continues

HYDRAS = {"add_help_option": False, "context_settings": {"ignore_unknown_options": True}}  # its grammar, untouched


@click.group(cls=Group, no_args_is_help=False)
def digitlab() -> None:
    """Find out which differences between image classifiers are real.

    \b
    digitlab train model=mlp data=mnist5k       one run: a network, an optimizer, a data set
    digitlab train seed=1 optim.lr=0.01         any key of the configuration; --cfg job shows all of them
    digitlab sweep grid sweep.seeds=5           many runs; what is done is not run again
    digitlab report                             what the latest sweep shows, in reports/
    digitlab compare latest best                what differs between two runs, and which is better
    digitlab evaluate best --corrupt            how good the model of a run is, and what it withstands
    digitlab predict photo.png --run best       what a picture shows
    digitlab export best --format onnx          a model for other programs
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


for command in (*COMMANDS, claims):
    digitlab.add_command(command)


@digitlab.command()
@click.option("--port", type=Whole(1, 65535), default=5000, show_default=True, help="Of this machine.")
@click.option("--experiment", default=EXPERIMENT, show_default=True, help="MLflow experiment that is shown.")
def ui(port: int, experiment: str) -> None:
    """Show the runs in MLflow's UI: say where, and serve it unless a server has it."""
    call("tracking.ui", "ui", experiment, port, mistake=1)


@digitlab.group(cls=Group, no_args_is_help=False)
def store() -> None:
    """Look after the store of runs."""


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
    _maintain("check", False)


@store.command()
@is_dry
def restore(dry_run: bool) -> None:
    """Put the daily copy in the place of a damaged store, which is kept."""
    _maintain("restore", dry_run)


@store.command()
def sync() -> None:
    """Send what runs recorded while their server was away."""
    _maintain("sync", False)


@store.command()
@click.option("--to", required=True, metavar="URI", help="The other store: sqlite:///FILE, or a server's address.")
@experiment
def copy(to: str, experiment: str) -> None:
    """Copy the runs of an experiment into another store; what has been copied is not copied again."""
    _maintain("copy_to", to, experiment)


def run() -> None:
    """Run the command that the program's arguments name; a mistake ends it with one line."""
    mask_screen()
    try:
        digitlab.main(sys.argv[1:] or ["--help"], prog_name="digitlab", standalone_mode=False)
    except click.ClickException as error:
        print("error:", *error.format_message().split(), file=sys.stderr)  # one line
        sys.exit(error.exit_code)  # 2, as of compare's and other gates' mistakes: 1 is an answer of theirs


def _hydra(app: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [click.get_current_context().command_path, *arguments]
    from digitlab import apps

    apps.start(app)


def _maintain(task: str, choice: bool | str, experiment: str = EXPERIMENT) -> None:
    import os

    from digitlab.config.errors import one_line_errors, user_errors
    from digitlab.platform.startup import fast_exit, fast_imports

    nothing_continues()
    with one_line_errors():
        with fast_imports():
            from digitlab.platform import console
            from digitlab.tracking import maintenance
            from digitlab.tracking.store import Store
        with user_errors("store"):
            store = Store(os.environ.get("MLFLOW_TRACKING_URI"), experiment)
            if choice is True:
                console.say("without --dry-run this would be done:")
            for line in getattr(maintenance, task)(store, choice):
                console.say(line)
        fast_exit()

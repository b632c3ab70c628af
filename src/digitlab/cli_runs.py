"""The commands about runs that are there: each reads its arguments and calls one function."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from digitlab.cli_base import EXPERIMENT, Whole, call, experiment


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


@click.command()
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
    call("report.versus", "compare", experiment, a, b, margin)


@click.command(context_settings={"ignore_unknown_options": True})
@names_run("good")
@names_run("bad")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--seeds", type=Whole(2, 1000), default=5, show_default=True, help="Of a commit that differs.")
@experiment
def bisect(good: str, bad: str, settings: tuple[str, ...], seeds: int, experiment: str) -> None:
    """Find the commit between GOOD and BAD that changed the accuracy of what KEY=VALUE ... trains.

    GOOD and BAD are commits, or runs; of runs the settings are those of GOOD, unless they are given. Each commit is
    trained in a worktree of its own. One whose run has the same bits as one before costs a single run.

    Exits with 0 where the commit is found, 3 where there is nothing to find or that cannot be told, 2 for a mistake.
    """
    call("report.bisect", "bisect", experiment, good, bad, settings, seeds, is_open=False)


@click.command()
@names_run("run")
@experiment
def explain(run: str, experiment: str) -> None:
    """Say how RUN was made: command, code, differences from the defaults, data, machine."""
    call("report.explain", "explain", experiment, run)


@click.command()
@names_run("run")
@click.option("--seed", type=Whole(0, 2**32 - 1), help="Another run of the same settings, with this seed.")
@click.option("--into", metavar="NAME", help="MLflow experiment that is to have the new run.")
@click.option("--allow-targets", metavar="NAMES", help="Installed packages that it was built from.")
@experiment
def rerun(run: str, seed: int | None, into: str | None, allow_targets: str | None, experiment: str) -> None:
    """Make RUN again from its own record, and say whether it came out the same.

    Exits with 0 where it is identical or within its interval, or has another seed, 1 where it is not, 2 for a mistake.
    """
    call("report.rerun", "rerun", experiment, run, seed, into, allow_targets)


@click.command()
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
    call("report.register", "register", experiment, run, name, alias, force)


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", default="best", show_default=True, shell_complete=_complete, help="Whose model it is.")
@click.option("--many", is_flag=True, help="Read all digits of a picture, from left to right; else the largest.")
@click.option("--format", "form", type=click.Choice(["table", "jsonl", "csv"]), default="table", show_default=True)
@click.option("--save-inputs", metavar="DIR", type=click.Path(path_type=Path), help="Write what the network sees.")
@experiment
def predict(
    pictures: tuple[Path, ...], run: str, many: bool, form: str, save_inputs: Path | None, experiment: str
) -> None:
    """Say what PICTURES show: image files, or folders of them.

    For a model of MNIST's digits, the digit is found in its photograph, whatever its size, colour and light, and framed
    as MNIST's are. Exits with 0, 3 where a file could not be read, 1 for a mistake.
    """
    call("inference.predict", "predict", experiment, run, pictures, form, many, save_inputs, mistake=1)


@click.command()
@names_run("run")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--corrupt", is_flag=True, help="Also with noise, blur, shift, rotation, less contrast, a part covered.")
@click.option("--all", "whole", is_flag=True, help="Every image, of data that it was not trained on.")
@experiment
def evaluate(run: str, overrides: tuple[str, ...], corrupt: bool, whole: bool, experiment: str) -> None:
    """Measure the model of RUN on its test images, or on other data: data=NAME data.KEY=VALUE.

    The result is written into the run, under eval/.
    """
    call("inference.evaluate", "evaluate", experiment, run, overrides, whole, corrupt, mistake=1)


@click.command()
@names_run("run")
@click.option(
    "--format", "form", type=click.Choice(["onnx", "torchscript", "pt2", "safetensors", "web"]), required=True
)
@click.option("--int8", is_flag=True, help="Weights of 8 bits, for onnx; its accuracy is measured beside.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Where to; by default the run's name.")
@experiment
def export(run: str, form: str, int8: bool, output: Path | None, experiment: str) -> None:
    """Write the model of RUN for other programs, checked against the original.

    It takes images as they are stored, uint8, as many as you like, and gives probabilities; safetensors has the weights
    alone, and web is a folder with a page that runs the model in a browser, for which npm brings ONNX Runtime Web.
    onnx, safetensors and web need the extra export.
    """
    call("inference.export", "export", experiment, run, form, int8, output, mistake=1)


@click.command()
@click.argument("runs", nargs=-1, required=True, shell_complete=_complete)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is every network.")
@click.option("--port", type=Whole(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@experiment
def serve(runs: tuple[str, ...], host: str, port: int, experiment: str) -> None:
    """Serve the models of RUNS: a page to draw on, and MLflow's protocol for programs, which the first one answers."""
    call(
        "serve.app", "serve", experiment, runs, host, port, mistake=1, needs=("fastapi", "uvicorn", "prometheus_client")
    )


@click.command()
@click.option("--serve", "is_served", is_flag=True, help="Show it as a page, which follows the store.")
@click.option(
    "--again",
    type=Whole(0, 100),
    default=0,
    show_default=True,
    help="Runs, with seeds of its own, that the page makes of an entry when it is asked to.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is every network.")
@click.option("--port", type=Whole(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@experiment
def board(is_served: bool, again: int, host: str, port: int, experiment: str) -> None:
    """Rank what everybody has trained, by data set and by claim, with its ties."""
    if is_served:
        call("serve.board", "serve_board", experiment, host, port, again, mistake=1, needs=("fastapi", "uvicorn"))
    if again:
        raise click.UsageError("--again: only a page can be asked to; give --serve too")
    call("report.board", "show_board", experiment, mistake=1)


COMMANDS = (compare, bisect, explain, rerun, register, predict, evaluate, export, serve, board)

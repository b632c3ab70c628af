"""The commands about published claims."""

from pathlib import Path

import click

from digitlab.cli_base import Group, Whole, call, experiment

texts = click.argument("texts", metavar="[TEXT]...", nargs=-1)


@click.group(cls=Group, no_args_is_help=False)
def claims() -> None:
    """Run published claims, and say which hold."""


@claims.command("list")
@texts
@click.option("--names", is_flag=True, help="Print the names alone, with commas, as claim=NAMES takes them.")
@experiment
def list_(texts: tuple[str, ...], names: bool, experiment: str) -> None:
    """List the claims that can be run, those with a TEXT in name, header or document, and the verdicts so far."""
    call("report.claims_list", "list_claims", experiment, texts, names, is_open=False)


@claims.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@texts
@experiment
def write(folder: Path, texts: tuple[str, ...], experiment: str) -> None:
    """Write an index of claims into DIR, and a page for each that was run.

    DIR/runs.jsonl keeps the runs of every store that DIR was written from, so that machines can share the work: written
    from one store after another, the pages are on the runs of all.
    """
    call("report.claims_list", "write_claims", experiment, folder, texts, is_open=False)


@claims.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seeds", type=Whole(1, 1000), default=5, show_default=True, help="Runs of the recipe.")
@click.option("--badge", metavar="FILE.svg", type=click.Path(path_type=Path), help="Write the verdict as a badge.")
@experiment
def check(file: Path, seeds: int, badge: Path | None, experiment: str) -> None:
    """Run the claim that FILE describes, wherever it is, and say whether it holds.

    Exits with 0 where it does or more is reached, 1 where it is shown that less is, 3 where that cannot be told, 2 for
    a mistake.
    """
    call("report.claim_check", "check_claim", experiment, file, seeds, badge, is_open=False)

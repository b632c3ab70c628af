"""A folder of pages on published claims, which keeps the runs of every store that it was written from."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from digitlab.claims import index
from digitlab.claims.followed import Followed, from_line, to_line
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome
from digitlab.config.errors import user_errors
from digitlab.documents.document import Document, Picture, to_html, to_markdown
from digitlab.platform.disk import write_whole

INDEX, SORTABLE, RUNS = "index.md", "index.html", "runs.jsonl"


def merge(folder: Path, runs: Iterable[Followed]) -> list[Followed]:
    """Return the runs that `folder` has and those given, in a fixed order. Raises UserError where it cannot be read."""
    with user_errors(str(folder)):
        there = list(_read(folder / RUNS))
    by_id = {(each.recipe.claim, each.result.run_id): each for each in (*there, *runs)}
    return sorted(by_id.values(), key=lambda each: (each.place, each.result.ended))


def write(folder: Path, runs: Sequence[Followed], outcomes: Sequence[Outcome], claims: Sequence[Claim]) -> None:
    """Write the runs, the index of `claims` and the page of each that was run. Raises UserError where it cannot be.

    A browser shows no Markdown, so index.html has pages of its own.
    """
    with user_errors(str(folder)):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        # Whole or not at all: the runs of other machines are in no other place.
        write_whole(folder / RUNS, "".join(f"{to_line(each)}\n" for each in runs).encode())
        _write_markdown(folder / INDEX, index.index(outcomes, claims, ".md"))
        _write_html(folder / SORTABLE, index.index(outcomes, claims, ".html"))
        for outcome in outcomes:
            if outcome.is_own and outcome.is_comparable:
                page = index.page_of(outcome, outcomes)
                _write_markdown(folder / f"{outcome.claim.name}.md", page)
                _write_html(folder / f"{outcome.claim.name}.html", page)


def _write_html(file: Path, document: Document) -> None:
    write_whole(file, to_html(document.title, document.lead, document.sections).encode())


def _write_markdown(file: Path, document: Document) -> None:
    write_whole(file, to_markdown(document.title, document.lead, document.sections).encode())
    for picture in (block for section in document.sections for block in section.blocks if isinstance(block, Picture)):
        write_whole(file.parent / "figures" / picture.file, picture.content)


def _read(file: Path) -> Iterator[Followed]:
    for number, line in enumerate(file.read_text("utf-8").splitlines() if file.exists() else (), 1):
        try:
            yield from_line(line)
        except ValueError as error:
            raise ValueError(f"{file.name}: line {number} {error}") from None

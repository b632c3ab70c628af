"""Pages on published claims: an index of all, and one for each claim."""

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from digitlab.claims import lessons, page, words
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome
from digitlab.documents import document
from digitlab.documents.document import Document, Linked, Section, Table

MINUTES = "min a run: the median by the clock, whatever else the machine did meanwhile."


def index(outcomes: Sequence[Outcome], claims: Sequence[Claim], ending: str) -> Document:
    """Return the index of `claims`: what their runs show together, and a row for each, linked to its page.

    The names of the pages have this `ending`.
    """
    own = {outcome.claim.name: outcome for outcome in outcomes if outcome.is_own and outcome.is_comparable}
    headings = ["claim", "of", "data", "claimed", "ours", "n", "verdict", "flags", "min a run"]
    rows = [_row(own[claim.name], ending) for claim in claims if claim.name in own]
    table = Table(headings, rows, "Published claims, run again", text_columns=3, is_sortable=True)
    not_run = [claim.name for claim in claims if claim.name not in own]
    not_changed = lessons.waiting(outcomes, [claim.name for claim in claims])
    waiting = [
        f"{what}: {', '.join(names)}" for what, names in (("claims", not_run), ("counterparts", not_changed)) if names
    ]
    sections = [
        Section("What they show", lessons.together(list(own.values()))),
        Section("What changes of a recipe do", lessons.of_changes(outcomes)),
        Section("Claims", [table, words.RULE, page.FLAGGED, MINUTES] if rows else []),
        Section("Not run yet", [waiting] if waiting else []),
    ]
    shown = [section for section in sections if section.blocks]
    return Document("Published claims, run again", words.conclusion(list(own.values())), shown, [], {})


def page_of(outcome: Outcome, outcomes: Sequence[Outcome]) -> Document:
    """Return the page of a claim: the verdict, its runs beside what was printed, and what changes of its recipe do."""
    claim = outcome.claim
    changed = [each for each in outcomes if each.claim.name == claim.name and not each.is_own]
    table = page.table([outcome]).compact()
    runs = Table(
        ["seed", claim.measured, "test loss", "epochs", "minutes", "day", "commit"],
        [_run(run) for run in outcome.runs],
        f"Runs of {claim.name}",
    )
    sections = [
        Section("What a reader should believe", [words.paragraph(outcome)]),
        Section("Claimed and ours", [table, *page.legend([outcome])]),
        Section(
            "Runs", [f"Made by `python src/train.py claim={claim.name} seed=SEED`, on {_machines(outcome)}.", runs]
        ),
        Section("Beside what was printed", _curves(outcome)),
        Section("What changes of the recipe do", page.recipe_changes([outcome, *changed]) if changed else []),
        Section("Facts in the document", page.facts([outcome], None)),
    ]
    return Document(
        f"{claim.name}: {claim.source}", f"{outcome.verdict.word}.", [each for each in sections if each.blocks], [], {}
    )


def _row(outcome: Outcome, ending: str) -> list[str]:
    claim = outcome.claim
    return [Linked((claim.name, claim.name + ending)), claim.source, claim.data, claim.claimed, words.accuracy(outcome),
            str(outcome.cell.n), outcome.verdict.word, page.flags(claim), f"{minutes(outcome):.1f}"]  # fmt: skip


def minutes(outcome: Outcome) -> float:
    """Return how many minutes a run took: the median, since other work may have held up any of them."""
    return median(run.ended - run.began for run in outcome.runs) / 60_000


def _run(run) -> list[str]:
    day = f"{datetime.fromtimestamp(run.ended / 1000, UTC):%Y-%m-%d}"
    took = f"{(run.ended - run.began) / 60_000:.1f}"
    loss = "–" if run.loss is None else f"{run.loss:.4f}"
    commit = run.settings.get("code commit", "–")
    return [str(run.seed), f"{run.accuracy:.4f}", loss, str(len(run.val_acc)), took, day, commit]


def _machines(outcome: Outcome) -> str:
    made_of = [tuple(run.settings.get(f"environment {key}", "?") for key in ("CPU", "torch")) for run in outcome.runs]
    return "; ".join(f"{cpu}, torch {torch}" for cpu, torch in dict.fromkeys(made_of))


def _curves(outcome: Outcome) -> list[document.Block]:
    if not outcome.claim.printed.get("val/acc") or not outcome.cell.curves.size:
        return []
    name = outcome.claim.name
    title = f"{name}: validation accuracy, mean and range over {outcome.cell.n} seeds"
    return [page.curves_beside_printed(f"{name}.svg", {name: outcome}, title)]

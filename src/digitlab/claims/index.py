"""Pages on published claims: an index of all, and one for each claim."""

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import mean, median

import numpy as np

from digitlab.claims import page, words
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome
from digitlab.documents import document, format
from digitlab.documents.document import Document, Linked, Section, Table
from digitlab.platform.text import count

MINUTES = "min a run: the median by the clock, whatever else the machine did meanwhile."


def index(outcomes: Sequence[Outcome], claims: Sequence[Claim]) -> Document:
    """Return the index of `claims`: what their runs show together, and a row for each, linked to its page."""
    own = {outcome.claim.name: outcome for outcome in outcomes if outcome.is_own and outcome.is_comparable}
    headings = ["claim", "of", "data", "claimed", "ours", "n", "verdict", "flags", "min a run"]
    rows = [_row(claim, own[claim.name]) for claim in claims if claim.name in own]
    waiting = [claim.name for claim in claims if claim.name not in own]
    sections = [
        Section("What they show", [_lessons(outcomes)]),
        Section(
            "Claims",
            [
                Table(headings, rows, "Published claims, run again", text_columns=3, is_sortable=True),
                words.RULE,
                page.FLAGGED,
                MINUTES,
            ],
        ),
        Section("Not run yet", [[", ".join(waiting)]] if waiting else []),
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


def _row(claim: Claim, outcome: Outcome) -> list[str]:
    return [Linked((claim.name, f"{claim.name}.md")), claim.source, claim.data, claim.claimed, words.accuracy(outcome),
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


def _lessons(outcomes: Sequence[Outcome]) -> list[str]:
    """Say how far picking an epoch by the test images, and changes of a recipe, move an accuracy."""
    judged = [each for each in outcomes if each.is_own and each.is_comparable and not each.cell.failed]
    picked = [mean(each.best_minus_last) for each in judged if each.claim.is_validated_on_test]
    lines = []
    if picked:
        lines.append(
            f"Taking the epoch with the best test accuracy adds {mean(picked):.4f} on average, and up to "
            f"{max(picked):.4f}, to the last epoch's: {len(picked)} claims that validate on the test set."
        )
    spreads = [max(each.accuracies) - min(each.accuracies) for each in judged if len(each.accuracies) > 1]
    if spreads:
        lines.append(
            f"Of runs that differ in nothing but the seed the highest is {np.median(spreads):.4f} above the lowest "
            f"in the median, and up to {max(spreads):.4f}. Most documents have a single run."
        )
    documents = {each.claim.document for each in judged}
    for letter in ("U", "L"):
        if of := {each.claim.document for each in judged if letter in page.flags(each.claim)}:
            lines.append(f"{len(of)} of {count(len(documents), 'document')}: {page.FLAGS[letter]}.")
    lines += [
        f"{each.claim.name}, {page.describe_changes(each)}: {format.signed(change.mean)} in accuracy "
        f"({format.signed(change.low)} to {format.signed(change.high)}, n = {common})."
        for each in outcomes
        if not each.is_own
        for common, change in [page.compare_with_own(each, outcomes)]
        if change
    ]
    return lines


def _curves(outcome: Outcome) -> list[document.Block]:
    if not outcome.claim.printed.get("val/acc") or not outcome.cell.curves.size:
        return []
    name = outcome.claim.name
    title = f"{name}: validation accuracy, mean and range over {outcome.cell.n} seeds"
    return [page.curves_beside_printed(f"{name}.svg", {name: outcome}, title)]

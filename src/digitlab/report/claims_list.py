"""List the published claims that are known, with what the runs of their recipes in this store came to."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from digitlab import CONF, REPOSITORY
from digitlab.claims import index, words
from digitlab.claims.followed import Followed
from digitlab.claims.recipes import read_claim, recipe_of, recipes_of
from digitlab.claims.schema import Claim, Recipe
from digitlab.claims.verdict import Outcome
from digitlab.config.compose import configuration
from digitlab.config.errors import UserError
from digitlab.config.recognize import said_by
from digitlab.platform import console
from digitlab.platform.text import count
from digitlab.report import claims_folder
from digitlab.report.judged import followed, outcomes
from digitlab.report.runs import read_predictions, read_results
from digitlab.tracking import queries
from digitlab.tracking.store import Store

HEADINGS = ["claim", "of", "data", "claimed", "ours", "n", "verdict", "min a run", "run"]
PAGES = REPOSITORY / "docs" / "claims"  # the pages that digitlab comes with, where it is used in its folder
LONGEST = 44  # characters of a source


def list_claims(store: Store, texts: Iterable[str], only_names: bool) -> int:
    """Print each claim that has one of `texts` in name, header, document or data; return the exit code.

    Runs of this store count that followed a claim's recipe, and those of docs/claims where it has none. Verdicts are
    corrected for the claims listed. Raises UserError where no claim is meant.
    """
    with configuration():
        meant = _meant(texts)
        if only_names:
            print(",".join(meant))
            return 0
        chosen = [read_claim(name) for name in meant]
        runs = list(_runs(store))
        here = {each.recipe.claim for each in runs if not each.recipe.changes}
        runs += [each for each in claims_folder.merge(PAGES, ()) if each.recipe.claim not in here]
        found = _judged(runs, meant)
    own = {each.claim.name: each for each in sorted(found, key=lambda each: each.is_comparable) if each.is_own}
    rows = [[*_row(each, own.get(each.name)), _where(each.name, own, here)] for each in chosen]
    console.show_table(HEADINGS, rows, text_columns=3)
    alone = len(own.keys() - here)
    console.say(
        f"{count(len(chosen), 'claim')}, {len(own) - alone} run here, {alone} in docs/claims alone. One is run by: "
        "digitlab train claim=NAME (after pip install .; else python -m digitlab, with PYTHONPATH=src)"
    )
    return 0


def write_claims(store: Store, folder: Path, texts: Iterable[str]) -> int:
    """Write pages on the claims meant, as above, and on those of the runs that `folder` has; return the exit code."""
    with configuration():
        meant = _meant(texts)
        runs = claims_folder.merge(folder, _runs(store))
        if not runs:
            raise UserError("no claim has been run here; make claims runs the tutorials'")
        published = [claim for claim in map(read_claim, meant) if claim.is_published]
        found = _judged(runs, [claim.name for claim in published])
        claims_folder.write(folder, runs, found, published)
    pages = count(sum(each.is_own for each in found), "page")
    indexes = f"{claims_folder.INDEX}, {claims_folder.SORTABLE}"
    console.say(f"written to {folder}: {indexes}, {pages}, and {count(len(runs), 'run')} of {claims_folder.RUNS}")
    return 0


def _meant(texts: Iterable[str]) -> list[str]:
    """Return the names of the claims that have one of `texts` in name or file."""
    files = {file.stem: _said(file) for file in sorted((CONF / "claim").glob("*.yaml"))}
    wanted = [each.lower() for each in texts] or [""]
    meant = [name for name, said in files.items() if any(text in said for text in wanted)]
    if not meant:
        raise UserError(
            f"{' '.join(wanted)}: no claim has this in its name, header or document; digitlab claims list has all"
        )
    return meant


def _said(file: Path) -> str:
    """Return the name of a claim's file, its comments, and the document and data that it names, in small letters."""
    lines = [line for line in file.read_text("utf-8").splitlines() if re.match(r"# (?!yaml-)", line)]
    claim = said_by(file).claim
    return " ".join([file.stem, *lines, str(claim.document), str(claim.get("data", ""))]).lower()


def _judged(runs: Iterable[Followed], names: Collection[str]) -> list[Outcome]:
    return outcomes([each for each in runs if each.recipe.claim in names])


def _row(claim: Claim, outcome: Outcome | None) -> list[str]:
    source = f"{claim.source[: LONGEST - 1]}…" if len(claim.source) > LONGEST else claim.source
    row = [claim.name, source, claim.data, claim.claimed]
    if not outcome:
        return [*row, "–", "–", "–", "–"]
    numbers = words.accuracy(outcome), str(outcome.cell.n), outcome.verdict.word, f"{index.minutes(outcome):.1f}"
    return [*row, *numbers]


def _where(name: str, own: Collection[str], here: Collection[str]) -> str:
    return "–" if name not in own else "here" if name in here else "docs/claims"


def _runs(store: Store) -> Iterator[Followed]:
    """Yield every run of the store that followed a claim's recipe, its own or a changed one; once for each claim."""
    if store.peek():
        runs = list(queries.search(store, "tags.done = 'true' and params.claim LIKE '%'"))
        found = {run.data.tags["fingerprint"]: recipe_of(run.data.params) for run in runs}
        own = {fingerprint: recipe for fingerprint, recipe in found.items() if recipe}
        results, predict = list(read_results(runs)), cache(partial(read_predictions, store))
        for recipes in (own, _shared(store, own)):
            yield from followed(store, recipes, results, predict)


def _shared(store: Store, own: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Return, by fingerprint, what runs followed that were made for another claim of the same recipe.

    A sweep takes them for its cells; they themselves have the name of the first claim.
    """
    named = [
        cell
        for _, cell in queries.swept(store)
        if cell["fingerprint"] in own and f"claim={own[cell['fingerprint']].claim}" not in cell.get("overrides", ())
    ]
    return {key: recipe for key, recipe in recipes_of(named).items() if recipe.claim != own[key].claim}

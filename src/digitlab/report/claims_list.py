"""List the published claims that are known, with what the runs of their recipes in this store came to."""

from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path

from digitlab import CONF
from digitlab.claims import index, words
from digitlab.claims.followed import Followed
from digitlab.claims.recipes import read_claim, recipes_of
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome
from digitlab.config.compose import configuration
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.report import claims_folder
from digitlab.report.judged import followed, outcomes
from digitlab.report.runs import read_predictions, read_results
from digitlab.tracking import queries
from digitlab.tracking.store import Store

HEADINGS = ["claim", "of", "data", "claimed", "ours", "n", "verdict", "min a run"]
LONGEST = 44  # characters of a source


def list_claims(store: Store, texts: Iterable[str], folder: Path | None) -> int:
    """Print each claim whose name or file has one of `texts`, of none all; return the exit code.

    Runs count that a sweep of this store made of a claim's recipe, and those that `folder` has from elsewhere, into
    which all are written, with a page for each claim. Verdicts are corrected for the claims listed. Raises UserError
    where no claim is meant.
    """
    files = sorted((CONF / "claim").glob("*.yaml"))
    wanted = [each.lower() for each in texts] or [""]
    meant = [each for each in files if any(text in f"{each.stem} {each.read_text()}".lower() for text in wanted)]
    if not meant:
        raise UserError(f"{' '.join(wanted)}: no claim has this in its name or file; digitlab claims lists all")
    with configuration():
        chosen = [read_claim(each.stem) for each in meant]
        runs = list(_runs(store)) if store.peek() else []
        runs = claims_folder.merge(folder, runs) if folder else runs
        names = {each.name for each in chosen}
        found = outcomes([each for each in runs if each.recipe.claim in names])
    own = {each.claim.name: each for each in sorted(found, key=lambda each: each.is_comparable) if each.is_own}
    console.show_table(HEADINGS, [_row(each, own.get(each.name)) for each in chosen], text_columns=3)
    console.say(f"{len(chosen)} claims, {len(own)} of them run here. One is run by: digitlab train claim=NAME")
    if folder:
        claims_folder.write(folder, runs, found, chosen)
        console.say(f"written to {folder}: {claims_folder.INDEX}, a page for each claim, {claims_folder.RUNS}")
    return 0


def _row(claim: Claim, outcome: Outcome | None) -> list[str]:
    source = f"tutorial {claim.document}" if claim.document.isdigit() else claim.document
    source = f"{source[: LONGEST - 1]}…" if len(source) > LONGEST else source
    row = [claim.name, source, claim.data, "–" if claim.accuracy is None else str(claim.accuracy)]
    if not outcome:
        return [*row, "–", "–", "–", "–"]
    numbers = words.accuracy(outcome), str(outcome.cell.n), outcome.verdict.word, f"{index.minutes(outcome):.1f}"
    return [*row, *numbers]


def _runs(store: Store) -> Iterator[Followed]:
    """Yield every run of the store that followed a claim's recipe, its own or a changed one."""
    cells = [cell for parent in queries.sweeps(store).values() for cell in queries.cells_of(store, parent)]
    recipes = recipes_of(cells)
    results = [
        each for each in read_results(queries.search(store, "tags.done = 'true'")) if each.fingerprint in recipes
    ]
    yield from followed(store, recipes, results, cache(partial(read_predictions, store)))

"""List the published claims that are known, with what the runs of their recipes in this store came to."""

from collections.abc import Iterable
from functools import cache, partial

from digitlab import CONF
from digitlab.claims import words
from digitlab.claims.recipes import read_claim, recipes_of
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome
from digitlab.config.compose import configuration
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.report.judged import judged
from digitlab.report.runs import read_predictions, read_results
from digitlab.tracking import queries
from digitlab.tracking.store import Store

HEADINGS = ["claim", "of", "data", "claimed", "ours", "n", "verdict", "min a run"]
LONGEST = 44  # characters of a source


def list_claims(store: Store, texts: Iterable[str]) -> int:
    """Print each claim whose name or file has one of `texts`, of none all; return the exit code.

    Runs count that a sweep of this store made of a claim's own recipe. Verdicts are corrected for the claims listed.
    Raises UserError where no claim is meant.
    """
    files = sorted((CONF / "claim").glob("*.yaml"))
    wanted = [each.lower() for each in texts] or [""]
    meant = [each for each in files if any(text in f"{each.stem} {each.read_text()}".lower() for text in wanted)]
    if not meant:
        raise UserError(f"{' '.join(wanted)}: no claim has this in its name or file; digitlab claims lists all")
    with configuration():
        chosen = [read_claim(each.stem) for each in meant]
        outcomes = _outcomes(store, {each.name for each in chosen}) if store.peek() else {}
    console.show_table(HEADINGS, [_row(each, outcomes.get(each.name)) for each in chosen], text_columns=3)
    console.say(f"{len(chosen)} claims, {len(outcomes)} of them run here. One is run by: digitlab train claim=NAME")
    return 0


def _row(claim: Claim, outcome: Outcome | None) -> list[str]:
    source = f"tutorial {claim.document}" if claim.document.isdigit() else claim.document
    source = f"{source[: LONGEST - 1]}…" if len(source) > LONGEST else source
    row = [claim.name, source, claim.data, claim.claimed]
    if not outcome:
        return [*row, "–", "–", "–", "–"]
    minutes = sum(run.ended - run.began for run in outcome.runs) / len(outcome.runs) / 60_000
    return [*row, words.accuracy(outcome), str(outcome.cell.n), outcome.verdict.word, f"{minutes:.1f}"]


def _outcomes(store: Store, names: set[str]) -> dict[str, Outcome]:
    """Return what came of each claim's own recipe, on the data that it is about where there are such runs."""
    cells = [cell for parent in queries.sweeps(store).values() for cell in queries.cells_of(store, parent)]
    own = {
        fingerprint: each for fingerprint, each in recipes_of(cells).items() if not each.changes and each.claim in names
    }
    results = [each for each in read_results(queries.search(store, "tags.done = 'true'")) if each.fingerprint in own]
    outcomes = judged(store, own, results, cache(partial(read_predictions, store)))
    return {each.claim.name: each for each in sorted(outcomes, key=lambda each: each.data == each.claim.data)}

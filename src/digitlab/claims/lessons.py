"""Say what claims that were run again show together, and what changes of their recipes do."""

from collections.abc import Sequence
from statistics import mean, median

from digitlab.analysis.statistics import PairedTest
from digitlab.claims import page, words
from digitlab.claims.counterparts import counterparts
from digitlab.claims.verdict import Outcome
from digitlab.documents import format
from digitlab.documents.document import Block
from digitlab.platform.text import count


def together(judged: Sequence[Outcome]) -> list[Block]:
    """Say how far an epoch picked by the test images and the seed move an accuracy, and what documents leave out."""
    sound = [each for each in judged if not each.cell.failed]
    picked = [mean(each.best_minus_last) for each in sound if each.claim.is_validated_on_test]
    lines = []
    if picked:
        lines.append(
            f"Taking the epoch with the best test accuracy adds {mean(picked):.4f} on average, and up to "
            f"{max(picked):.4f}, to the last epoch's: {count(len(picked), 'claim')} validated on the test set."
        )
    # The folds of a cross-validation follow the seed, so that its runs differ in their images too.
    alike = [each.accuracies for each in sound if each.claim.folds == 1 and len(each.accuracies) > 1]
    spreads = [max(accuracies) - min(accuracies) for accuracies in alike]
    if spreads:
        lines.append(
            f"Of runs that differ in nothing but the seed the highest is {median(spreads):.4f} above the lowest "
            f"in the median, and up to {max(spreads):.4f}. Most documents have a single run."
        )
    documents = {each.claim.document for each in judged}
    for letter in ("U", "L"):
        if of := {each.claim.document for each in judged if letter in page.flags(each.claim)}:
            lines.append(f"{len(of)} of {count(len(documents), 'document')}: {page.FLAGS[letter]}.")
    return [lines] if lines else []


def of_changes(outcomes: Sequence[Outcome]) -> list[Block]:
    """Say what each change of a recipe does to the accuracy, and how many show a difference."""
    changed = [each for each in outcomes if not each.is_own]
    found = [(each, *page.compare_with_own(each, outcomes)) for each in changed]
    compared = [(each, common, change) for each, common, change in found if change]
    lines = [f"{_says(each)}: {_moves(change, common)}." for each, common, change in compared]
    lines += [f"{_says(each)}: {words.accuracy(each)}, not compared." for each, _, change in found if not change]
    if not lines:
        return []
    shown = sum(_is_shown(change) for *_, change in compared)
    lead = (
        f"{shown} of {count(len(compared), 'change')} of a recipe {'shows' if shown == 1 else 'show'} a difference in "
        "accuracy to the claim's own: the 95 % t-interval of the difference, paired by seed, holds no 0."
    )
    known = counterparts()
    filled = [
        (each, change) for each, _, change in compared if each.counterpart in known and known[each.counterpart].unstated
    ]
    return [lead, lines, *([_of_unstated(filled)] if filled else [])]


def waiting(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[str]:
    """Return the counterparts of the claims `names` that no run has followed."""
    run = {each.counterpart for each in outcomes}
    return [each.name for each in counterparts().values() if each.claim in names and each.name not in run]


def _says(outcome: Outcome) -> str:
    """Say what was changed, as the counterpart's file does where it is all of the change."""
    known = counterparts().get(outcome.counterpart)
    if known and known.is_all_of(outcome.changes) and outcome.data == outcome.claim.data:
        return known.says
    return f"{outcome.claim.name} with {page.describe_changes(outcome)}"


def _moves(change: PairedTest, common: int) -> str:
    interval = f"{format.signed(change.low)} to {format.signed(change.high)}, n = {common}"
    return f"{format.signed(change.mean)} ({interval}), {'a difference' if _is_shown(change) else 'none shown'}"


def _is_shown(change: PairedTest) -> bool:
    return change.low > 0 or change.high < 0


def _of_unstated(filled: Sequence[tuple[Outcome, PairedTest]]) -> str:
    by_size = sorted(filled, key=lambda each: -abs(each[1].mean))
    moved = ", ".join(f"{format.signed(change.mean)} ({each.counterpart})" for each, change in by_size)
    shown = sum(_is_shown(change) for _, change in filled)
    return (
        f"What a document leaves open, such as initial values, moves the accuracy where it is filled otherwise by "
        f"{moved}: {shown} of {len(filled)} {'is' if shown == 1 else 'are'} shown to be a difference."
    )

"""Say in words which cell is best, what it is tied with, how that was decided, and what the design can show."""

from math import isnan

from digitlab.analysis.aggregate import MIN_NETWORKS, MIN_RANKED, MIN_SEEDS
from digitlab.analysis.cells import ALPHA, Cell
from digitlab.analysis.compare import Comparison
from digitlab.analysis.moderated import MIN_CELLS, coverage
from digitlab.documents.document import BEST, TIED, Picture, Table, picture
from digitlab.documents.format import p_value, share, signed
from digitlab.platform.text import are, count
from digitlab.plots import network_figures
from digitlab.report.tables import accuracy, against_best, all_pairs

TESTS = {
    "moderated t": "t-test with moderated variances",
    "Welch's t": "Welch's t-test",
    "McNemar": "McNemar's exact test of two runs",
}


def conclusion(comparison: Comparison) -> str:
    """Return the conclusion, in a sentence."""
    best, others = comparison.best, len(comparison.compared) - 1
    failed = len(comparison.cells) - len(comparison.compared)
    if best is None:
        return "There is no best cell: each has a run that diverged or is no better than naming one class."
    found = f"at {accuracy(best)} (n = {best.n}){_on_these(comparison)}"
    left = f"{count(failed, 'cell')} with a run that diverged or is at chance {are(failed)} not compared"
    if not others:
        return f"{best.name} is {found}; {left if failed else 'there is nothing to compare it with'}."
    not_compared = f"; {left}" if failed else ""
    if not comparison.is_tested:
        return f"{best.name} ({BEST}) is highest {found}; no difference to it was tested{not_compared}."
    ties = sum(cell.is_tied for cell in comparison.cells)
    if ties:
        which = (
            "the other cell" if others == 1 else f"{'all' if ties == others else f'{ties} of the'} {others} other cells"
        )
        verdict = f"{which} ({TIED}) {are(ties)} statistically indistinguishable from it"
    else:
        verdict = f"{'the other cell is' if others == 1 else f'all {others} others are'} worse"
    single = len(comparison.higher)
    above = f"; {count(single, 'other')} {are(single)} higher, of one run{' each' * (single > 1)}" if single else ""
    return f"{best.name} ({BEST}) is {_best(comparison)} {found}{above}; {verdict}{not_compared}."


def legend(comparison: Comparison) -> list[str]:
    """Explain ★, ≈ and ±, and say what holds for other images."""
    texts = []
    if comparison.best:
        is_any_worse = any(not (cell.is_best or cell.is_tied) for cell in comparison.compared)
        marked = f"{_best(comparison)}, {TIED} statistically indistinguishable from it"
        marked = marked if comparison.is_tested else f"the highest, {TIED} not tested against it"
        marked += "; the others are worse" if is_any_worse else ""
        texts.append(f"{BEST} {marked if comparison.pairs else 'the only cell that is compared'}.")
    counts = {len(cell.accuracies) for cell in comparison.cells}
    if max(counts) > 1:
        texts.append("± is the 95 % t-interval of the mean over seeds, for each cell by itself.")
    if 1 in counts and comparison.test_images:
        texts.append(f"In brackets Wilson's 95 % interval of a single run over {comparison.test_images:,} test images.")
    if comparison.pairs and any(cell.n > 1 for cell in comparison.compared):
        texts += _on_new_images(comparison)
    return [" ".join([*texts, *_equivalence(comparison)])]


def differences(comparison: Comparison) -> list[str | Table]:
    """Return how the best and its ties were found, the differences to the best and of all pairs; nothing for one cell.

    It ends with what the design can show.
    """
    if not comparison.pairs:
        return []
    blocks: list[str | Table] = [*([_rule(comparison)] if comparison.is_tested else []), against_best(comparison)]
    if not isnan(comparison.smallest):
        blocks.append(
            f"What this design can show: if the true spreads are those found here, with {comparison.seeds}, a cell of "
            f"the fewest runs, two or more, that is truly {comparison.smallest:.4f} below the best is marked worse in "
            "8 of 10 cases. Found spreads are estimates: in simulated sweeps it was 65 % to 81 % of cases for 3 seeds "
            "or more, 55 % to 73 % for 2. More seeds show less."
        )
    blocks += [_how(comparison)] if any(pair.test != "none" for pair in comparison.pairs) else []
    return [*blocks, *([all_pairs(comparison)] if len(comparison.pairs) > 1 else [])]


def _rule(comparison: Comparison) -> str:
    counts = [cell.n for cell in comparison.compared]
    over_seeds = max(counts) > 1
    held = f"the truly best {'cell' if over_seeds else 'of these trained networks'} is among the marked ones in "
    held += coverage(counts) if over_seeds else "95 % of cases"
    said = f" This is said{_on_these(comparison)}." if comparison.test_images else ""
    return (
        f"{BEST} {_best(comparison)}, {TIED} statistically indistinguishable from it: p ≥ {ALPHA} in "
        f"{_tests(comparison)}, one-sided and corrected for {count(len(counts) - 1, 'comparison')} with the best, so "
        f"that {held}.{said}"
    )


def _best(comparison: Comparison) -> str:
    return "best of those with several runs" if comparison.higher else "best"


def _on_these(comparison: Comparison) -> str:
    """Name the test images, as far as their number is known."""
    return f" on these {count(comparison.test_images, 'test image')}" if comparison.test_images else ""


def networks(comparison: Comparison) -> list[str | Table | Picture]:
    """Return the comparison of optimizers over networks, or what it needs; nothing where there is one of either."""
    found, (network, optimizer) = comparison.aggregates, comparison.axes
    if not found.rows:
        if len(comparison.models) < 2 or len(comparison.arms) < 2:
            return []
        return [
            f"Comparing {optimizer}s over {network}s needs {MIN_NETWORKS} {network}s that each {optimizer} has "
            f"{MIN_SEEDS} runs of, none of which diverged or is at chance; there are fewer here."
        ]
    best = found.rows[0].arm
    rows = [
        [row.arm, f"{row.accuracy:.4f}", *(("–", "–") if row is found.rows[0] else (_signed(row.difference),
         _shares(row.improvement))), f"{row.rank:.2f}", str(row.runs)]
        for row in found.rows
    ]  # fmt: skip
    headings = [optimizer, "mean accuracy", f"{best} minus it", f"a run of {best} beats one of it", "rank", "runs"]
    left = f" Left out, with too few {network}s or runs: {', '.join(found.left_out)}." if found.left_out else ""
    blocks: list[str | Table | Picture] = [
        Table(headings, rows, f"Mean over {network}s"),
        f"Means over the {len(found.networks)} {network}s {', '.join(found.networks)}, each of which counts the same. "
        f"Differences are paired by {network}, and runs are compared on the same {network}. The 95 % intervals are by "
        f"a bootstrap of the seeds within each {network}; they are not corrected for the number of {optimizer}s, and "
        f"say nothing about other {network}s.{left}",
    ]
    if not isnan(found.critical_difference):
        ranks = {row.arm: row.rank for row in found.rows}
        title = f"Mean rank over {len(found.networks)} {network}s on {comparison.data}; 1 is best"
        figure = network_figures.critical_difference(ranks, found.critical_difference, title)
        blocks.append(picture("ranks.svg", figure, f"Mean ranks of each {optimizer}, with the critical difference"))
        blocks.append(
            f"Friedman's test of equal ranks: p {'' if found.p_ranks < 0.0001 else '= '}{p_value(found.p_ranks)}. Two "
            f"mean ranks that differ by less than {found.critical_difference:.2f} (Nemenyi's critical difference at "
            f"α = {ALPHA}), joined by a bar, are not told apart. Here {network}s are the sample."
        )
    else:
        blocks.append(f"Ranks are tested with {MIN_RANKED} {network}s and 3 {optimizer}s or more.")
    profiles = {
        arm: [list(cell.accuracies.values()) for cell in comparison.cells
              if cell.arm == arm and cell.model in found.networks]
        for arm in (row.arm for row in found.rows)
    }  # fmt: skip
    title = f"Share of runs above an accuracy on {comparison.data}, over {len(found.networks)} {network}s"
    figure = network_figures.performance_profiles(profiles, title)
    return [*blocks, picture("profiles.svg", figure, f"Share of runs above each test accuracy, by {optimizer}")]


def _how(comparison: Comparison) -> str:
    used = {pair.test for pair in comparison.pairs}
    if used & {"McNemar", "none"}:
        return (
            "Differences in test accuracy of single runs, by McNemar's exact test on their predictions for the same "
            "images. Against the best, p is one-sided and corrected for the number of these comparisons. Among all "
            "pairs, p is two-sided and corrected by Holm for all of them."
        )
    variances = (
        "The variance of each cell is its own, steadied by that of all cells, and never taken below its own: a few "
        "seeds may agree by chance."
        if "moderated t" in used
        else f"With fewer than {MIN_CELLS} cells each has its own variance only."
    )
    return (
        f"Differences in test accuracy; seeds need not be the same. {variances} Each interval is uncorrected. Against "
        "the best, p is one-sided and corrected for the number of these comparisons. On new images: the same, with the "
        "chance of which test images were drawn, from the predictions of both; tied cells stay tied. One run beats one "
        "run: the probability that another run of the first has more accuracy than another run of the second. Among "
        "all pairs, p is two-sided and corrected by Holm for all of them; use it for a pair of your choice. Rank and "
        "probability of being best follow from the same intervals, if all accuracies were equally likely before."
    )


def _on_new_images(comparison: Comparison) -> list[str]:
    worse = [cell for cell in comparison.compared if not cell.is_best and not cell.is_tied]
    tied = [cell for cell in worse if cell.p_new >= ALPHA]
    unknown = [cell for cell in worse if isnan(cell.p_new)]
    texts = []
    if tied:
        texts.append(
            f"For new images of the same kind, {count(len(tied), 'more cell')} {are(len(tied))} indistinguishable "
            f"from the best: {_list(tied)}."
        )
    elif worse and not unknown:
        texts.append("For new images of the same kind, the same cells are indistinguishable from the best.")
    if unknown:
        texts.append(
            f"For new images of the same kind nothing is known of {_list(unknown)}: the predictions are not stored."
        )
    return texts


def _equivalence(comparison: Comparison) -> list[str]:
    if not comparison.margin:
        return []
    same = [cell for cell in comparison.compared if cell.is_equivalent]
    found = f"{_list(same)} {are(len(same))}" if same else "no cell is"
    return [
        f"Equivalent to the best within {comparison.margin:g}: {found} shown to differ from it by less, by two "
        f"one-sided t-tests at α = {ALPHA} corrected for the comparisons with the best. The others may differ by "
        "more or by less."
    ]


def _tests(comparison: Comparison) -> str:
    used = {pair.test for pair in comparison.pairs}
    return " or ".join(f"a {words}" for test, words in TESTS.items() if test in used) or "a test"


def _signed(interval: tuple[float, float, float]) -> str:
    return f"{signed(interval[0])} ({signed(interval[1])} to {signed(interval[2])})"


def _shares(interval: tuple[float, float, float]) -> str:
    return f"{share(interval[0])} ({share(interval[1])} to {share(interval[2])})"


def _list(cells: list[Cell]) -> str:
    names = [cell.name for cell in cells]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} others" if len(names) > 5 else "")

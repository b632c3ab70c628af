"""Report on published claims: verdicts, changed recipes, facts, curves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from digitlab.analysis.fairness import Confounder, find_confounders
from digitlab.analysis.records import Predictions
from digitlab.analysis.statistics import PairedTest, paired_t
from digitlab.claims import words
from digitlab.claims.schema import Claim, agree
from digitlab.claims.verdict import Outcome
from digitlab.documents import document, format, origin
from digitlab.documents.document import Picture, Section, Table
from digitlab.plots import report_figures

FLAGS = {
    "T": "validated on the test set",
    "U": "recipe partly unstated",
    "L": "contradicted by its own log, text or code",
}
FLAGGED = (
    "Flags do not change a verdict. " + "; ".join(f"{letter}: {meaning}" for letter, meaning in FLAGS.items()) + "."
)


def sections(
    outcomes: Sequence[Outcome], confounders: Sequence[str], notes: Sequence[str], predictions: Predictions | None
) -> list[Section]:
    """Return the sections of the claims report.

    `confounders` are settings that differ in the runs of one claim, `notes` name what is missing. `predictions` are
    those of any run; only their labels are used.
    """
    warning = "Runs of one claim differ in more than their seed and the intended change:"
    warned = [warning, list(confounders)] if confounders else []
    claimed = [outcome for outcome in outcomes if outcome.is_own]
    found = [
        Section("Verdicts", [*warned, *([list(notes)] if notes else []), *_verdicts(claimed)]),
        Section("What a reader should believe", [words.paragraph(outcome) for outcome in claimed]),
        Section("What changes of a recipe do", recipe_changes(outcomes)),
        Section("Facts in the documents", facts(claimed, predictions)),
        Section("Curves", _curves(claimed)),
        Section("Provenance", origin.origin([run for outcome in outcomes for run in outcome.runs])),
    ]
    return [section for section in found if section.blocks]


def confounders(outcomes: Sequence[Outcome]) -> list[str]:
    """Describe each setting that differs in the runs of one claim though no recipe changes it, with those claims."""
    claims_of: dict[str, list[str]] = defaultdict(list)
    runs_of: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, data in dict.fromkeys((outcome.claim.name, outcome.data) for outcome in outcomes):
        alike = [each for each in outcomes if (each.claim.name, each.data) == (name, data)]
        runs = [run for outcome in alike for run in outcome.runs]
        changed = {key for outcome in alike for key in outcome.changes}
        axes = {key for run in runs for key in run.settings if {key, key.partition(".")[0]} & changed}
        # Another split of the same images has another digest.
        axes |= {"data digest"} if any(key.startswith("data.") for key in changed) else set()
        axes |= {"data digest", "data.fold"} if any("data.folds" in run.settings for run in runs) else set()
        for setting, by_value in find_confounders(runs, axes):
            claims_of[setting].append(name)
            for value, of in by_value.items():
                runs_of[setting][value] += of
    return [
        f"{', '.join(names) if len(names) <= 3 else f'{len(names)} claims'}: {Confounder(setting, runs_of[setting])}"
        for setting, names in claims_of.items()
    ]


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Return the table of claims with their verdicts and that of changed recipes, each if it has rows."""
    claimed, others = ([each for each in outcomes if each.is_own is own] for own in (True, False))
    return [*([table(claimed)] if claimed else []), *([changes(outcomes)] if others else [])]


def table(claimed: Sequence[Outcome]) -> Table:
    """Return a row for each claim."""
    headings = ["claim", "verdict", "flags", "claimed", "ours", "n", "reach it", "percentile", "difference",
                "loss claimed", "loss ours", "parameters by the document", "parameters ours",
                "s/epoch then", "s/epoch now"]  # fmt: skip
    rows = []
    for outcome in claimed:
        claim, cell = outcome.claim, outcome.cell
        rows.append([
            claim.name, outcome.verdict.word, flags(claim), claim.claimed, words.accuracy(outcome),
            str(cell.n), *("–" if value is None else f"{value:.0f}" for value in (outcome.reached, outcome.percentile)),
            "–" if outcome.excess is None else format.signed(outcome.excess), _plain(claim.loss), _loss(outcome),
            f"{claim.parameters:,}" if claim.parameters else "–", f"{cell.parameters:,}" if cell.parameters else "–",
            _plain(claim.seconds), format.number(cell.epoch_s, ".1f"),
        ])  # fmt: skip
    listed = ", ".join(f"{letter} {meaning}" for letter, meaning in FLAGS.items())
    title = f"Published claims, run again (flags: {listed})"
    return Table(headings, rows, title, text_columns=3, is_sortable=len(rows) > 1)


def changes(outcomes: Sequence[Outcome]) -> Table:
    """Return a row for each changed recipe: what differs from the claim's own, and by how much the accuracy changes."""
    measured = {outcome.claim.measured for outcome in outcomes if not outcome.is_own}
    accuracy = measured.pop() if len(measured) == 1 else "accuracy"
    headings = ["claim", "counterpart", "what differs", accuracy, "n", "test loss",
                "difference to the claim's recipe", "95 % interval", "seeds in common"]  # fmt: skip
    rows = []
    for outcome in (each for each in outcomes if not each.is_own):
        common, change = compare_with_own(outcome, outcomes)
        rows.append([
            outcome.claim.name, outcome.counterpart or "–", describe_changes(outcome), words.accuracy(outcome),
            str(len(outcome.runs)), _loss(outcome), format.signed(change.mean) if change else "–",
            f"{format.signed(change.low)} to {format.signed(change.high)}" if change else "–", str(common),
        ])  # fmt: skip
    return Table(headings, rows, "Changed recipes", text_columns=3)


def csv(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[object]]]:
    """Return headings and a row of plain numbers for each claim and changed recipe."""
    headings = ["claim", "counterpart", "changes", "data", "verdict", "reason", "predicted_low", "predicted_high",
                "resolution", "p_holm", "runs_needed", "claimed_acc", "n", "reached", "percentile", "mean_acc",
                "accuracies", "claimed_loss", "mean_loss", "diverged", "collapsed", "epoch_s",
                "less_claim", "low", "high", "common_seeds", "validated_on_test", "unstated", "contradicted",
                "otherwise", "caveat"]  # fmt: skip
    rows = []
    for outcome in outcomes:
        cell, claim, own, verdict = outcome.cell, outcome.claim, outcome.is_own, outcome.verdict
        common, change = (None, None) if own else compare_with_own(outcome, outcomes)
        rows.append([
            claim.name, outcome.counterpart, _listed(outcome.changes), outcome.data,
            verdict.word, verdict.reason, round(verdict.middle - verdict.half, 6),
            round(verdict.middle + verdict.half, 6), round(verdict.resolution, 6), verdict.p_value, verdict.needed,
            claim.accuracy, cell.n, outcome.reached, outcome.percentile, round(cell.accuracy, 6),
            " ".join(f"{run.accuracy:.4f}" for run in outcome.runs), claim.loss, round(cell.loss, 6), cell.diverged,
            cell.failed - cell.diverged, cell.epoch_s,
            *((round(value, 6) for value in change[:3]) if change else (None, None, None)), common,
            *(_remarks(claim) if own else (None,) * 5),
        ])  # fmt: skip
    return headings, rows


def _remarks(claim: Claim) -> tuple[bool, str, str, str, str]:
    return claim.is_validated_on_test, claim.unstated, claim.contradicted, claim.otherwise, claim.caveat


def _verdicts(claimed: Sequence[Outcome]) -> list[Table | str | list[str]]:
    return [table(claimed), *legend(claimed), words.RULE] if claimed else []


def flags(claim: Claim) -> str:
    """Return the letters of the flags that a claim has."""
    return "".join(letter for letter, reason in zip(FLAGS, _flag_reasons(claim), strict=True) if reason)


def _flag_reasons(claim: Claim) -> tuple[str, str, str]:
    """Return the reason for each flag, "" where it is not raised."""
    on_test = "its validation set was the test set" if claim.is_validated_on_test else ""
    return on_test, claim.unstated, claim.contradicted


def legend(claimed: Sequence[Outcome]) -> list[str | list[str]]:
    """Explain the flags, and why each claim has the ones it has."""
    lines = []
    for claim in (outcome.claim for outcome in claimed):
        raised = [f"{letter}: {reason}" for letter, reason in zip(FLAGS, _flag_reasons(claim), strict=True) if reason]
        if raised:
            lines.append(f"{claim.name}: {'; '.join(raised)}.")
    return [FLAGGED, lines] if lines else []


def _loss(outcome: Outcome) -> str:
    cell = outcome.cell
    return f"{cell.diverged} of {cell.n} diverged" if cell.diverged else format.mean_of(outcome.losses)


def _listed(changed: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in changed.items())


def describe_changes(outcome: Outcome) -> str:
    """Write what differs from the claim's own recipe."""
    where = "" if outcome.data == outcome.claim.data else f" (on {outcome.data})"
    return f"{_listed(outcome.changes)}{where}"


def compare_with_own(changed: Outcome, outcomes: Sequence[Outcome]) -> tuple[int, PairedTest | None]:
    """Return how many seeds a changed recipe shares with the claim's own and, from two on, their paired difference."""
    accuracies = changed.cell.accuracies
    for own in outcomes:
        if own.is_own and (own.claim.name, own.data) == (changed.claim.name, changed.data):
            theirs = own.cell.accuracies
            common = sorted(accuracies.keys() & theirs.keys())
            if len(common) < 2:
                return len(common), None
            values, others = ([each[seed] for seed in common] for each in (accuracies, theirs))
            return len(common), paired_t(values, others, 1 / own.runs[0].test_images)
    return 0, None


def recipe_changes(outcomes: Sequence[Outcome]) -> list[Table | str]:
    """Show what becomes of claims' accuracies when something of their recipes is changed."""
    if all(outcome.is_own for outcome in outcomes):
        return []
    note = (
        "There is no verdict here, because no document claims anything about these recipes. What differs is read from "
        "the two configurations. The difference in accuracy to the claim's own recipe is paired by seed, with its "
        "95 % t-interval; – where fewer than two seeds are common. An interval that holds 0 shows no difference."
    )
    return [changes(outcomes), note]


def facts(outcomes: Sequence[Outcome], predictions: Predictions | None) -> list[list[str]]:
    """Check the facts stated in the documents against our own counts."""
    lines = []
    for claim, counted in ((outcome.claim, outcome.cell.parameters) for outcome in outcomes):
        if claim.parameters and counted:
            same = agree(claim.parameters, counted)
            lines.append(f"{claim.name}: {claim.parameters:,} parameters by the document, {counted:,} counted: {same}.")
        if claim.layers:
            lines.append(f"{claim.name}: {claim.layers}")
    lines += [
        f"{outcome.claim.document}: {fact}"
        for outcome in outcomes
        for fact in (*outcome.claim.counts, *outcome.claim.statements)
    ]
    for outcome in outcomes:
        gains = outcome.best_minus_last
        if outcome.claim.is_validated_on_test and not outcome.claim.diverges:
            lines.append(
                f"{outcome.claim.name}: the best epoch on the test set has {format.mean_of(gains)} more accuracy than "
                f"the last one (n = {len(gains)}): the gain from test-set leakage."
            )
    if predictions is not None:
        labels = predictions.labels
        shares = ", ".join(
            f"{predictions.classes[k]}: {(labels == k).mean():.4f}" for k in range(len(predictions.classes))
        )
        lines.append(f"Share of each class in the {len(labels):,} test images: {shares}.")
    return [lines] if lines else []


def _curves(outcomes: Sequence[Outcome]) -> list[Picture]:
    named = {}
    for outcome in (each for each in outcomes if each.cell.curves.size):
        where = "" if outcome.data == outcome.claim.data else f" on {outcome.data}"
        named[f"{outcome.claim.name}{where}, n = {outcome.cell.n}"] = outcome
    if not named:
        return []
    data = " and ".join(dict.fromkeys(outcome.data for outcome in outcomes))
    title = f"Validation accuracy on {data}: ours, mean and range over n seeds; points are the printed values"
    return [curves_beside_printed("claims.svg", named, title)]


def curves_beside_printed(file: str, outcomes: Mapping[str, Outcome], title: str) -> Picture:
    """Draw a panel of each outcome by its name: our accuracies by epoch, and what its document prints of them."""
    panels = {name: {"ours": outcome.cell.curves} for name, outcome in outcomes.items()}
    for name, outcome in outcomes.items():
        if "val/acc" in outcome.claim.printed:
            panels[name]["printed"] = np.array([outcome.claim.printed["val/acc"]], dtype=float)
    figure = report_figures.learning_curves(panels, title, points=("printed",))
    return document.picture(file, figure, "Validation accuracy by epoch, ours and printed")


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"

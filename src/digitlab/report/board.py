"""The board of a class or a team: what everybody trained, by data set, with its ties, and whose runs reach a claim."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from digitlab.analysis.cells import ALPHA
from digitlab.analysis.compare import Comparison, compare, same_test_set
from digitlab.analysis.fairness import caveats
from digitlab.analysis.groups import Difference, difference, single_difference
from digitlab.analysis.records import Predict, Predictions, Result, mark_collapsed
from digitlab.analysis.statistics import holm
from digitlab.claims import words
from digitlab.claims.followed import Followed
from digitlab.claims.recipes import recipe_of
from digitlab.config.compose import configuration
from digitlab.documents.document import Document, Linked, Section, Table
from digitlab.documents.format import mean_of
from digitlab.platform import console
from digitlab.platform.text import count
from digitlab.report import tables
from digitlab.report.decision import conclusion, legend
from digitlab.report.judged import followed, outcomes
from digitlab.report.runs import read_predictions, read_results
from digitlab.tracking import queries
from digitlab.tracking.store import Store

AGAIN = "digitlab-board"  # the experiment of the runs that the board makes of entries, with seeds of its own
AXES = "people", "entry"
CODE = "code patch", "code of your own"  # recorded of a run, and as much a choice as its settings
MADE_AGAIN = (
    "An entry can be made again here, with seeds that nobody knew before. Lower or higher is said where the difference "
    "to what was entered is shown, p < 0.05 after Holm's correction for all entries made again. Failed: diverged, or "
    "no better than naming one class."
)
SHOWN = 3  # settings that tell entries of one network and optimizer apart
RULE = (
    "An entry is what was trained with the same settings, over all its seeds, and the people are those who asked for "
    "it: a run is made once, whoever asks. Several entries of a person are several tries: the more there are, the "
    "higher the best of them lies by luck."
)


@dataclass(frozen=True)
class Entry:
    """What was trained with the same settings: the runs of its seeds, and those that the board made."""

    settings: Mapping[str, str]
    people: set[str] = field(default_factory=set)
    runs: list[Result] = field(default_factory=list)
    again: list[Result] = field(default_factory=list)

    @property
    def who(self) -> str:
        return ", ".join(sorted(self.people))

    @property
    def id(self) -> str:
        return self.runs[0].run_id


@dataclass(frozen=True)
class Board:
    """All entries, by data set, and the page that shows them."""

    entries: list[Entry]
    document: Document


def show_board(store: Store) -> int:
    """Print the board; return the exit code."""
    document = read_board(store, partial(read_predictions, store)).document
    for block in (block for section in document.sections for block in section.blocks):
        if isinstance(block, Table):
            console.show_table(block.headings, block.rows, block.text_columns, block.title)
        elif isinstance(block, str):
            console.say(block)
        elif isinstance(block, list):
            console.say("\n".join(block))
    console.say(document.lead)
    return 0


def read_board(store: Store, predict: Any, states: Mapping[str, str] | None = None) -> Board:
    """Read the board from a store.

    `predict` gives the stored predictions of a run by its id. `states` says, by the id of an entry, how it stands with
    the runs that the board is to make of it; without it there is nothing to ask for.
    """
    runs = list(queries.search(store, "tags.done = 'true'"))
    people, claimed = _people(store, runs), {run.info.run_id for run in runs if "claim" in run.data.params}
    results = [each for each in read_results(runs) if each.is_tested]
    entries = _entries([each for each in results if each.run_id not in claimed], people, _made_again(store))
    sections, shown = [], []

    def predict_of(result: Result) -> Predictions | None:
        return predict(result.run_id)

    of_remakes = {**_remade(entries, predict_of), **(states or {})}
    for data, those in _by_test_set(entries, predict_of):
        comparison, names = _compare(those, predict_of)
        shown.append(_table(data, comparison, names, of_remakes, states is not None))
        limits = [notes] if (notes := caveats(comparison)) else []
        sections.append(Section(data, [conclusion(comparison), shown[-1], *legend(comparison), *limits]))
    with configuration():
        followers = [run for run in runs if run.info.run_id in claimed]
        recipes = {run.data.tags["fingerprint"]: recipe_of(run.data.params) for run in followers}
        known = {fingerprint: recipe for fingerprint, recipe in recipes.items() if recipe}
        of_claims = list(followed(store, known, [each for each in results if each.run_id in claimed], predict))
        if of_claims:
            shown.append(_claims(of_claims, people))
            sections.append(Section("Claims", [shown[-1], "Each person's runs are judged by themselves."]))
    rule = [RULE, *([MADE_AGAIN] if states is not None else [])]
    lead = _lead(len(entries), len(of_claims), len({person for each in results for person in people[each.run_id]}))
    return Board(entries, Document("digitlab board", lead, [*sections, Section("Rule", rule)], shown, {}))


def _lead(entries: int, runs: int, people: int) -> str:
    if not people:
        return "Nobody has entered anything yet: a run that is done is an entry."
    entered = f"{entries:,} {'entry' if entries == 1 else 'entries'}"
    of_claims = f" and {count(runs, 'run')} of claims" if runs else ""
    return f"{entered}{of_claims}, by {people} {'person' if people == 1 else 'people'}."


def _people(store: Store, runs: Iterable[Any]) -> dict[str, set[str]]:
    """Return who asked for each run, by its id: who made it, and whose sweeps found it done."""
    people = {run.info.run_id: {_user(run)} for run in runs}
    for parent, cell in queries.swept(store):
        people.get(cell["run_id"], set()).add(_user(parent))
    return people


def _user(run: Any) -> str:
    return str(run.data.tags.get("mlflow.user", "unknown"))


def _entries(results: Iterable[Result], people: Mapping[str, set[str]], again: Sequence[Result]) -> list[Entry]:
    """Return the entries, each with one run a seed, the first that was made."""
    found: dict[tuple, Entry] = {}
    for result in sorted(results, key=lambda each: each.began):
        settings = _settings(result)
        entry = found.setdefault(_key(settings), Entry(settings))
        entry.people.update(people[result.run_id])
        if result.seed not in {each.seed for each in entry.runs}:
            entry.runs.append(result)
    for result in again:
        if entry := found.get(_key(_settings(result))):
            entry.again.append(result)
    return list(found.values())


def _key(settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(settings.items()))


def _settings(result: Result) -> dict[str, str]:
    """Return what was chosen for a run, but its seed; not the machine, which is recorded of it."""
    chosen = {key: value for key, value in result.settings.items() if " " not in key or key in CODE}
    chosen |= {"model": result.model, "optim": result.optim, "data": result.data, "optim.lr": result.lr}
    return {key: value for key, value in chosen.items() if key != "data.seed"}


def _made_again(store: Store) -> list[Result]:
    own = Store(store.uri, AGAIN)
    found = read_results(queries.search(own, "tags.done = 'true'")) if own.peek() else ()
    return [each for each in found if each.is_tested]


def _by_test_set(entries: Sequence[Entry], predict: Predict) -> list[tuple[str, list[Entry]]]:
    """Return the entries by the images that they were tested on, each set under a name of its own."""
    found: dict[str, list[list[Entry]]] = defaultdict(list)
    for entry in entries:
        sets = found[entry.runs[0].data]
        same = next((those for those in sets if _are_alike(those[0], entry, predict)), None)
        if same is None:
            sets.append([entry])
        else:
            same.append(entry)
    return [
        (data if len(sets) == 1 else f"{data}, test set {n}", those)
        for data, sets in sorted(found.items())
        for n, those in enumerate(sets, 1)
    ]


def _are_alike(one: Entry, other: Entry, predict: Predict) -> bool:
    pair = [one.runs[0], other.runs[0]]
    return len({each.settings.get("data digest") for each in pair}) == 1 or same_test_set(pair, predict)


def _compare(entries: Sequence[Entry], predict: Predict) -> tuple[Comparison, dict[tuple[str, str], Entry]]:
    """Compare entries of one test set; return them by what they are called there too."""
    named = {(entry.who, name): entry for entry, name in zip(entries, _names(entries), strict=True)}
    results = [
        replace(run, model=who, optim=name, lr="", settings={"data digest": ""})
        for (who, name), entry in named.items()
        for run in entry.runs
    ]
    return compare(results, predict, axes=AXES), named


def _names(entries: Sequence[Entry]) -> list[str]:
    """Name each entry by network and optimizer, and by the settings in which those of the same name differ."""
    alike: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        alike[entry.settings["model"], entry.settings["optim"]].append(entry)
    names = []
    for entry in entries:
        model, optim = entry.settings["model"], entry.settings["optim"]
        others = [each.settings for each in alike[model, optim]]
        keys = sorted({key for each in others for key in each if len({other.get(key) for other in others}) > 1})
        values = [f"{key}={entry.settings.get(key, 'none')}" for key in keys]
        names.append(" ".join([f"{model}/{optim}", *values[:SHOWN], *(["..."] if len(values) > SHOWN else [])]))
    return [
        name if names.count(name) == 1 else f"{name} ({entry.id[:8]})"
        for entry, name in zip(entries, names, strict=True)
    ]


def _table(
    title: str,
    comparison: Comparison,
    named: Mapping[tuple[str, str], Entry],
    of_remakes: Mapping[str, str],
    may_ask: bool,
) -> Table:
    headings = ["mark", *AXES, "test accuracy", "n", "rank", "best with probability", "parameters", "made again here"]
    rows = []
    for cell in comparison.cells:
        entry = named[cell.model, cell.optim]
        ask = Linked(("make it again", f"again/{entry.id}")) if may_ask else "–"
        row = [tables.symbol(cell), cell.model, cell.optim, tables.accuracy(cell), str(cell.n)]
        more = *tables.rank(comparison, cell), tables.parameters(cell)
        rows.append([*row, *more, of_remakes.get(entry.id, ask)])
    return Table(headings, rows, title, text_columns=3).compact()


def _remade(entries: Sequence[Entry], predict: Predict) -> dict[str, str]:
    """Say what came of the runs that the board made of entries, by their ids; failed ones are in no mean."""
    said: dict[str, str] = {}
    found: dict[str, Difference] = {}
    for entry in (each for each in entries if each.again):
        marked = mark_collapsed([*entry.runs, *entry.again], predict)
        sides = marked[: len(entry.runs)], marked[len(entry.runs) :]
        then, here = ([run.accuracy for run in side if not run.has_failed] for side in sides)
        step = 1 / entry.runs[0].test_images
        failed = len(entry.again) - len(here)
        parts = [f"{failed} of {len(entry.again)} failed"] if failed else []
        parts += [f"{mean_of(here, step)} (n = {len(here)})"] if here else []
        said[entry.id] = "; ".join(parts)
        if then and len(here) > 1:
            found[entry.id] = _change(then, here, step)
    for (entry_id, each), p in zip(found.items(), holm([each.p_value for each in found.values()]), strict=True):
        if p < ALPHA:
            said[entry_id] += f", {'lower' if each.mean < 0 else 'higher'}"
    return said


def _change(then: Sequence[float], here: Sequence[float], step: float) -> Difference:
    """Return how much more accurate the runs made here are than those of then, one or more."""
    if len(then) > 1:
        return difference(then, here, step)
    found = single_difference(here, then[0], step)
    return replace(found, mean=-found.mean)


def _claims(of_claims: Sequence[Followed], people: Mapping[str, set[str]]) -> Table:
    rows = []
    for person in sorted({person for each in of_claims for person in people[each.result.run_id]}):
        for outcome in outcomes([each for each in of_claims if person in people[each.result.run_id]]):
            name = " ".join(filter(None, (outcome.claim.name, outcome.counterpart)))
            numbers = [outcome.claim.claimed, words.accuracy(outcome), str(outcome.cell.n)]
            rows.append([name, person, outcome.verdict.word, *numbers])
    return Table(["claim", "person", "verdict", "claimed", "ours", "n"], sorted(rows), "Claims", text_columns=3)

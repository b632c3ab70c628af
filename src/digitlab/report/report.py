"""Report on the runs of a sweep: a comparison, or the verdicts on claims, printed and written to files."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from digitlab import REPOSITORY
from digitlab.analysis.compare import Comparison, compare
from digitlab.analysis.fairness import caveats, confounders
from digitlab.analysis.records import Predictions, Result
from digitlab.claims import page as claims
from digitlab.claims import words
from digitlab.claims.recipes import recipes_of, unknown_of
from digitlab.claims.schema import Recipe
from digitlab.config.check import check_report
from digitlab.config.errors import user_errors
from digitlab.documents.document import Document, Picture, markdown_table, to_csv, to_html, to_latex, to_markdown
from digitlab.platform import console
from digitlab.platform.text import count
from digitlab.report import decision, foreign, looks, page, tables
from digitlab.report.judged import judged
from digitlab.report.runs import complete, describe_test_reads, find, read_predictions
from digitlab.tracking import notes as notes_of
from digitlab.tracking import queries
from digitlab.tracking.store import Store

Written = tuple[Document, Sequence[str], Sequence[str]]  # with the confounders and the notes that stand in it


def report(cfg: DictConfig) -> None:
    """Report on the runs that `cfg` names: print it, write it to files, and store it with the sweep's run.

    Raises UserError, before anything is written, where there is nothing to report.
    """
    console.prepare()
    check_report(cfg)
    with user_errors("tracking"):
        store = Store(cfg.tracking.uri, cfg.tracking.experiment)
        store.open(create=False)
    with user_errors("report"):
        parent, count_as_look, written = _of_others(store, cfg) if cfg.report.arm else _of_ours(store, cfg)
    document, differing, notes = written
    name = parent.data.tags["sweep"] if parent else "runs"
    chosen = (cfg.report.filter, cfg.report.arm, cfg.report.seed, cfg.report.metric)
    file_name = _file_name(name, " ".join(filter(None, chosen)))
    folder = Path(cfg.report.dir).expanduser() if cfg.report.dir else REPOSITORY / "reports" / file_name
    with user_errors(f"report.dir={folder}"):
        files = write(folder, document)
    show(document, differing, notes)
    console.say(f"written to {folder}: report.html, .md, .csv, .tex, figures/")
    if parent:
        place = f"report{file_name.removeprefix(name)}"
        for file in files:
            store.client.log_artifact(parent.info.run_id, folder / file, f"{place}/{file.parent}".rstrip("/."))
        if count_as_look:
            looks.record(store, parent, count_as_look)
        if not cfg.report.filter:
            path = f"{store.run_path(parent.info.run_id)}/artifacts/{place}/report.html"
            table = markdown_table(document.tables[0])
            answer = f"**{document.lead}** [The whole report]({path})\n\n{table}"
            cells = queries.cells_of(store, parent)
            notes_of.write(store, parent.info.run_id, notes_of.of_sweep(store, name, cells, answer))
        console.say(f"and to MLflow: {place}/report.html of run {name} ({store.directions(parent.info.run_id)})")


def _file_name(name: str, chosen: str) -> str:
    """Return a name for the files of a report, another one for each way of choosing runs."""
    if not chosen:
        return name
    readable = re.sub(r"[^\w.]+", "-", chosen).strip("-.")[:60]
    return f"{name}-{readable}-{hashlib.sha256(chosen.encode()).hexdigest()[:4]}"


def show(document: Document, differing: Sequence[str], notes: Sequence[str]) -> None:
    """Print the settings that differ between runs, the notes, the tables and the conclusion."""
    for line in differing:
        console.warn(f"not the same in all runs: {line}")
    for line in notes:
        console.say(f"note: {line}")
    for table in document.tables:
        console.show_table(table.headings, table.rows, table.text_columns, table.title)
    console.say(document.lead)


def write(folder: Path, document: Document) -> list[Path]:
    """Write the document in every format, and its pictures; return the files' paths inside `folder`."""
    sections = document.sections
    pictures = [block for section in sections for block in section.blocks if isinstance(block, Picture)]
    texts = {
        "report.html": to_html(document.title, document.lead, sections),
        "report.md": to_markdown(document.title, document.lead, sections),
        "report.tex": "\n".join(map(to_latex, document.tables)),
    }
    texts |= {file: to_csv(*numbers) for file, numbers in document.numbers.items()}
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {f"figures/{picture.file}": picture.content for picture in pictures}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [Path(name) for name in contents]


def _of_others(store: Store, cfg: DictConfig) -> tuple[None, int, Written]:
    """Return no sweep, no look, and the report of runs that digitlab did not make: of them it knows no predictions."""
    keys = foreign.parse_keys(cfg.report.arm, cfg.report.seed, cfg.report.metric)
    results, notes = foreign.find(store, keys, cfg.report.filter)
    comparison = compare(results, lambda result: None, cfg.report.margin, keys.axes)
    return None, 0, _describe(store, store.experiment, comparison, notes, lambda run_id: None)


def _of_ours(store: Store, cfg: DictConfig) -> tuple[Any, int, Written]:
    """Return the run of the sweep, if one is meant, of how many runs this is a look at a sweep, and the report."""
    parent, cells, results, notes = find(store, cfg.report.sweep, cfg.report.filter)
    notes = [*notes, *_unknown(cells), *describe_test_reads(store, results)]
    name, recipes = parent.data.tags["sweep"] if parent else "runs", recipes_of(cells)
    if recipes:
        if cfg.report.counterparts not in (None, name):
            changed, more, lacking = _counterparts(store, cfg.report.counterparts, cfg.report.filter)
            results, recipes, notes = [*results, *changed], recipes | more, [*notes, *lacking]
        notes += looks.of_claims(store, parent) if parent else []
        return parent, 0, _judge(store, name, recipes, results, notes)
    is_look = bool(parent and not cfg.report.filter)
    notes += looks.notes(store, parent, len(results)) if is_look else []
    predict = cache(partial(read_predictions, store))
    comparison = compare(complete(store, results), lambda result: predict(result.run_id), cfg.report.margin)
    return parent, len(results) if is_look else 0, _describe(store, name, comparison, notes, predict)


def _describe(
    store: Store, name: str, comparison: Comparison, notes: Sequence[str], predict: Callable[[str], Predictions | None]
) -> Written:
    """Return the report of a comparison, its confounders, and its caveats."""
    differing, notes = confounders(comparison), [*notes, *caveats(comparison)]
    best = comparison.best.runs if comparison.best else ()
    predictions = [found for run in best if (found := predict(run.run_id))]
    shown = [tables.matrix(comparison), tables.cells(comparison), *tables.metrics(comparison)]
    (models, arms), (network, optimizer) = (comparison.models, comparison.arms), comparison.axes
    size = count(len(models), network) + (f" × {count(len(arms), optimizer)}" if optimizer else "")
    document = Document(
        f"{name}: {size} on {comparison.data}",
        decision.conclusion(comparison),
        page.sections(comparison, differing, notes, predictions, store.run_address),
        [*shown, tables.against_best(comparison)] if comparison.pairs else shown,
        {"report.csv": tables.csv_of_cells(comparison), "pairs.csv": tables.csv_of_pairs(comparison)},
    )
    return document, differing, notes


def _judge(
    store: Store, name: str, recipes: Mapping[str, Recipe], results: Sequence[Result], missing: Sequence[str]
) -> Written:
    """Return the report of the claims whose `recipes`, by fingerprint, were run, its confounders, and its notes."""
    predict = cache(partial(read_predictions, store))
    outcomes = judged(store, recipes, results, predict)
    if not outcomes:
        raise ValueError("no run is done, so there is nothing to report")
    differing = claims.confounders(outcomes)
    document = Document(
        f"{name}: published claims, run again",
        words.conclusion(outcomes),
        claims.sections(outcomes, differing, missing, predict(outcomes[0].runs[0].run_id)),
        claims.tables(outcomes),
        {"report.csv": claims.csv(outcomes)},
    )
    return document, differing, list(missing)


def _counterparts(
    store: Store, sweep: str, filter_string: str | None
) -> tuple[list[Result], dict[str, Recipe], list[str]]:
    """Return the finished runs of the counterparts sweep, their recipes by fingerprint, and what is missing."""
    if sweep not in queries.sweeps(store):
        return [], {}, [f"The sweep {sweep}, which changes recipes of claims, has not been run."]
    _, cells, results, missing = find(store, sweep, filter_string)
    return results, recipes_of(cells), [f"{sweep}: {line}" for line in (*missing, *_unknown(cells))]


def _unknown(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say why claims of a sweep are not judged that cannot be composed here."""
    told = "a report is given the folder of a sweep's own files as the sweep was, by --config-dir=FOLDER"
    return [f"Not judged: {reason}; {told}." for reason in unknown_of(cells)]

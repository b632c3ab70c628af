"""Find the runs of a sweep, compare them, and write down what follows."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from digitlab import REPOSITORY, claims, console, pages
from digitlab.caveats import CHANGED, limits, unfair
from digitlab.comparison import Predictions, Result, compare
from digitlab.config import IRRELEVANT, UserError, build, user_errors
from digitlab.document import Document, Picture, to_csv, to_html, to_latex, to_markdown
from digitlab.tracking import Store, is_done
from digitlab.verdicts import Claim, Outcome, Statement

# What may differ between runs that are fair to compare: names, and what the digest of the data stands for.
NO_SETTINGS = ("model", "optim", "data", "scheduler", "trainer", "seed", "parameters")
NO_SETTING_NODES = (*IRRELEVANT, "data.root", "data.fallback", "data.source")


def report(cfg: DictConfig) -> None:
    """Print what the runs that `cfg` names say together, and write it to files and to the sweep's run.

    Raises UserError where there is nothing to say, before anything is written.
    """
    console.prepare()
    for key in cfg:
        if key not in ("report", "tracking"):
            raise UserError(f"{key}: unknown key; allowed: report, tracking")
    with user_errors("tracking"):
        store = Store(cfg.tracking.uri, cfg.tracking.experiment)
        store.open(create=False)
    with user_errors("report"):
        parent, cells, results, missing = _find(store, cfg.report.sweep, cfg.report.filter)
        name, recipes = parent.data.tags["sweep"] if parent else "runs", _recipes(cells)
        if recipes and cfg.report.counterparts in store.sweeps():
            _, cells, changed, _ = _find(store, cfg.report.counterparts, cfg.report.filter)
            results, recipes = [*results, *changed], recipes | _recipes(cells)
        if recipes:
            document, differs, notes = _judge(store, name, recipes, results, missing)
        else:
            document, differs, notes = _compare(store, name, results, missing)
    folder = Path(cfg.report.dir).expanduser() if cfg.report.dir else REPOSITORY / "reports" / name
    with user_errors(f"report.dir={folder}"):
        files = write(folder, document)
    show(document, differs, notes)
    console.say(f"written to {folder}: report.html, .md, .csv, .tex, figures/")
    if parent:
        for file in files:
            store.client.log_artifact(parent.info.run_id, folder / file, f"report/{file.parent}".rstrip("/."))
        console.say(f"and to MLflow: artifact report/report.html of run {name} ({store.way_in})")


def show(document: Document, differs: Sequence[str], notes: Sequence[str]) -> None:
    """Print what limits the conclusion, the tables, and the conclusion."""
    for line in differs:
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


def _compare(store: Store, name: str, results: Sequence[Result], missing: Sequence[str]) -> tuple[Document, list, list]:
    """Return what a comparison of the runs says, what is not the same in them, and what they cannot tell."""
    predict = cache(partial(_predictions, store))
    comparison = compare(_complete(store, results), lambda result: predict(result.run_id))
    differs, notes = unfair(comparison), [*missing, *limits(comparison)]
    answers = [found for run in comparison.best.runs if (found := predict(run.run_id))]
    tables = [pages.matrix(comparison), pages.cells(comparison)]
    document = Document(
        f"{name}: {len(comparison.models)} networks × {len(comparison.arms)} optimizers on {comparison.data}",
        pages.conclusion(comparison),
        pages.sections(comparison, differs, notes, answers),
        [*tables, pages.against_best(comparison)] if comparison.pairs else tables,
        {"report.csv": pages.csv_of_cells(comparison), "pairs.csv": pages.csv_of_pairs(comparison)},
    )
    return document, differs, notes


def _judge(
    store: Store, name: str, recipes: Mapping[str, str], results: Sequence[Result], missing: Sequence[str]
) -> tuple[Document, list, list]:
    """Return what became of the claims whose `recipes`, by fingerprint, the runs followed."""
    if not results:
        raise ValueError("no run is done, so there is nothing to report")
    by_recipe: dict[str, dict[int, Result]] = {}
    for result in sorted(_complete(store, results), key=lambda each: each.ended):
        by_recipe.setdefault(recipes[result.fingerprint], {})[result.seed] = result
    ordered = [recipe for recipe in dict.fromkeys(recipes.values()) if recipe in by_recipe]
    outcomes = [Outcome(*_claim(recipe), [run for _, run in sorted(by_recipe[recipe].items())]) for recipe in ordered]
    document = Document(
        f"{name}: published claims, run again",
        claims.conclusion(outcomes),
        claims.sections(outcomes, missing, _predictions(store, results[0].run_id)),
        [claims.table(outcomes)],
        {"report.csv": claims.csv(outcomes)},
    )
    return document, [], list(missing)


def _recipes(cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return, by fingerprint, the override that names the claim or counterpart of each cell that has one."""
    return {
        cell["fingerprint"]: override
        for cell in cells
        for override in cell.get("overrides", ())
        if override.partition("=")[0] in ("claim", "counterpart")
    }


def _claim(recipe: str) -> tuple[Claim, str]:
    """Compose the claim that `recipe` names, as in "claim=simple_004"; return it and the counterpart, if it is one."""
    cfg = compose("train", overrides=[recipe], return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    said = OmegaConf.to_container(cfg.claim, resolve=True)
    said["statements"] = [
        Statement(each["says"], _parameters(each["of"]) / _parameters(each["to"]), each["low"], each["high"])
        for each in said["statements"]
    ]
    claim = Claim(
        name=choices.claim,
        model=choices.model,
        optim=choices.optim,
        data=cfg.data.source.name,
        is_validated_on_test=cfg.data.split == "test",
        **said,
    )
    return claim, choices.get("counterpart") or ""


@cache
def _parameters(model: str) -> int:
    """Count the parameters of a network of conf/model."""
    network = build(compose("train", overrides=[f"model={model}"]), "model")
    return sum(weights.numel() for weights in network.parameters())


def _find(store: Store, sweep: str | None, like: str | None) -> tuple[Any, list[dict], list[Result], list[str]]:
    """Return the parent and cells of the sweep, if one is meant, the done runs that count, and what is missing."""
    found = {result.run_id: result for result in _results(store.search(like))} if like else {}
    if like and not sweep:
        return None, [], list(found.values()), [f"Of all runs those that the filter finds: {like}."]
    parent = store.sweep(None if sweep == "latest" else sweep)
    cells = store.cells_of(parent)
    ids = {cell["run_id"] for cell in cells if cell["run_id"]}
    runs = {each.run_id: each for each in _results(store.search(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"))}
    runs |= {each.run_id: each for each in _results(store.fetch(sorted(ids - runs.keys())))}  # done before this sweep
    asked = {cell["fingerprint"]: cell["name"] for cell in cells}
    chosen = [run for run in runs.values() if run.fingerprint in asked and (not like or run.run_id in found)]
    missing = [] if like else sorted(set(asked) - {run.fingerprint for run in chosen}, key=asked.get)
    notes = [f"Of this sweep the runs that the filter finds: {like}."] if like else []
    if missing:
        listed = ", ".join(asked[each] for each in missing[:3]) + (" and others" if len(missing) > 3 else "")
        notes = [f"{len(missing)} of {len(asked)} cells of the sweep are not done, and not in this report: {listed}."]
    return parent, cells, chosen, notes


def _results(runs: Iterable[Any]) -> Iterator[Result]:
    """Yield those of MLflow's runs that are done, still without their curves."""
    for run in runs:
        tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
        if not is_done(run) or "test/acc" not in metrics or not run.inputs.dataset_inputs:
            continue
        dataset = run.inputs.dataset_inputs[0].dataset
        sizes = json.loads(dataset.profile)
        yield Result(
            run_id=run.info.run_id,
            name=run.info.run_name,
            fingerprint=tags["fingerprint"],
            model=params["model"],
            optim=params["optim"],
            seed=int(params["seed"]),
            data=params["data"],
            lr=params.get("optim.lr", "nan"),
            accuracy=metrics["test/acc"],
            loss=metrics["test/loss"],
            test_images=sizes["test"],
            val_acc=np.empty(0),
            epoch_s=np.empty(0),
            steps_per_epoch=math.ceil(sizes["train"] / int(params["data.batch_size"])),
            parameters=int(params["parameters"]) if "parameters" in params else None,
            settings=_settings(params) | _circumstances(tags) | {"data digest": dataset.digest},
            command=tags.get("command", ""),
            host=tags.get("owner", "").partition(":")[0],
            began=run.info.start_time,
            ended=run.info.end_time,
        )


def _settings(params: Mapping[str, str]) -> dict[str, str]:
    def is_setting(key: str) -> bool:
        inside = any(key == node or key.startswith(f"{node}.") for node in NO_SETTING_NODES)
        return key not in NO_SETTINGS and not inside

    return {key: value for key, value in params.items() if is_setting(key)}


def _circumstances(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the code and the environment that a run came from: "python": "3.11.4", "CPU": "AMD ..."."""
    found = {"code commit": tags.get("mlflow.source.git.commit", "none")[:10], CHANGED: tags.get("git.dirty", "none")}
    for line in tags.get("environment", "").splitlines():
        name, separator, value = line.partition(": ") if ": " in line else line.partition(" ")
        found[f"environment {name if separator else 'platform'}"] = value or line
    return found


def _complete(store: Store, results: Sequence[Result]) -> list[Result]:
    """Return the results with their curves, and with whether they had their machines to themselves."""
    if not results:
        return []
    ids = [result.run_id for result in results]
    accuracies, seconds = (store.histories(ids, key) for key in ("val/acc", "time/epoch_s"))
    spans = {result.run_id: (result.host, result.began, result.ended) for result in results}
    first, last = min(began for _, began, _ in spans.values()), max(ended for *_, ended in spans.values())
    crowded = _crowded(spans | store.busy(first, last, but=ids[:2000]))
    return [
        replace(
            result,
            val_acc=_by_epoch(accuracies.get(result.run_id, {})),
            epoch_s=_by_epoch(seconds.get(result.run_id, {})),
            was_alone=result.run_id not in crowded,
        )
        for result in results
    ]


def _by_epoch(history: Mapping[int, float]) -> np.ndarray:
    """Return the values after the epochs from 1 on, nan for one that is missing; 0 is the untrained network."""
    return np.array([history.get(epoch, math.nan) for epoch in range(1, max(history, default=0) + 1)])


def _crowded(spans: Mapping[str, tuple[str, int, float]]) -> set[str]:
    """Return which of the runs, given by host, start and end, shared their host with another for a time."""
    by_host: dict[str, list[str]] = {}
    for run_id, (host, *_) in spans.items():
        by_host.setdefault(host, []).append(run_id)
    crowded = set()
    for ids in by_host.values():
        began, ended = np.array([spans[run_id][1:] for run_id in ids], dtype=float).T
        for run_id, start, end in zip(ids, began, ended, strict=True):
            if np.sum((began < end) & (ended > start)) > 1:  # one of them is the run itself
                crowded.add(run_id)
    return crowded


def _predictions(store: Store, run_id: str) -> Predictions | None:
    with store.artifact(run_id, "predictions.npz") as file:
        if file is None:
            return None
        with np.load(file) as arrays:
            shown = [arrays[key] for key in ("mistaken", "mistaken_images") if key in arrays]  # older runs have none
            images = dict(zip(shown[0].tolist(), shown[1], strict=True)) if shown else {}
            return Predictions(arrays["probabilities"].argmax(1), arrays["labels"], arrays["classes"].tolist(), images)

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
from digitlab.config import IRRELEVANT, UserError, build, differences, user_errors
from digitlab.document import Document, Picture, to_csv, to_html, to_latex, to_markdown
from digitlab.tracking import Store, is_done
from digitlab.verdicts import Claim, Count, Outcome, Recipe, Statement

# What may differ between runs that are fair to compare: names, and what the digest of the data stands for.
NO_SETTINGS = ("model", "optim", "data", "scheduler", "trainer", "seed", "parameters")
NO_SETTING_NODES = (*IRRELEVANT, "data.root", "data.fallback", "data.source")
NO_RECIPE = ("seed", "sweep")  # of the overrides of a sweep's cell
ACCELERATOR = "trainer.accelerator"  # a document says nothing of it: a claim run elsewhere is the same claim


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
        if recipes and cfg.report.counterparts not in (None, name):
            changed, more, lacking = _counterparts(store, cfg.report.counterparts, cfg.report.filter)
            results, recipes, missing = [*results, *changed], recipes | more, [*missing, *lacking]
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
    store: Store, name: str, recipes: Mapping[str, Recipe], results: Sequence[Result], missing: Sequence[str]
) -> tuple[Document, list, list]:
    """Return what became of the claims whose `recipes`, by fingerprint, the runs followed."""
    found: dict[tuple[Recipe, str], dict[int, Result]] = {}
    for result in sorted(_complete(store, results), key=lambda each: each.ended):
        if result.fingerprint in recipes:
            found.setdefault((recipes[result.fingerprint], result.data), {})[result.seed] = result
    if not found:
        raise ValueError("no run is done, so there is nothing to report")
    order = list(dict.fromkeys(recipes.values()))
    outcomes = []
    for (recipe, _), runs in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        claim, ids = _claim(recipe.claim), [run.run_id for run in runs.values()]
        answers = {each: _predictions(store, each) for each in ids} if claim.diverges and not recipe.changes else {}
        by_seed = [run for _, run in sorted(runs.items())]
        outcomes.append(Outcome(claim, by_seed, recipe.counterpart, dict(recipe.changes), answers))
    differs = claims.differing(outcomes)
    document = Document(
        f"{name}: published claims, run again",
        claims.conclusion(outcomes),
        claims.sections(outcomes, differs, missing, _predictions(store, outcomes[0].runs[0].run_id)),
        claims.tables(outcomes),
        {"report.csv": claims.csv(outcomes)},
    )
    return document, differs, list(missing)


def _counterparts(store: Store, sweep: str, like: str | None) -> tuple[list[Result], dict[str, Recipe], list[str]]:
    """Return the done runs of the sweep of counterparts, their recipes by fingerprint, and what is missing of them."""
    if sweep not in store.sweeps():
        return [], {}, [f"The sweep {sweep}, which changes something in the claims, has not been run."]
    _, cells, results, missing = _find(store, sweep, like)
    return results, _recipes(cells), [f"{sweep}: {line}" for line in missing]


def _recipes(cells: Sequence[Mapping[str, Any]]) -> dict[str, Recipe]:
    """Return, by fingerprint, what each cell of a claim follows."""
    found = {}
    for cell in cells:
        keys = [override.lstrip("+").partition("=")[0] for override in cell.get("overrides", ())]
        if {"claim", "counterpart"} & set(keys):
            named = zip(keys, cell["overrides"], strict=True)
            recipe = _recipe(tuple(override for key, override in named if key.partition(".")[0] not in NO_RECIPE))
            found |= {cell["fingerprint"]: recipe} if recipe else {}
    return found


@cache
def _recipe(overrides: tuple[str, ...]) -> Recipe | None:
    """Compose a run and its claim's own recipe, and return what differs; None where the run has no claim."""
    cfg, choices = _compose(*overrides)
    if not choices.get("claim"):
        return None
    own = f"claim={choices['claim']}"
    _, chosen = _compose(own)
    groups = {key: choices[key] for key in ("model", "optim", "scheduler") if choices[key] != chosen[key]}
    base, _ = _compose(own, *(f"{key}={choice}" for key, choice in groups.items()))
    changes = {key: value for key, value in differences(cfg, base).items() if _is_setting(key) and key != ACCELERATOR}
    changes = groups | changes
    return Recipe(choices["claim"], (choices.get("counterpart") or "") if changes else "", tuple(changes.items()))


@cache
def _compose(*overrides: str) -> tuple[DictConfig, dict[str, str]]:
    """Return what the overrides make of conf/train.yaml, and the choice of each group."""
    cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), dict(cfg.hydra.runtime.choices)


@cache
def _claim(name: str) -> Claim:
    cfg, choices = _compose(f"claim={name}")
    said = OmegaConf.to_container(cfg.claim, resolve=True)
    said["statements"] = [
        Statement(**each, ratio=_parameters(each["of"]) / _parameters(each["to"])) for each in said["statements"]
    ]
    said["counts"] = [Count(model, printed, _parameters(model)) for model, printed in said["counts"].items()]
    return Claim(
        name=name,
        model=choices["model"],
        optim=choices["optim"],
        data=cfg.data.source.name,
        is_validated_on_test=cfg.data.split == "test",
        **said,
    )


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
    return {key: value for key, value in params.items() if _is_setting(key)}


def _is_setting(key: str) -> bool:
    inside = any(key == node or key.startswith(f"{node}.") for node in NO_SETTING_NODES)
    return key not in NO_SETTINGS and not inside


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

"""Read from the store the results of the runs of a sweep, or of those that a filter finds."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from digitlab.analysis.fairness import CHANGED
from digitlab.analysis.records import Predictions, Result
from digitlab.config.fingerprint import is_setting
from digitlab.platform.text import are, count
from digitlab.tracking import queries
from digitlab.tracking.queries import is_done
from digitlab.tracking.store import Store

RECORDED_CODE = {"code patch": "git.patch", "code of your own": "code.own"}  # name -> tag


def find(store: Store, sweep: str | None, filter_string: str | None) -> tuple[Any, list[dict], list[Result], list[str]]:
    """Return the parent run and cells of a sweep, if one is meant, the results to report, and notes on what is missing.

    `sweep` is a name or "latest". Raises ValueError where there is no such sweep or `filter_string` finds no run.
    """
    found = (
        {result.run_id: result for result in read_results(queries.search(store, filter_string))}
        if filter_string
        else {}
    )
    if filter_string and not found:
        raise ValueError(f"filter={filter_string}: finds no run that is done")
    if filter_string and not sweep:
        return None, [], list(found.values()), _filtered("Of all runs those", filter_string)
    parent = queries.sweep(store, None if sweep == "latest" else sweep)
    cells = queries.cells_of(store, parent)
    ids = {cell["run_id"] for cell in cells if cell["run_id"]}
    runs = {
        each.run_id: each
        for each in read_results(queries.search(store, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"))
    }
    runs |= {
        each.run_id: each for each in read_results(queries.fetch(store, sorted(ids - runs.keys())))
    }  # finished by an earlier command
    planned = {cell["fingerprint"]: cell["name"] for cell in cells}
    runs |= {each.run_id: each for each in _repeated(store, planned)}
    chosen = [run for run in runs.values() if run.fingerprint in planned and (not filter_string or run.run_id in found)]
    missing = (
        []
        if filter_string
        else sorted(set(planned) - {run.fingerprint for run in chosen}, key=lambda fingerprint: planned[fingerprint])
    )
    notes = _filtered("Of this sweep the runs", filter_string) if filter_string else []
    if missing:
        listed = ", ".join(planned[each] for each in missing[:3]) + (" and others" if len(missing) > 3 else "")
        cells_of_all = f"{len(missing)} of {count(len(planned), 'cell')}"
        notes = [f"{cells_of_all} of the sweep {are(len(missing))} not done, and not in this report: {listed}."]
    return parent, cells, chosen, notes


def _filtered(which: str, filter_string: str) -> list[str]:
    return [f"{which} that the filter finds: {filter_string}.", *chosen_by_result(filter_string)]


def chosen_by_result(filter_string: str) -> list[str]:
    """Return what is to be said of runs that a filter chose by what they came to; nothing for another filter."""
    if not re.search(r"\bmetrics?\.", filter_string, re.IGNORECASE):
        return []
    return ["They were chosen by a result, so no mean, interval or p-value here can be taken as it stands."]


def _repeated(store: Store, planned: Mapping[str, str]) -> list[Result]:
    """Return every run of those fingerprints in `planned` that were run again, in whichever sweep."""
    again = {each.fingerprint for each in read_results(queries.search(store, "params.rerun = 'true'"))} & planned.keys()
    return [
        each
        for fingerprint in sorted(again)
        for each in read_results(queries.search(store, f"tags.fingerprint = '{fingerprint}'"))
    ]


def read_results(runs: Iterable[Any]) -> Iterator[Result]:
    """Yield the results of those MLflow runs that are done, without their curves, which `complete` adds."""
    for run in runs:
        tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
        is_result = "test/acc" in metrics or params.get("evaluate_on") == "none"
        if not is_done(run) or not is_result or not run.inputs.dataset_inputs:
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
            accuracy=metrics.get("test/acc", math.nan),
            loss=metrics.get("test/loss", metrics.get("val/loss", math.nan)),
            test_images=sizes["test"],
            val_acc=np.empty(0),
            val_loss=np.empty(0),
            epoch_s=np.empty(0),
            steps_per_epoch=_steps(sizes["train"], params),
            parameters=int(params["parameters"]) if "parameters" in params else None,
            settings=_settings(params) | _circumstances(tags) | {"data digest": dataset.digest},
            command=tags.get("command", ""),
            host=tags.get("owner", "").partition(":")[0],
            began=run.info.start_time,
            ended=run.info.end_time,
            train_accuracy=metrics.get("train/acc", math.nan),
            train_images=sizes["train"],
            metrics=_others(metrics),
        )


def _others(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what was measured of the test images beside accuracy and loss, by name."""
    known = ("test/acc", "test/loss")
    return {
        key.removeprefix("test/"): value
        for key, value in sorted(metrics.items())
        if key.startswith("test/") and key not in known
    }


def _steps(images: int, params: Mapping[str, str]) -> int:
    batch = int(params["data.batch_size"])
    batches = max(images // batch, 1) if params.get("data.drop_last") == "true" else math.ceil(images / batch)
    together = params.get("trainer.accumulate_grad_batches", "null")
    return math.ceil(batches / (1 if together == "null" else int(together)))


def _settings(params: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in params.items() if is_setting(key)}


def _circumstances(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the code and environment of a run: {"code commit": "1a2b...", "environment python": "3.11.4"}."""
    found = {"code commit": tags.get("mlflow.source.git.commit", "none")[:10], CHANGED: tags.get("git.dirty", "none")}
    found |= {name: tags[tag] for name, tag in RECORDED_CODE.items() if tag in tags}
    for line in tags.get("environment", "").splitlines():
        name, separator, value = line.partition(": ") if ": " in line else line.partition(" ")
        found[f"environment {name if separator else 'platform'}"] = value or line
    return found


def complete(store: Store, results: Sequence[Result]) -> list[Result]:
    """Return the results with their curves, and with whether each run had its machine to itself."""
    if not results:
        return []
    ids = [result.run_id for result in results]
    accuracies, losses, seconds = (
        queries.histories(store, ids, key) for key in ("val/acc", "val/loss", "time/epoch_s")
    )
    spans = {result.run_id: (result.host, result.began, result.ended) for result in results}
    contended = _contended(queries.concurrent_runs(store, spans) | spans)
    return [
        replace(
            result,
            val_acc=by_epoch(accuracies.get(result.run_id, {})),
            val_loss=by_epoch(losses.get(result.run_id, {})),
            epoch_s=by_epoch(seconds.get(result.run_id, {})),
            is_exclusive=result.run_id not in contended,
        )
        for result in results
    ]


def describe_test_reads(store: Store, results: Iterable[Result]) -> list[str]:
    """Say how often the test images of each data set of `results` have been read in this store."""
    lines = []
    for data in dict.fromkeys(result.data for result in results):
        tests, validations = queries.test_reads(store, data)
        times = count(tests + validations, "time")
        which = f", {validations:,} of them to validate after an epoch" if validations else ""
        lines.append(f"{data}: test set read {times} in this store{which}.")
    return lines


def by_epoch(history: Mapping[int, float]) -> np.ndarray:
    """Return the values from epoch 1 on, nan where one is missing; epoch 0 is the untrained network."""
    return np.array([history.get(epoch, math.nan) for epoch in range(1, max(history, default=0) + 1)])


def _contended(spans: Mapping[str, tuple[str, int, float]]) -> set[str]:
    """Return the ids of the runs, given by host, start and end, that shared their host with another at any time."""
    by_host: dict[str, list[str]] = {}
    for run_id, (host, *_) in spans.items():
        by_host.setdefault(host, []).append(run_id)
    contended = set()
    for ids in by_host.values():
        began, ended = np.array([spans[run_id][1:] for run_id in ids], dtype=float).T
        for run_id, start, end in zip(ids, began, ended, strict=True):
            if np.sum((began < end) & (ended > start)) > 1:  # one of them is the run itself
                contended.add(run_id)
    return contended


def read_predictions(store: Store, run_id: str) -> Predictions | None:
    """Return the stored predictions of a run on the test images; None where it stored none."""
    with queries.artifact(store, run_id, "predictions.npz") as file:
        if file is None:
            return None
        with np.load(file) as arrays:
            name = next((each for each in ("misclassified", "mistaken") if each in arrays), None)  # 0.1's name too
            images = dict(zip(arrays[name].tolist(), arrays[f"{name}_images"], strict=True)) if name else {}
            probabilities, labels = arrays["probabilities"], arrays["labels"]
            classes, confidence = arrays["classes"].tolist(), probabilities.max(1)
            return Predictions(probabilities.argmax(1), labels, classes, images, confidence)

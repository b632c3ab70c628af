"""Copy the runs of an experiment into another store: all that MLflow keeps of them, once, however often it is done."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient, entities
from mlflow.artifacts import download_artifacts
from mlflow.entities import Metric, Param, RunTag

from digitlab.tracking import queries, registry
from digitlab.tracking.begin import create
from digitlab.tracking.flavor import upload_model
from digitlab.tracking.journal import MOST
from digitlab.tracking.locks import mark_dead_run
from digitlab.tracking.store import Store
from digitlab.tracking.tags import remove_tag

ORIGIN = "copied_from"  # the tag with the id that a run had in the store where it was made
WHOLE = "copied"  # the tag of a run of which all has been copied: when it had ended, in ms
FOUND_BY = "fingerprint"  # the tag without which nobody can continue a copy that is not whole
LATER = (FOUND_BY, "done", "mlflow.parentRunId", ORIGIN, WHOLE)  # tags that are not copied as they are
NAMING = ("mlflow.note.content",)  # tags whose text names runs


def copy(source: Store, target: Store) -> Iterator[str]:
    """Copy every run that is not under way, as no cell of such a sweep is; yield a line for each, and one that sums up.

    A run gets a new id, which is put in the place of the old one in the tags and the list of cells that name it; a
    report that was kept with its sweep names the old ones. Sweeps go first, because their cells name them.
    """
    runs = list(queries.search(source, ""))
    there = {origin_of(run): run for run in queries.search(target, "")}
    ids = {run.info.run_id: there[origin_of(run)].info.run_id for run in runs if origin_of(run) in there}
    known = len(ids)
    runs = [run for run in runs if not _is_whole(run, there)]
    left_out = {run.info.run_id for run in runs if _is_under_way(source, run)}
    left_out |= {run.info.run_id for run in runs if run.data.tags.get("mlflow.parentRunId") in left_out}
    for run in runs:
        if _is_continued(there.get(origin_of(run))):
            left_out.add(run.info.run_id)
            yield f"{run.info.run_name}: run {run.info.run_id} was continued there too, so it is not copied again"
    runs = [run for run in runs if run.info.run_id not in left_out]
    runs.sort(key=lambda run: ("mlflow.parentRunId" in run.data.tags, run.info.start_time))
    for run in runs:
        ids[run.info.run_id] = _begin(target, run, ids, there.get(origin_of(run)))
    for run in runs:
        _fill(source.client, target.client, run, ids)
        yield f"{run.info.run_name}: run {run.info.run_id} is {ids[run.info.run_id]} there"
    yield from registry.copy(source, target, ids)
    yield f"{len(runs)} runs copied; {known} were there"
    others = {each.name for each in source.client.search_experiments()} - {source.experiment, "Default"}
    if source.file and others:  # a server's may be anybody's
        yield f"--experiment NAME copies another experiment; there are: {', '.join(sorted(others))}"


def origin_of(run: entities.Run) -> str:
    """Return the id of a run in the store where it was made."""
    return run.data.tags.get(ORIGIN, run.info.run_id)


def _is_whole(run: entities.Run, there: dict[str, entities.Run]) -> bool:
    known = there.get(origin_of(run))
    if known is None:
        return False
    tags = known.data.tags
    return ORIGIN not in tags or tags.get(WHOLE) == str(run.info.end_time)  # else it has been continued


def _is_continued(copied: entities.Run | None) -> bool:
    """Say whether a whole copy has been continued in the store where it is."""
    whole = copied and copied.data.tags.get(WHOLE)
    return (
        copied is not None and bool(whole) and (copied.info.status == "RUNNING" or str(copied.info.end_time) != whole)
    )


def _is_under_way(store: Store, run: entities.Run) -> bool:
    return mark_dead_run(store, run) == "RUNNING"


def _begin(target: Store, run: entities.Run, ids: dict[str, str], begun: entities.Run | None) -> str:
    """Create the copy of a run, if that has not been done; return its id."""
    if begun:
        remove_tag(target.client, begun.info.run_id, FOUND_BY)
        return begun.info.run_id
    return create(target, str(run.info.run_name), _tags(run, ids), run.info.start_time).info.run_id


def _tags(run: entities.Run, ids: dict[str, str]) -> dict[str, str]:
    """Return the tags that the copy of a run has until it is whole."""
    tags = {key: value for key, value in run.data.tags.items() if key not in LATER}
    tags |= {key: _renamed(tags[key], ids) for key in NAMING if key in tags}
    if parent := run.data.tags.get("mlflow.parentRunId"):
        tags["mlflow.parentRunId"] = ids.get(parent, parent)
    return {**tags, ORIGIN: origin_of(run)}


def _fill(source: MlflowClient, target: MlflowClient, run: entities.Run, ids: dict[str, str]) -> None:
    old, new = run.info.run_id, ids[run.info.run_id]
    run = source.get_run(old)  # with what a search leaves out
    params = [Param(key, value) for key, value in run.data.params.items()]
    for start in range(0, len(params), MOST["params"]):
        target.log_batch(new, params=params[start : start + MOST["params"]])
    for key in run.data.metrics:
        points = [Metric(key, each.value, each.timestamp, each.step) for each in source.get_metric_history(old, key)]
        for start in range(0, len(points), MOST["metrics"]):
            target.log_batch(new, metrics=points[start : start + MOST["metrics"]])
    if run.inputs and run.inputs.dataset_inputs:
        target.log_inputs(new, run.inputs.dataset_inputs)
    _copy_artifacts(source, target, old, new, ids)
    _copy_model(source, target, run, new)
    tags = _tags(run, ids)
    for key in target.get_run(new).data.tags.keys() - tags.keys() - set(LATER):  # such as the error of an attempt
        if not key.startswith("mlflow."):
            remove_tag(target, new, key)
    target.log_batch(new, tags=[RunTag(key, value) for key, value in tags.items()])
    target.set_terminated(new, run.info.status, run.info.end_time)
    last = {key: run.data.tags[key] for key in ("done", FOUND_BY) if key in run.data.tags}
    target.log_batch(new, tags=[RunTag(key, value) for key, value in {**last, WHOLE: str(run.info.end_time)}.items()])


def _copy_artifacts(source: MlflowClient, target: MlflowClient, old: str, new: str, ids: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for each in source.list_artifacts(old):
            place = Path(
                download_artifacts(
                    run_id=old, artifact_path=each.path, dst_path=folder, tracking_uri=source.tracking_uri
                )
            )
            if each.path == "sweep.json":
                place.write_text(_renamed(place.read_text(), ids))
            target.log_artifact(new, str(place))


def _copy_model(source: MlflowClient, target: MlflowClient, run: entities.Run, new: str) -> None:
    old = run.info.run_id
    steps = {each.model_id: each.step for each in (run.outputs.model_outputs if run.outputs else ())}
    for model in source.search_logged_models([run.info.experiment_id], f"source_run_id = '{old}'"):
        if str(model.status) == "READY":
            with tempfile.TemporaryDirectory() as folder:
                # Not by models:/ID, which MLflow looks up in the store of the whole process.
                uri, where = str(model.artifact_location), source.tracking_uri
                here = Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=where))
                points = [[each.key, each.value, each.timestamp, each.step] for each in model.metrics or ()]
                info, step = target.get_run(new).info, steps.get(model.model_id, 0)
                upload_model(target, info, str(here), model.name, step, points, model.params or {})


def _renamed(text: str, ids: dict[str, str]) -> str:
    for old, new in ids.items():
        text = text.replace(old, new)
    return text

"""MLflow's client for a run whose server may fail: what it writes waits in a journal, what it reads it remembers."""

import posixpath
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import Any

from mlflow import MlflowClient, entities
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from digitlab.tracking.flavor import upload_model
from digitlab.tracking.journal import Entry, Journal
from digitlab.tracking.tags import remove_tag


class DeferredClient(MlflowClient):
    """A client of one run, whose calls return at once; `deliver` makes them later, in the same order.

    Each of them may be made twice without harm. `check`, which raises what ends the run, is called before each until
    the run `is_ending`.
    """

    is_ending = False

    def __init__(self, client: MlflowClient, run: entities.Run, journal: Journal, check: Callable[[], None]):
        super().__init__(client.tracking_uri)
        self.run, self.journal, self.check = run, journal, check
        self.params = dict(run.data.params)
        self.curves: dict[str, tuple[array, array, array]] = {}  # values, times and steps of each metric
        for key in run.data.metrics:
            if not key.startswith("system/"):
                for point in sorted(client.get_metric_history(run.info.run_id, key), key=lambda point: point.step):
                    self._remember(point)

    def _remember(self, point: Metric) -> None:
        curve = self.curves.setdefault(point.key, (array("d"), array("q"), array("q")))
        for column, value in zip(curve, (point.value, point.timestamp, point.step), strict=True):
            column.append(value)

    def _put(self, call: str, file: str | Path | None = None, place: str | None = None, **arguments: Any) -> None:
        if not self.is_ending:
            self.check()
        self.journal.put(call, arguments, Path(file) if file else None, place)

    def get_run(self, run_id: str) -> entities.Run:
        return self.run

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [Metric(key, *point) for point in zip(*self.curves.get(key, ()), strict=True)]

    def log_batch(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        if not self.is_ending:
            self.check()
        lists = {
            "metrics": [[each.key, each.value, each.timestamp, each.step] for each in metrics],
            "params": [[each.key, each.value] for each in params],
            "tags": [[each.key, each.value] for each in tags],
        }
        self.journal.extend("log_batch", lists)
        self.params |= {each.key: each.value for each in params}
        for point in metrics:
            if not point.key.startswith("system/"):
                self._remember(point)

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def delete_tag(self, run_id: str, key: str) -> None:
        self._put("delete_tag", key=key)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        self._put("set_terminated", status=status, end_time=end_time or int(time() * 1000))

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput] | None = None, models: Any = None) -> None:
        self._put("log_inputs", datasets=[each.to_dictionary() for each in datasets or ()])

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Record a file; MLflow's log_text, log_figure and the like call this."""
        place = posixpath.join(artifact_path or "", Path(local_path).name)
        self._put("log_artifact", local_path, place, artifact_path=artifact_path)

    def delete_artifact(self, path: str) -> None:
        self._put("delete_artifact", place=path, path=path)

    def log_saved_model(self, folder: Path, name: str, step: int) -> None:
        """Record a model that `prepare_model` saved into `folder`, with the values that metrics have at its step."""
        points = [[key, *point] for key, curve in self.curves.items() for point in zip(*curve, strict=True)]
        points = [point for point in points if point[-1] == step]
        self._put("log_model", folder, "model", name=name, step=step, points=points, params=self.params)


def deliver(client: MlflowClient, run: entities.RunInfo, entry: Entry) -> None:
    """Make a call that waited."""
    run_id, given, file = run.run_id, entry.arguments, str(entry.file)
    match entry.call:
        case "log_batch":
            metrics = [Metric(*each) for each in given["metrics"]]
            params, tags = [Param(*each) for each in given["params"]], [RunTag(*each) for each in given["tags"]]
            client.log_batch(run_id, metrics, params, tags)
        case "log_inputs":
            sets = [(Dataset(**each["dataset"]), each["tags"]) for each in given["datasets"]]
            client.log_inputs(
                run_id, [DatasetInput(data, [InputTag(*tag) for tag in tags.items()]) for data, tags in sets]
            )
        case "log_artifact":
            _files_of(client, run).log_artifact(file, given["artifact_path"])
        case "delete_artifact":
            _files_of(client, run).delete_artifacts(given["path"])
        case "log_model":
            upload_model(client, run, file, **given)
        case "delete_tag":
            remove_tag(client, run_id, given["key"])
        case call:
            getattr(client, call)(run_id, **given)


def _files_of(client: MlflowClient, run: entities.RunInfo):
    return get_artifact_repository(str(run.artifact_uri), tracking_uri=client.tracking_uri)

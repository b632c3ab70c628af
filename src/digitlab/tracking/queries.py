"""Query a store for runs and their results."""

import json
import math
import posixpath
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, median_low

from mlflow import MlflowClient, entities
from mlflow.artifacts import download_artifacts
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request_safe
from mlflow.utils.search_utils import SearchUtils

from digitlab.tracking.failures import is_missing
from digitlab.tracking.locks import if_dead
from digitlab.tracking.store import Store

PAGE = 200  # runs that one search returns; each has a hundred parameters and metrics
BEST = "best_val_acc"  # the tag of a run with its highest val/acc, in digits that sort as they count
BULK, POINTS = 100, 25_000  # runs that a server accepts in one request for their points, and points that it returns
HOUR = 3_600_000  # ms
BULK_ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

Span = tuple[str, int, float]  # host, start and end of a run in ms


def find(store: Store, fingerprint: str, older: str | None = None) -> tuple[entities.Run | None, entities.Run | None]:
    """Return the newest done run of `fingerprint`, and a newer run that is not done; None where there is none.

    A done run with the id `older` counts as none.
    """
    runs = store.client.search_runs(
        [store.experiment_id], f"tags.fingerprint = '{fingerprint}'", order_by=["attributes.start_time DESC"]
    )
    done = next((run for run in runs if is_done(run)), None)
    broken = runs[0] if runs and runs[0] is not done else None
    return (None if done and done.info.run_id == older else done), broken


def search(store: Store, filter_string: str) -> Iterator[entities.Run]:
    """Yield the runs of the experiment that MLflow's `filter_string` finds; raise ValueError if it is invalid."""
    yield from _search(store, [store.experiment_id], filter_string)


def latest(store: Store, filter_string: str) -> Iterator[entities.Run]:
    """Yield the runs of the experiment that `filter_string` finds, the last that ended first, in small pages."""
    yield from _search(store, [store.experiment_id], filter_string, order=("attributes.end_time DESC",), most=10)


def most_accurate(store: Store, filter_string: str) -> Iterator[entities.Run]:
    """Yield the runs that `filter_string` finds, those of the highest val/acc first, in small pages.

    The first made comes first of equal ones; those of an older digitlab, without the tag BEST, are last.
    """
    order = (f"tags.{BEST} DESC", "attributes.start_time ASC")
    yield from _search(store, [store.experiment_id], filter_string, order=order, most=10)


def _search(
    store: Store,
    experiments: Sequence[str],
    filter_string: str,
    view: int = ViewType.ACTIVE_ONLY,
    order: Sequence[str] = ("attributes.start_time DESC",),
    most: int = PAGE,
) -> Iterator[entities.Run]:
    token = None
    while token != "":
        try:
            page = store.client.search_runs(list(experiments), filter_string, view, most, list(order), token)
        except MlflowException as error:
            if not is_missing(error):
                raise
            raise ValueError(f"filter={filter_string}: {str(error).splitlines()[0]}") from error
        yield from page
        token = page.token or ""


def _count(store: Store, experiments: Sequence[str], filter_string: str) -> int:
    """Return how many runs a filter finds, deleted ones too.

    MLflow counts nothing, and to read ten thousand runs takes a minute. Whether there is an n-th run is one small
    question, and bisection needs few of them.
    """

    def is_past(n: int) -> bool:
        token = SearchUtils.create_page_token(n).decode() if n else None
        return not store.client.search_runs(list(experiments), filter_string, ViewType.ALL, 1, page_token=token)

    limit = 1
    while not is_past(limit - 1):
        limit *= 2
    return bisect_left(range(limit), True, lo=limit // 2, key=is_past)


def fetch(store: Store, ids: Sequence[str]) -> Iterator[entities.Run]:
    """Yield the runs with these ids that still exist."""
    for start in range(0, len(ids), PAGE):
        listed = ", ".join(f"'{each}'" for each in ids[start : start + PAGE])
        yield from search(store, f"attributes.run_id IN ({listed})")


def sweeps(store: Store) -> dict[str, entities.Run]:
    """Return the parent run of each sweep by its name."""
    return {run.data.tags["sweep"]: run for run in search(store, "tags.fingerprint LIKE 'sweep-%'")}


def sweep(store: Store, name: str | None) -> entities.Run:
    """Return the parent run of the sweep `name`, or of the most recent one; ValueError where there is none."""
    parents = sweeps(store)
    if not parents:
        raise ValueError("no sweep has been run in this experiment yet")
    if name is None:
        return max(parents.values(), key=lambda run: run.info.end_time or run.info.start_time)
    if name not in parents:
        raise ValueError(f"sweep={name}: not found; there are: {', '.join(sorted(parents))}")
    return parents[name]


def swept(store: Store) -> Iterator[tuple[entities.Run, dict]]:
    """Yield each cell of every sweep, after the sweep's parent run."""
    for parent in sweeps(store).values():
        for cell in cells_of(store, parent):
            yield parent, cell


def cells_of(store: Store, parent: entities.Run) -> list[dict]:
    """Return the cells that are recorded in a sweep's sweep.json."""
    with artifact(store, parent.info.run_id, "sweep.json") as file:
        return json.loads(file.read_text()) if file else []


@contextmanager
def artifact(store: Store, run_id: str, name: str) -> Iterator[Path | None]:
    """Give the path of an artifact, or of a copy if the store is remote; None where the run has no such artifact."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder, tracking_uri=store.uri)
        except Exception:
            listed = MlflowClient(store.uri).list_artifacts(run_id, posixpath.dirname(name) or None)
            if name in {each.path for each in listed}:
                raise
            found = None
        yield Path(found) if found else None


def histories(store: Store, ids: Sequence[str], key: str) -> dict[str, dict[int, float]]:
    """Return the values of one metric by run and step, read in bulk; runs without any are left out."""
    found: dict[str, dict[int, float]] = {}
    for start in range(0, len(ids), BULK):
        for run_id, step, value, _ in _points(store, ids[start : start + BULK], key):
            found.setdefault(run_id, {})[step] = value
    return found


def _points(store: Store, ids: Sequence[str], key: str) -> list[tuple[str, int, float, int]]:
    """Return run, step, value and time in ms of each point by the bulk call of MLflow's UI, which its client lacks."""
    backend = store.client._tracking_client.store
    if store.is_server:
        query = {"run_id": list(ids), "metric_key": key, "max_results": POINTS}
        answer = http_request_safe(backend.get_host_creds(), BULK_ENDPOINT, "GET", params=query)
        found = answer.json()["metrics"]
        points = [(each["run_id"], each["step"], each["value"], each["timestamp"]) for each in found]
    else:
        found = backend.get_metric_history_bulk(list(ids), key, POINTS)
        points = [(each.run_id, each.step, each.value, each.timestamp) for each in found]
    if len(points) < POINTS or len(ids) == 1:
        return points
    half = len(ids) // 2  # there may be more
    return _points(store, ids[:half], key) + _points(store, ids[half:], key)


def concurrent_runs(store: Store, spans: Mapping[str, Span]) -> dict[str, Span]:
    """Return the spans, by id, of those other runs of all experiments that shared the host with a run of `spans`.

    Runs that lie near it in time are returned, too.
    """
    experiments, found = [each.experiment_id for each in store.client.search_experiments()], {}
    for host, first, last in _periods(spans.values()):
        known = [run_id for run_id, span in spans.items() if span[0] == host and first <= span[1] <= last]
        listed = ", ".join(f"'{each}'" for each in known[:2000])  # MLflow accepts some thousands
        began = f"attributes.run_id NOT IN ({listed}) and attributes.start_time <= {last:.0f}"
        began += f" and tags.owner LIKE '{host}:%'" if host else ""
        for condition in (f"attributes.end_time >= {first}", "attributes.status = 'RUNNING'"):
            for run in _search(store, experiments, f"{began} and {condition}"):
                if not run.data.tags.get("fingerprint", "").startswith("sweep-"):
                    owner = run.data.tags.get("owner", "").partition(":")[0]
                    found[run.info.run_id] = owner, run.info.start_time, run.info.end_time or _end(store, run)
    return found


def _periods(spans: Iterable[Span]) -> list[Span]:
    """Return by host the times in which runs lie, those that less than an hour parts as one."""
    periods: list[Span] = []
    for host, began, ended in sorted(spans):
        if periods and periods[-1][0] == host and began - periods[-1][2] < HOUR:
            periods[-1] = host, periods[-1][1], max(ended, periods[-1][2])
        else:
            periods.append((host, began, ended))
    return periods


def _end(store: Store, run: entities.Run) -> float:
    """Return the end of a RUNNING run in ms: infinity if its process is alive, else the end of its last epoch."""
    with if_dead(store, run) as is_dead:
        if not is_dead:
            return math.inf
    points = store.client.get_metric_history(run.info.run_id, "val/loss")
    return max((point.timestamp for point in points), default=run.info.start_time)


def seconds(run: entities.Run) -> float:
    """Return how many seconds a finished run took, without interruptions, by a monotonic clock."""
    if "seconds" in run.data.tags:
        return float(run.data.tags["seconds"])
    return ((run.info.end_time or run.info.start_time) - run.info.start_time) / 1000


def test_reads(store: Store, data: str) -> tuple[int, int]:
    """Return how many runs of all experiments tested on `data`, and how often runs validated on its test images.

    A deleted run has read them too.
    """
    experiments = [each.experiment_id for each in store.client.search_experiments(ViewType.ALL)]
    of_data = f"params.data = '{data}'"
    validating = _search(store, experiments, f"{of_data} and params.`data.split` = 'test'", ViewType.ALL)
    points = histories(store, [run.info.run_id for run in validating], "val/acc")
    return _count(store, experiments, f"{of_data} and metrics.`test/acc` >= 0"), sum(map(len, points.values()))


def pace(store: Store, model: str, data: str) -> tuple[float, float] | None:
    """Return the seconds of a run's start and end together, and those of an epoch; None without a done run.

    They are medians over the done runs of a model on data. An epoch lasts from one val/loss to the next; of a resumed
    run one of them spans the time in between, so the lower middle one stands for the run.
    """
    filter_string = f"tags.model = '{model}' and tags.data = '{data}' and tags.done = 'true'"
    runs = store.client.search_runs([store.experiment_id], filter_string, max_results=20)
    ends: dict[str, list[int]] = {}
    for run_id, _, _, milliseconds in _points(store, [run.info.run_id for run in runs], "val/loss") if runs else ():
        ends.setdefault(run_id, []).append(milliseconds)
    rests, epochs = [], []
    for run in runs:
        lasted = [(after - before) / 1000 for before, after in pairwise(sorted(ends.get(run.info.run_id, ())))]
        if lasted:
            epochs.append(median_low(lasted))
            rests.append(max(seconds(run) - epochs[-1] * len(lasted), 0))
    return (median(rests), median(epochs)) if epochs else None


def is_done(run: entities.Run) -> bool:
    """Say whether a run is complete; the status FINISHED is not enough, because MLflow sets it after some crashes."""
    return run.info.status == "FINISHED" and run.data.tags.get("done") == "true"


def model_uri(store: Store, run_id: str) -> str | None:
    """Return the address that MLflow loads a run's model by; None where it has none."""
    experiments = [store.experiment_id]
    models = store.client.search_logged_models(experiments, f"source_run_id = '{run_id}'", max_results=1)
    return models[0].model_uri if models else None

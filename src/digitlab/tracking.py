"""Keep runs in MLflow: where the store is, and which run is which. Only this file and run.py import mlflow."""

import json
import logging
import math
import os
import re
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from getpass import getuser
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

import psutil
from filelock import FileLock, Timeout
from mlflow import MlflowClient, entities
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request_safe
from sqlalchemy.exc import SQLAlchemyError

from digitlab import REPOSITORY

if TYPE_CHECKING:
    from digitlab.run import Run  # loads torch, which only those need who write

OURS = f"sqlite:///{REPOSITORY / 'mlruns' / 'mlflow.db'}"
SCHEMES = ("sqlite:///", "postgresql", "mysql", "mssql", "http://", "https://")

PAGE = 200  # runs that one search returns: each has a hundred parameters and metrics
BULK, POINTS = 100, 25_000  # runs that a server takes in one question for their points, and points that it returns
BULK_ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class Store:
    """The place where runs are kept: an MLflow tracking URI, or the repository's own sqlite file; and one experiment.

    Nothing is created before `open`. Raises ValueError for a URI that MLflow cannot use.
    """

    def __init__(self, uri: str | None, experiment: str):
        self.uri = uri or OURS
        self.experiment = experiment
        if not self.uri.startswith(SCHEMES):
            raise ValueError(f"uri={redact(self.uri)}: must begin with one of {', '.join(SCHEMES)}")
        self.file = None
        if self.uri.startswith("sqlite:///"):
            self.file = Path(self.uri.removeprefix("sqlite:///")).expanduser().resolve()
            if self.file.is_dir():
                raise ValueError(f"uri={self.uri}: is a folder; name the file, as in {self.uri.rstrip('/')}/mlflow.db")
            self.uri = f"sqlite:///{self.file}"  # a relative one would follow the working directory

    def exists(self) -> bool:
        """Say whether there is a store yet; a server is taken to be there."""
        return self.file is None or self.file.exists()

    def open(self, create: bool = True) -> None:
        """Connect, creating schema and experiment if need be; raise OSError where the store does not answer in 15 s.

        Without `create` a store or experiment that is not there is a ValueError.
        """
        if not create and not self.exists():
            raise ValueError(f"uri={self.uri}: there is no such file; no run has been recorded yet")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("mlflow.store.db.utils", "mlflow.system_metrics"):  # many lines for what `failures` says in one
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow breaks a fresh sqlite file that several processes open at once, and for ever one that dies in it.
            with FileLock(f"{self.file}.lock"):
                if not self.file.exists():
                    self._create_schema()
                self._connect((self.file.parent / "artifacts").as_uri(), create)
        else:
            with _impatient():
                self._connect(None, create)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what MLflow or a disk fails with into an OSError of one line: the place, the reason, the bytes free."""
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if getattr(error, "filename", None):
                reason, places = f"{error.filename}: {error.strerror}", [error.filename]
            else:
                inner = getattr(error.__cause__, "orig", error)  # what the database said, in MLflow's many words
                reason = str(inner).partition("\n")[0][:300] or type(inner).__name__
                reason = redact(reason if isinstance(error, OSError) else f"uri={self.uri}: {reason}")
                places = [self.file, tempfile.gettempdir()] if self.file else []
            raise OSError(f"{reason}{_free(places)}") from error

    @property
    def way_in(self) -> str:
        """Say how a person opens the UI: an address, or the command that starts it."""
        if self.uri.startswith("http"):
            return redact(self.uri)
        return "make ui" if self.uri == OURS else f"MLFLOW_TRACKING_URI={redact(self.uri)} make ui"

    def find(self, fingerprint: str) -> tuple[entities.Run | None, entities.Run | None]:
        """Return the newest done run of `fingerprint`, and a newer one that is not done; None for what there is not."""
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.fingerprint = '{fingerprint}'", order_by=["attributes.start_time DESC"]
        )
        done = next((run for run in runs if is_done(run)), None)
        return done, runs[0] if runs and runs[0] is not done else None

    def search(self, like: str) -> Iterator[entities.Run]:
        """Yield the runs of the experiment that MLflow's filter `like` finds; raise ValueError for a bad one."""
        yield from self._search([self.experiment_id], like)

    def _search(self, experiments: Sequence[str], like: str) -> Iterator[entities.Run]:
        token = None
        while token != "":
            try:
                page = self.client.search_runs(experiments, like, max_results=PAGE, page_token=token)
            except MlflowException as error:
                raise ValueError(f"filter={like}: {str(error).splitlines()[0]}") from error
            yield from page
            token = page.token or ""

    def fetch(self, ids: Sequence[str]) -> Iterator[entities.Run]:
        """Yield the runs of these ids that are still there."""
        for start in range(0, len(ids), PAGE):
            listed = ", ".join(f"'{each}'" for each in ids[start : start + PAGE])
            yield from self.search(f"attributes.run_id IN ({listed})")

    def sweeps(self) -> dict[str, entities.Run]:
        """Return the parent run of each sweep by its name."""
        return {run.data.tags["sweep"]: run for run in self.search("tags.fingerprint LIKE 'sweep-%'")}

    def sweep(self, name: str | None) -> entities.Run:
        """Return the parent run of the sweep `name`, or of the one at work last; ValueError where there is none."""
        parents = self.sweeps()
        if not parents:
            raise ValueError("no sweep has been run in this experiment yet")
        if name is None:
            return max(parents.values(), key=lambda run: run.info.end_time or run.info.start_time)
        if name not in parents:
            raise ValueError(f"sweep={name}: not found; there are: {', '.join(sorted(parents))}")
        return parents[name]

    def cells_of(self, parent: entities.Run) -> list[dict]:
        """Return what a sweep's sweep.json says of its cells."""
        with self.artifact(parent.info.run_id, "sweep.json") as file:
            return json.loads(file.read_text()) if file else []

    @contextmanager
    def artifact(self, run_id: str, name: str) -> Iterator[Path | None]:
        """Give the path of an artifact, of a copy where the store is elsewhere; None where the run has none."""
        with tempfile.TemporaryDirectory() as folder:
            found = None
            with suppress(MlflowException, OSError):
                found = download_artifacts(run_id=run_id, artifact_path=name, dst_path=folder, tracking_uri=self.uri)
            yield Path(found) if found else None

    def histories(self, ids: Sequence[str], key: str) -> dict[str, dict[int, float]]:
        """Return the values of one metric by run and step, read in bulk; runs without any are left out."""
        found: dict[str, dict[int, float]] = {}
        for start in range(0, len(ids), BULK):
            for run_id, step, value in self._points(ids[start : start + BULK], key):
                found.setdefault(run_id, {})[step] = value
        return found

    def _points(self, ids: Sequence[str], key: str) -> list[tuple[str, int, float]]:
        """Return run, step and value of each point, by the call behind MLflow's own charts: its client has none."""
        store = self.client._tracking_client.store
        if self.uri.startswith("http"):
            query = {"run_id": list(ids), "metric_key": key, "max_results": POINTS}
            answer = http_request_safe(store.get_host_creds(), BULK_ENDPOINT, "GET", params=query)
            points = [(each["run_id"], each["step"], each["value"]) for each in answer.json()["metrics"]]
        else:
            found = store.get_metric_history_bulk(list(ids), key, POINTS)
            points = [(each.run_id, each.step, each.value) for each in found]
        if len(points) < POINTS or len(ids) == 1:
            return points
        half = len(ids) // 2  # there may be more
        return self._points(ids[:half], key) + self._points(ids[half:], key)

    def busy(self, first: int, last: int, but: Sequence[str]) -> dict[str, tuple[str, int, float]]:
        """Return, by id, host, start and end, in ms, of the runs of all experiments at work between two times.

        Without those known already, `but`, of which MLflow takes some thousands at most.
        """
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        known, spans = ", ".join(f"'{each}'" for each in but), {}
        began = f"attributes.run_id NOT IN ({known}) and attributes.start_time <= {last}"
        for like in (f"{began} and attributes.end_time >= {first}", f"{began} and attributes.status = 'RUNNING'"):
            for run in self._search(experiments, like):
                host = run.data.tags.get("owner", "").partition(":")[0]
                if not run.data.tags.get("fingerprint", "").startswith("sweep-"):
                    spans[run.info.run_id] = host, run.info.start_time, run.info.end_time or self._end(run)
        return spans

    def _end(self, run: entities.Run) -> float:
        """Return when a RUNNING run ends, in ms: some time if it is at work, else where its last epoch ended."""
        with self._if_dead(run) as is_dead:
            if not is_dead:
                return math.inf
        points = self.client.get_metric_history(run.info.run_id, "val/loss")
        return max((point.timestamp for point in points), default=run.info.start_time)

    def begin(self, name: str, tags: Mapping[str, str]) -> "Run":
        """Start a new run."""
        from digitlab.run import Run, this_process

        source = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "src/train.py"}
        tags = {"mlflow.user": _user(), "owner": this_process(), **source, **tags}
        return Run(self.client, self.client.create_run(self.experiment_id, run_name=name, tags=tags))

    def parent(self, sweep: str) -> "Run":
        """Start the parent run of the sweep named, or reopen it."""
        from digitlab.run import Run

        fingerprint = f"sweep-{sweep}"
        done, broken = self.find(fingerprint)
        tags = {"fingerprint": fingerprint, "sweep": sweep, "mlflow.user": _user()}
        run = broken or done or self.client.create_run(self.experiment_id, run_name=sweep, tags=tags)
        return Run(self.client, run, is_monitored=False)

    def resume(self, run: entities.Run) -> "Run":
        """Continue a run that is not done."""
        from digitlab.run import Run

        return Run(self.client, run)

    def is_alive(self, run: entities.Run) -> bool:
        """Say whether the owner of a run that is not done may be at work on it, though not in the way of our lock."""
        if self.file or run.info.status != "RUNNING":
            return False  # the lock beside a file is everybody's
        host, pid, started = run.data.tags.get("owner", "::").split(":")
        if host != socket.gethostname():
            return bool(host)  # nobody can tell from here
        with suppress(psutil.Error):
            return f"{psutil.Process(int(pid)).create_time():.0f}" == started and int(pid) != os.getpid()
        return False

    def bury(self, run: entities.Run) -> str:
        """Return the status of a run that is not done; one that its owner died over without a word becomes KILLED."""
        if run.info.status != "RUNNING":
            return run.info.status
        with self._if_dead(run) as is_dead:
            if is_dead:
                self.client.set_terminated(run.info.run_id, "KILLED")
                self.client.set_tag(run.info.run_id, "error", "its process died without a word")
            return "KILLED" if is_dead else "RUNNING"

    @contextmanager
    def _if_dead(self, run: entities.Run) -> Iterator[bool]:
        """Say whether nobody is at work on a RUNNING run, and let nobody begin meanwhile."""
        lock = self._lock(run.data.tags.get("fingerprint", run.info.run_id))
        try:
            is_free = not self.is_alive(run) and bool(lock.acquire(timeout=0))
        except Timeout:
            is_free = False
        try:
            yield is_free
        finally:
            lock.release()

    @staticmethod
    def seconds(run: entities.Run) -> float:
        """Return how long a finished run took, whatever clocks and interruptions did meanwhile."""
        return float(run.data.tags.get("seconds", (run.info.end_time - run.info.start_time) / 1000))

    def pace(self, model: str, data: str) -> float | None:
        """Return the median seconds for each epoch of the done runs of a model on data, all told; None without any."""
        like = f"tags.model = '{model}' and tags.data = '{data}' and tags.done = 'true'"
        runs = self.client.search_runs([self.experiment_id], like, max_results=20)
        paces = [self.seconds(run) / int(run.data.params["trainer.max_epochs"]) for run in runs]
        return median(paces) if paces else None

    @contextmanager
    def owner(self, fingerprint: str) -> Iterator[None]:
        """Hold the one right on this machine to run `fingerprint`, waiting while another process has it."""
        lock = self._lock(fingerprint)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn("another process runs the same; waiting for it to end", stacklevel=2)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, fingerprint: str) -> FileLock:
        folder = self.file.parent / "locks" if self.file else Path(tempfile.gettempdir()) / f"digitlab-{_user()}"
        folder.mkdir(parents=True, exist_ok=True)
        store = "" if self.file else f"{sha256(self.uri.encode()).hexdigest()[:8]}-"
        return FileLock(folder / f"{store}{fingerprint}.lock")

    def _connect(self, artifacts: str | None, create: bool) -> None:
        try:
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if found and found.lifecycle_stage == "deleted":
                raise ValueError(f"experiment={self.experiment}: was deleted; restore it or choose another name")
            if found and artifacts and _has_moved(found.artifact_location, artifacts):
                raise ValueError(
                    f"uri={self.uri}: was moved here from {found.artifact_location}; make relocate puts that right"
                )
            if not found and not create:
                names = ", ".join(sorted(each.name for each in self.client.search_experiments()))
                raise ValueError(f"experiment={self.experiment}: not found; there are: {names}")
            self.experiment_id = (
                found.experiment_id if found else self.client.create_experiment(self.experiment, artifacts)
            )
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = redact(str(error).splitlines()[0][:200])
            raise OSError(f"uri={redact(self.uri)}: the store does not answer ({reason})") from error

    def _create_schema(self) -> None:
        """Create the schema in a temporary file, which takes its name only when it is whole."""
        temporary = self.file.with_name(f".{self.file.name}.new")
        temporary.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{temporary}").search_experiments()
        temporary.replace(self.file)


def _has_moved(there: str, here: str) -> bool:
    """Say whether a store's artifacts, which MLflow knows by their whole path, are now where the store is."""
    is_gone = there.startswith("file:") and not Path(url2pathname(urlparse(there).path)).exists()
    return is_gone and Path(url2pathname(urlparse(here).path)).exists()


def is_done(run: entities.Run) -> bool:
    """Say whether a run came to its end; FINISHED alone does not mean it, for MLflow says so of some crashes."""
    return run.info.status == "FINISHED" and run.data.tags.get("done") == "true"


def redact(text: str) -> str:
    """Hide the user and password of every address in `text`."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def _free(places: Iterable[str | Path]) -> str:
    """Say how many bytes are free in folders, or in those where files lie or would lie."""
    paths = [Path(place).absolute() for place in places]
    folders = [next(folder for folder in (path, *path.parents) if folder.is_dir()) for path in paths]
    free = (f"{shutil.disk_usage(folder).free:,} bytes in {folder}" for folder in folders)
    return f" (free: {', '.join(free)})" if folders else ""


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


@contextmanager
def _impatient() -> Iterator[None]:
    """Make MLflow's client give up on a silent server within 15 s, where it would try for minutes."""
    names = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

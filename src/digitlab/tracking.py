"""Keep runs in MLflow: where the store is, and which run is which. Only this file and run.py import mlflow."""

import logging
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from getpass import getuser
from hashlib import sha256
from pathlib import Path
from statistics import median
from urllib.parse import urlparse
from urllib.request import url2pathname

import psutil
from filelock import FileLock, Timeout
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from digitlab import REPOSITORY
from digitlab.run import Run, this_process

OURS = f"sqlite:///{REPOSITORY / 'mlruns' / 'mlflow.db'}"
SCHEMES = ("sqlite:///", "postgresql", "mysql", "mssql", "http://", "https://")


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

    def open(self) -> None:
        """Connect, creating schema and experiment if need be; raise OSError where the store does not answer in 15 s."""
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow breaks a fresh sqlite file that several processes open at once, and for ever one that dies in it.
            with FileLock(f"{self.file}.lock"):
                if not self.file.exists():
                    self._create_schema()
                self._connect((self.file.parent / "artifacts").as_uri())
        else:
            with _impatient():
                self._connect(None)

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

    def begin(self, name: str, tags: Mapping[str, str]) -> Run:
        """Start a new run."""
        source = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "src/train.py"}
        tags = {"mlflow.user": _user(), "owner": this_process(), **source, **tags}
        return Run(self.client, self.client.create_run(self.experiment_id, run_name=name, tags=tags))

    def parent(self, sweep: str) -> Run:
        """Start the parent run of the sweep named, or reopen it."""
        fingerprint = f"sweep-{sweep}"
        done, broken = self.find(fingerprint)
        tags = {"fingerprint": fingerprint, "sweep": sweep, "mlflow.user": _user()}
        run = broken or done or self.client.create_run(self.experiment_id, run_name=sweep, tags=tags)
        return Run(self.client, run, is_monitored=False)

    def resume(self, run: entities.Run) -> Run:
        """Continue a run that is not done."""
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

    def bury(self, fingerprint: str, run: entities.Run) -> str:
        """Return the status of a run that is not done; one that its owner died over without a word becomes KILLED."""
        if run.info.status != "RUNNING":
            return run.info.status
        try:
            with self._lock(fingerprint).acquire(timeout=0):
                self.client.set_terminated(run.info.run_id, "KILLED")
                return "KILLED"
        except Timeout:
            return "RUNNING"

    @staticmethod
    def seconds(run: entities.Run) -> float:
        """Return how long a finished run took."""
        return (run.info.end_time - run.info.start_time) / 1000

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

    def _connect(self, artifacts: str | None) -> None:
        try:
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if found and found.lifecycle_stage == "deleted":
                raise ValueError(f"experiment={self.experiment}: was deleted; restore it or choose another name")
            if found and artifacts and _has_moved(found.artifact_location, artifacts):
                raise ValueError(
                    f"uri={self.uri}: was moved here from {found.artifact_location}; make relocate puts that right"
                )
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

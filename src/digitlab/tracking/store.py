"""The MLflow store of runs: find it, create it, connect to it."""

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from getpass import getuser
from pathlib import Path
from shlex import quote
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from digitlab import IS_CHECKOUT
from digitlab.platform.secrets import hide_password, redact
from digitlab.platform.signals import while_ending
from digitlab.platform.text import shorten
from digitlab.tracking import integrity, schema
from digitlab.tracking.address import ENCODED, OURS, PLAIN, address_of, file_of
from digitlab.tracking.failures import free, is_of_store, root_of
from digitlab.tracking.filesystem import check_locks

UI_PORT = 5000  # MLflow's own default
OLDEST = 3  # MLflow of a server: version 2 has no logged models
SCHEMES = (PLAIN, "postgresql", "mysql", "mssql", "http://", "https://")


class Store:
    """A store of runs: an MLflow tracking URI, by default the sqlite file in mlruns/, and one experiment in it.

    Nothing is created or changed before `open`. Raises ValueError for a URI that MLflow cannot use.
    """

    def __init__(self, uri: str | None, experiment: str):
        self.uri = uri or OURS
        hide_password(self.uri)
        self.experiment = experiment
        if not self.uri.startswith((*SCHEMES, ENCODED)):
            raise ValueError(f"uri={redact(self.uri)}: must begin with one of {', '.join(SCHEMES)}")
        self.file = file_of(self.uri)
        if self.file:
            self.file = self.file.resolve()
            if self.file.is_dir():
                raise ValueError(f"uri={self.uri}: is a folder; name the file, as in {self.uri.rstrip('/')}/mlflow.db")
            self.uri = address_of(self.file)  # a relative path would depend on the working directory

    def exists(self) -> bool:
        """Say whether the store exists; a server is assumed to."""
        return self.file is None or self.file.exists()

    def open(self, create: bool = True) -> None:
        """Connect to the store; create its schema and experiment where they are missing, upgrade an older schema.

        Raises OSError where the store is damaged or does not answer within 15 s and, without `create`, ValueError where
        it or the experiment does not exist.
        """
        if not create and not self.exists():
            raise ValueError(f"uri={self.uri}: there is no such file; no run has been recorded yet")
        _quieten()
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            check_locks(self.file)
            # A new sqlite file breaks if several processes open it at once, or if the process that opens it is killed.
            with FileLock(f"{self.file}.lock"):
                self._prepare(self.file)
                self._connect(create)
        else:
            while_ending(_SHORTEST)
            with timeouts():
                self._connect(create)

    def peek(self) -> bool:
        """Connect to the store to read it only, and write nothing; return whether there is anything to read."""
        _quieten()
        if not self.file:
            with timeouts():
                return self._find() is not None
        if not self.exists():
            return False
        if schema.is_older(self.file):
            warnings.warn(f"{self.file} is of an older MLflow: a run would upgrade it, after a copy", stacklevel=2)
            return False
        return self._find() is not None

    def check(self) -> None:
        """Raise OSError if the store is a damaged file."""
        if self.file:
            integrity.check(self.file)

    @staticmethod
    def _prepare(file: Path) -> None:
        """Bring the file of the store to where MLflow can work with it; raise OSError where it is damaged."""
        if file.exists() and file.stat().st_size:
            if schema.is_older(file):
                schema.upgrade(file)
            integrity.check_after_unclean_end(file)
            integrity.copy_daily(file)
        elif integrity.copy_of(file).exists():
            raise OSError(f"{file} is {'empty' if file.exists() else 'gone'}; {integrity.remedy(file)}")
        else:
            _create_schema(file)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn errors of MLflow or a disk into an OSError of one line: the place, the reason, the free bytes."""
        try:
            yield
        except Exception as error:
            if not is_of_store(error):
                raise
            if isinstance(error, OSError) and error.filename:
                reason, places = f"{error.filename}: {error.strerror}", [error.filename]
            else:
                inner = getattr(error.__cause__, "orig", error)  # the database's own message, without MLflow's
                reason = shorten(str(inner).partition("\n")[0]) or type(inner).__name__
                if self.file and integrity.is_damage(reason):
                    reason = f"{reason}; {integrity.remedy(self.file)}"
                reason = redact(reason if isinstance(error, OSError) else f"uri={self.uri}: {reason}")
                if isinstance(error, ModuleNotFoundError):
                    reason = f"{reason}, which the place of its artifacts needs"
                places = [self.file, tempfile.gettempdir()] if self.file else []
            raise OSError(f"{reason}{free(places)}") from error

    def run_path(self, run_id: str) -> str:
        """Return where a run is in MLflow's UI, for links from another page of it."""
        return f"#/experiments/{self.experiment_id}/runs/{run_id}"

    def run_address(self, run_id: str) -> str:
        """Return where MLflow's UI shows a run: on the server, or on this machine while `ui_hint` runs."""
        return f"{self._ui()}/{self.run_path(run_id)}"

    def experiment_address(self, port: int) -> str:
        """Return where MLflow's UI shows the runs of the experiment: on the server, or on this machine at `port`."""
        return f"{self._ui(port)}/#/experiments/{self.experiment_id}?workflowType=machine_learning"

    def _ui(self, port: int = UI_PORT) -> str:
        if self.is_server:  # without user and password: a browser asks for them
            return re.sub("//.*@", "//", self.uri).rstrip("/")
        return f"http://127.0.0.1:{port}"

    @property
    def is_server(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def ui_hint(self) -> str:
        """The command that starts the UI; "" where a server has it."""
        if self.is_server:
            return ""
        if not IS_CHECKOUT:
            return f"mlflow ui --backend-store-uri {quote(redact(self.uri))}"
        return "make ui" if self.uri == OURS else f"MLFLOW_TRACKING_URI={quote(redact(self.uri))} make ui"

    def directions(self, run_id: str) -> str:
        """Say how to see a run: its address and, before it, the command that starts the UI."""
        return ", then ".join(filter(None, (self.ui_hint, self.run_address(run_id))))

    @property
    def _artifacts(self) -> str | None:
        """Where the artifacts of a new experiment go; None where the server decides."""
        return (self.file.parent / "artifacts").as_uri() if self.file else None

    def _connect(self, create: bool) -> None:
        found = self._find()
        with self._answers():
            if not found and not create:
                names = ", ".join(sorted(each.name for each in self.client.search_experiments()))
                raise ValueError(f"experiment={self.experiment}: not found; there are: {names}")
            if not (found or self.file or self.is_server):
                raise ValueError(
                    f"uri={redact(self.uri)}: a database keeps no artifacts; give the address of a server on it, which "
                    "mlflow server --backend-store-uri=DATABASE --artifacts-destination=PLACE starts"
                )
            if not found:
                try:
                    self.experiment_id = self.client.create_experiment(self.experiment, self._artifacts)
                except MlflowException:
                    if not self._find():  # else another host has just created it
                        raise

    def _find(self) -> str | None:
        """Connect, and return the id of the experiment, if there is one."""
        with self._answers():
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if self.is_server and (version := self._server_version()) and int(version.partition(".")[0]) < OLDEST:
                raise ValueError(
                    f"uri={redact(self.uri)}: the server is of MLflow {version}, and must be of {OLDEST} or newer; on "
                    "its machine: pip install --upgrade mlflow, then mlflow db upgrade DATABASE"
                )
        if not found:
            return None
        if found.lifecycle_stage == "deleted":
            raise ValueError(f"experiment={self.experiment}: was deleted; restore it or choose another name")
        if self._artifacts and _has_moved(found.artifact_location, self._artifacts):
            raise ValueError(
                f"uri={self.uri}: was moved here from {found.artifact_location}; "
                f"{'make' if IS_CHECKOUT else 'digitlab store'} relocate repairs its paths"
            )
        if not (self.file or self.is_server) and urlparse(found.artifact_location).scheme in ("", "file"):
            warnings.warn(
                f"uri={redact(self.uri)}: the artifacts of {self.experiment} lie in {redact(found.artifact_location)}, "
                "which other hosts may not have; the address of a server on this database has no such place",
                stacklevel=2,
            )
        self.experiment_id = found.experiment_id
        return found.experiment_id

    def _server_version(self) -> str:
        """Return the version of MLflow that the server has; "" where it does not say."""
        answer = http_request(self.client._tracking_client.store.get_host_creds(), "/version", "GET")
        # A response is true where its status is below 400.
        return answer.text.strip() if answer and re.fullmatch(r"\d+\.[\w.]+\s*", answer.text) else ""

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if self.file and integrity.is_damage(str(error)):
                raise OSError(f"{self.file} is damaged; {integrity.remedy(self.file)}") from error
            reason = redact(shorten(root_of(error)))
            raise OSError(f"uri={redact(self.uri)}: the store does not answer ({reason})") from error
        except ModuleNotFoundError as error:  # of a database, whose packages are not among ours
            needed = f"needs the package {error.name}, which is not installed"
            raise ValueError(f"uri={redact(self.uri)}: {needed}") from error


def _quieten() -> None:
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # They log in many lines what `translate_errors` says in one.
    for name in ("mlflow.store.db.utils", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _create_schema(file: Path) -> None:
    """Create the schema in a temporary file, which gets its final name when it is complete."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    MlflowClient(address_of(temporary)).search_experiments()
    temporary.replace(file)


def _has_moved(there: str, here: str) -> bool:
    """Say whether the artifacts of a store are no longer at their stored path, but beside the store."""
    is_gone = there.startswith("file:") and not Path(url2pathname(urlparse(there).path)).exists()
    return is_gone and Path(url2pathname(urlparse(here).path)).exists()


def user_name() -> str:
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


@contextmanager
def timeouts(retries: int = 1, seconds: int = 5) -> Iterator[None]:
    """Let MLflow's client give up on a silent server soon, within 15 s; by default it tries for minutes."""
    names = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


_SHORTEST = partial(timeouts, retries=0, seconds=2)  # while a signal ends the program

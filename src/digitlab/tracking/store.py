"""Where runs are kept: an MLflow store, found, made and connected."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from digitlab import IS_CHECKOUT, REPOSITORY

OURS = f"sqlite:///{REPOSITORY / 'mlruns' / 'mlflow.db'}"
SCHEMES = ("sqlite:///", "postgresql", "mysql", "mssql", "http://", "https://")


class Store:
    """The place where runs are kept: an MLflow tracking URI, or the sqlite file in mlruns/; and one experiment.

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
        # They say in many lines what `translate_errors` says in one.
        for name in ("mlflow.store.db.utils", "mlflow.system_metrics"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow breaks a fresh sqlite file that several processes open at once, and for ever one that dies in it.
            with FileLock(f"{self.file}.lock"):
                if not self.file.exists():
                    _create_schema(self.file)
                self._connect((self.file.parent / "artifacts").as_uri(), create)
        else:
            with _impatient():
                self._connect(None, create)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn what MLflow or a disk fails with into an OSError of one line: the place, the reason, the bytes free."""
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                reason, places = f"{error.filename}: {error.strerror}", [error.filename]
            else:
                inner = getattr(error.__cause__, "orig", error)  # what the database said, in MLflow's many words
                reason = str(inner).partition("\n")[0][:300] or type(inner).__name__
                reason = redact(reason if isinstance(error, OSError) else f"uri={self.uri}: {reason}")
                places = [self.file, tempfile.gettempdir()] if self.file else []
            raise OSError(f"{reason}{_free(places)}") from error

    @property
    def ui_hint(self) -> str:
        """Say how a person opens the UI: an address, or the command that starts it."""
        if self.uri.startswith("http"):
            return redact(self.uri)
        if not IS_CHECKOUT:
            return f"mlflow ui --backend-store-uri {redact(self.uri)}"
        return "make ui" if self.uri == OURS else f"MLFLOW_TRACKING_URI={redact(self.uri)} make ui"

    def _connect(self, artifacts: str | None, create: bool) -> None:
        try:
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if found and found.lifecycle_stage == "deleted":
                raise ValueError(f"experiment={self.experiment}: was deleted; restore it or choose another name")
            if found and artifacts and _has_moved(found.artifact_location, artifacts):
                raise ValueError(
                    f"uri={self.uri}: was moved here from {found.artifact_location}; "
                    f"{'make' if IS_CHECKOUT else 'digitlab store'} relocate puts that right"
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


def _create_schema(file: Path) -> None:
    """Create the schema in a temporary file, which takes its name only when it is whole."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{temporary}").search_experiments()
    temporary.replace(file)


def _has_moved(there: str, here: str) -> bool:
    """Say whether a store's artifacts, which MLflow knows by their whole path, are now where the store is."""
    is_gone = there.startswith("file:") and not Path(url2pathname(urlparse(there).path)).exists()
    return is_gone and Path(url2pathname(urlparse(here).path)).exists()


def redact(text: str) -> str:
    """Hide the user and password of every address in `text`."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def _free(places: Iterable[str | Path]) -> str:
    """Say how many bytes are free in folders, or in those where files lie or would lie."""
    paths = [Path(place).absolute() for place in places]
    folders = [next(folder for folder in (path, *path.parents) if folder.is_dir()) for path in paths]
    free = (f"{shutil.disk_usage(folder).free:,} bytes in {folder}" for folder in folders)
    return f" (free: {', '.join(free)})" if folders else ""


def user_name() -> str:
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

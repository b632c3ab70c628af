"""Keep runs in MLflow: store, identity, status, points, artifacts. Only this file imports mlflow."""

import json
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
from filelock import FileLock, Timeout
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn

from digitlab import REPOSITORY

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from sqlalchemy.exc import SQLAlchemyError

OURS = f"sqlite:///{REPOSITORY / 'mlruns' / 'mlflow.db'}"
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")
BATCH = 1000  # points that one call of MLflow takes at most
SYSTEM_METRICS_EVERY = 2  # seconds
MODEL_REQUIREMENTS = ("torch", "numpy", "mlflow")


class Store:
    """The place where runs are kept: an MLflow tracking URI, or the repository's own sqlite file; and one experiment.

    Nothing is created before `open`. Raises ValueError for a URI that MLflow cannot use.
    """

    def __init__(self, uri: str | None, experiment: str):
        self.uri = uri or OURS
        self.experiment = experiment
        scheme = self.uri.partition("://")[0].partition("+")[0]
        if "://" not in self.uri or scheme not in SCHEMES:
            raise ValueError(f"uri={self.uri}: must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}")
        self.file = Path(self.uri.removeprefix("sqlite:///")).absolute() if scheme == "sqlite" else None
        if self.file:
            self.uri = f"sqlite:///{self.file}"  # a relative one would follow the working directory

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
            return self.uri
        return "make ui" if self.uri == OURS else f"MLFLOW_TRACKING_URI={self.uri} make ui"

    def find(self, fingerprint: str) -> tuple["mlflow.entities.Run | None", "mlflow.entities.Run | None"]:
        """Return the newest done run of `fingerprint`, and a newer one that is not done; None for what there is not."""
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.fingerprint = '{fingerprint}'", order_by=["attributes.start_time DESC"]
        )
        done = next((run for run in runs if is_done(run)), None)
        return done, runs[0] if runs and runs[0] is not done else None

    def begin(self, name: str, tags: Mapping[str, str]) -> "Run":
        """Start a new run."""
        tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "src/train.py", **tags}
        return Run(self, self.client.create_run(self.experiment_id, run_name=name, tags=tags))

    def resume(self, run: "mlflow.entities.Run") -> "Run":
        """Continue a run that is not done; raise OSError where its owner, on another host, may be alive."""
        host = run.data.tags.get("owner", "").partition(":")[0]
        if run.info.status == "RUNNING" and host != socket.gethostname():
            raise OSError(f"run {run.info.run_name} ({run.info.run_id}) is under way on host {host}")
        return Run(self, run)

    @contextmanager
    def owner(self, fingerprint: str) -> Iterator[None]:
        """Hold the one right on this machine to run `fingerprint`, waiting while another process has it."""
        folder = self.file.parent / "locks" if self.file else Path(tempfile.gettempdir()) / f"digitlab-{_user()}"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{sha256(self.uri.encode()).hexdigest()[:8]}-{fingerprint}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn("another process runs the same; waiting for it to end", stacklevel=2)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def history(self, run_id: str, key: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric of a run."""
        points = sorted(self.client.get_metric_history(run_id, key), key=lambda point: point.step)
        return [point.step for point in points], [point.value for point in points]

    def _connect(self, artifacts: str | None) -> None:
        try:
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if found and found.lifecycle_stage == "deleted":
                raise ValueError(f"experiment={self.experiment}: was deleted; restore it or choose another name")
            self.experiment_id = (
                found.experiment_id if found else self.client.create_experiment(self.experiment, artifacts)
            )
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise OSError(f"uri={self.uri}: the store does not answer ({str(error).splitlines()[0][:200]})") from error

    def _create_schema(self) -> None:
        """Create the schema in a temporary file, which takes its name only when it is whole."""
        temporary = self.file.with_name(f".{self.file.name}.new")
        temporary.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{temporary}").search_experiments()
        temporary.replace(self.file)


class Run:
    """One run under way: a context manager that leaves MLflow with the right status, and the writers of its record."""

    def __init__(self, store: Store, run: "mlflow.entities.Run"):
        self.store, self.client, self.id, self.name = store, store.client, run.info.run_id, run.info.run_name
        self.artifacts = run.info.artifact_uri
        self.is_local = urlparse(self.artifacts).scheme in ("", "file")
        self.logger = RunLogger(self)
        if self.is_local:
            self.checkpoints = Path(url2pathname(urlparse(self.artifacts).path)) / "checkpoints"
        else:  # a server keeps them; this folder is where they are written and read
            folder = tempfile.mkdtemp(prefix="digitlab-")
            with suppress(MlflowException):  # a new run has none
                download_artifacts(run_id=self.id, artifact_path="checkpoints", dst_path=folder, tracking_uri=store.uri)
            self.checkpoints = Path(folder) / "checkpoints"

    def __enter__(self) -> "Run":
        self.client.update_run(self.id, status="RUNNING")
        self.client.set_tag(self.id, "owner", f"{socket.gethostname()}:{os.getpid()}")
        self.monitor = SystemMetricsMonitor(
            self.id, SYSTEM_METRICS_EVERY, resume_logging=True, tracking_uri=self.store.uri
        )
        self.monitor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _) -> None:
        self.monitor.finish()
        if error is None:
            self.logger.save()
            self.client.set_terminated(self.id, "FINISHED")
            self.client.set_tag(self.id, "done", "true")
        else:
            with suppress(MlflowException, OSError):  # what happened matters more than that it cannot be written down
                self.logger.save()
                self.client.set_tag(self.id, "error", f"{kind.__name__}: {error}"[:5000])
                was_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                self.client.set_terminated(self.id, "KILLED" if was_stopped else "FAILED")
        if not self.is_local:
            shutil.rmtree(self.checkpoints.parent, ignore_errors=True)

    def log_params(self, params: Mapping[str, str]) -> None:
        """Record the parameters that the run does not have yet: MLflow takes none twice, and a resumed run has some."""
        known = self.client.get_run(self.id).data.params
        entities = [Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(entities), 100):
            self.client.log_batch(self.id, params=entities[start : start + 100])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_text(self, text: str, file: str) -> None:
        self.client.log_text(self.id, text, file)

    def log_figure(self, figure: Any, file: str) -> None:
        self.client.log_figure(self.id, figure, file)

    def log_arrays(self, file: str, **arrays: np.ndarray) -> None:
        """Record arrays as one compressed npz file."""
        with tempfile.TemporaryDirectory() as folder:
            np.savez_compressed(Path(folder) / file, **arrays)
            self.client.log_artifact(self.id, Path(folder) / file)

    def log_dataset(self, name: str, digest: str, sizes: Mapping[str, int], source: str) -> None:
        """Record the data that the run reads as a tracked input."""
        dataset = Dataset(name, digest, "local", json.dumps({"uri": source}), profile=json.dumps(sizes))
        context = InputTag("mlflow.data.context", ", ".join(sizes))
        self.client.log_inputs(self.id, [DatasetInput(dataset, [context])])

    def log_model(self, predictor: nn.Module, example: np.ndarray) -> None:
        """Record the model as a LoggedModel without pickle: uint8 images (N, H, W) in, class probabilities out."""
        import torch

        with torch.no_grad():
            predictor = predictor.eval().cpu()
            output = predictor(torch.from_numpy(example)).numpy()
        requirements = [f"{name}=={_version(name)}" for name in MODEL_REQUIREMENTS]
        mlflow.set_tracking_uri(self.store.uri)
        with mlflow.start_run(self.id):
            mlflow.pytorch.log_model(
                predictor,
                name="model",
                signature=infer_signature(example, output),
                input_example=example,
                pip_requirements=requirements,
                serialization_format="pt2",
            )

    def locate(self, file: str) -> str:
        """Return where an artifact of the run is to be found."""
        return str(self.checkpoints.parent / file) if self.is_local else f"{self.artifacts}/{file}"

    def share_checkpoints(self) -> None:
        """Copy the checkpoints to where the store keeps artifacts, if that is elsewhere."""
        if not self.is_local:
            self.client.log_artifacts(self.id, self.checkpoints, "checkpoints")

    def keep_only(self, checkpoint: str) -> None:
        """Delete every checkpoint but the one named."""
        for file in self.checkpoints.iterdir():
            if file.name != checkpoint:
                file.unlink()
                if not self.is_local:
                    get_artifact_repository(self.artifacts).delete_artifacts(f"checkpoints/{file.name}")


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, but buffered, silent about the run's status, and blind to points already stored."""

    def __init__(self, run: Run):
        super().__init__(tracking_uri=run.store.uri, run_id=run.id)
        self.run = run
        self.points: list[Metric] = []
        recorded = run.client.get_run(run.id).data.metrics
        self.stored = {key: run.store.history(run.id, key)[0][-1] for key in recorded}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        now, step = int(time() * 1000), step or 0
        self.points += [
            Metric(key, float(value), now, step)
            for key, value in metrics.items()
            if key != "epoch" and step > self.stored.get(key, -1)  # Lightning adds epoch; here steps are epochs
        ]
        if len(self.points) >= BATCH:
            self.save()

    def save(self) -> None:
        """Write what is buffered."""
        while self.points:
            self.run.client.log_batch(self.run.id, metrics=self.points[:BATCH])
            del self.points[:BATCH]

    def finalize(self, status: str = "success") -> None:
        self.save()  # the status is the Run's to set: after fit come the test and the artifacts

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.run.share_checkpoints()


def is_done(run: "mlflow.entities.Run") -> bool:
    """Say whether a run came to its end; FINISHED alone does not mean it, for MLflow says so of some crashes."""
    return run.info.status == RunStatus.to_string(RunStatus.FINISHED) and run.data.tags.get("done") == "true"


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


def _user() -> str:
    from getpass import getuser

    return getuser()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package).partition("+")[0]

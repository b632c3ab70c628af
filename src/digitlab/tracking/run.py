"""One run in progress in MLflow: its status, points, checkpoints and artifacts."""

import errno
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient, entities
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from torch import nn

from digitlab.platform import disk
from digitlab.platform.process import owner_tags, this_process
from digitlab.platform.secrets import redact
from digitlab.platform.text import printable
from digitlab.tracking.address import file_of
from digitlab.tracking.deferred import DeferredClient
from digitlab.tracking.delivery import ONE_CALL, Delivery
from digitlab.tracking.flavor import log_model, prepare_model
from digitlab.tracking.journal import MOST, Journal, folder_of
from digitlab.tracking.lease import TakenOverError
from digitlab.tracking.logger import RunLogger
from digitlab.tracking.monitor import DeferredMetrics
from digitlab.tracking.store import timeouts
from digitlab.tracking.tags import remove_tag
from digitlab.tracking.uploads import Uploads

SYSTEM_METRICS_EVERY = 2  # seconds
MODEL_REQUIREMENTS = ("torch", "numpy", "mlflow")


class Run:
    """One run in progress: a context manager that sets its status in MLflow, with methods to record its results."""

    def __init__(self, client: MlflowClient, run: entities.Run, is_monitored: bool = True):
        self.is_monitored, self.had_error = is_monitored, "error" in run.data.tags
        self.seconds = float(run.data.tags.get("seconds", 0))
        self.client, self.uri = client, client.tracking_uri
        self.id, self.name, self.artifacts = run.info.run_id, run.info.run_name, str(run.info.artifact_uri)
        self.experiment_id = run.info.experiment_id
        self.is_local = urlparse(self.artifacts).scheme in ("", "file")
        self.files: dict[str, Callable[[], None] | None] = {}  # what it must have when it is done, and what writes it
        self.run, self.is_shared = run, is_monitored and not file_of(self.uri)
        self.without_model = ""  # why no LoggedModel is recorded

    def __enter__(self) -> "Run":
        self.began = monotonic()
        with ExitStack() as undo:
            try:
                journal = self._defer(undo) if self.is_shared else None
            except OSError as error:  # there is no room for it
                self._fail(error)
                raise
            undo.push(self._finish)
            if self.is_local:
                folder = Path(url2pathname(str(urlparse(self.artifacts).path)))
                _check_place(folder)
            elif journal:
                folder = journal.folder / "run"
            else:
                temporary = tempfile.TemporaryDirectory(prefix="digitlab-", ignore_cleanup_errors=True)
                folder = Path(undo.enter_context(temporary))
            self.checkpoints = folder / "checkpoints"
            if not self.is_local:
                self.uploads = Uploads(self.client, self.id, self.artifacts, folder)
                with timeouts(retries=5, seconds=60):
                    self.uploads.fetch()
            if not self.is_shared:  # else whoever created it or took it over has done so
                self.client.update_run(self.id, status="RUNNING")
                self.log_tags(owner_tags(self.run.data.tags))
            if self.had_error:  # of the interrupted attempt
                remove_tag(self.client, self.id, "error")
            self.logger = RunLogger(self.client, self.id, self._last_steps())
            if self.is_monitored:
                monitor = self._monitor()
                undo.callback(monitor.finish)
                monitor.start()
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.undo.__exit__(*error)

    def _defer(self, undo: ExitStack) -> Journal:
        """Let all that the run writes to its server wait in a journal, from where a thread delivers it."""
        about = {"run": self.id, "owner": this_process(), "fingerprint": self.run.data.tags.get("fingerprint", "")}
        journal = Journal(folder_of(self.uri, self.id, about["owner"]), about)
        delivery = Delivery(self.client, self.run.info, journal)
        undo.enter_context(timeouts(**ONE_CALL))
        self.client = DeferredClient(self.client, self.run, journal, delivery.check)
        undo.push(delivery.leave)
        delivery.start()
        return journal

    def _monitor(self) -> SystemMetricsMonitor:
        if self.is_shared:
            return DeferredMetrics(self.client, self.id, SYSTEM_METRICS_EVERY, self.run.data._metric_objs)
        return SystemMetricsMonitor(self.id, SYSTEM_METRICS_EVERY, resume_logging=True, tracking_uri=self.uri)

    def _finish(self, _, error: BaseException | None, __) -> None:
        if error:
            self._fail(error)
            return
        try:
            self.flush()
            self._complete()
            self._log_seconds()
            self.client.set_terminated(self.id, "FINISHED")
            self.client.set_tag(self.id, "done", "true")
        except BaseException as late:
            self._fail(late)
            raise

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, TakenOverError):  # what is written from now on is the other's
            return
        if isinstance(self.client, DeferredClient):
            self.client.is_ending = True
        with suppress(MlflowException, OSError):  # `error` itself is what the user must see
            was_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            self.client.set_terminated(self.id, "KILLED" if was_stopped else "FAILED")
            self.client.set_tag(self.id, "error", redact(f"{type(error).__name__}: {error}")[:5000])
            self._log_seconds()

    def _log_seconds(self) -> None:
        """Record how long the run has taken, over all its starts except those ended by SIGKILL."""
        self.client.set_tag(self.id, "seconds", f"{self.seconds + monotonic() - self.began:.1f}")

    def flush(self) -> None:
        """Write the points that wait; raise TakenOverError where the run is another process's by now."""
        if isinstance(self.client, DeferredClient):
            self.client.check()
        self.logger.flush()

    def _last_steps(self) -> dict[str, int]:
        """Return the last step of each recorded metric, without MLflow's system metrics."""
        recorded = self.client.get_run(self.id).data.metrics
        return {key: self.history(key)[0][-1] for key in recorded if not key.startswith("system/")}

    def history(self, key: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric."""
        points = sorted(self.client.get_metric_history(self.id, key), key=lambda point: point.step)
        return [point.step for point in points], [point.value for point in points]

    def log_params(self, params: Mapping[str, str]) -> None:
        """Record the parameters that the run does not have yet; MLflow refuses to change those of a resumed run."""
        known = self.client.get_run(self.id).data.params
        entities = [Param(key, printable(redact(value))) for key, value in params.items() if key not in known]
        for start in range(0, len(entities), MOST["params"]):
            self.client.log_batch(self.id, params=entities[start : start + MOST["params"]])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self.client.log_batch(self.id, tags=[RunTag(key, printable(redact(value))) for key, value in tags.items()])

    def log_text(self, text: str, file: str) -> None:
        self._write(file, partial(self.client.log_text, self.id, redact(text), file))

    def log_bytes(self, content: bytes, file: str) -> None:
        def write() -> None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / file).write_bytes(content)
                self.client.log_artifact(self.id, str(Path(folder) / file))

        self._write(file, write)

    def log_figure(self, figure: Any, file: str) -> None:
        self._write(file, partial(self.client.log_figure, self.id, figure, file))

    def _write(self, file: str, write: Callable[[], None]) -> None:
        write()
        self.files[file] = write

    def _complete(self) -> None:
        """Write what somebody has removed since it was written; raise OSError where that is not possible."""
        missing = self._missing()
        for file in missing:
            if write := self.files[file]:
                warnings.warn(f"{self.locate(file)} was removed; it is written again", stacklevel=2)
                write()
        for file in self._missing() if missing else ():
            reason = "was removed; the same command makes it again"
            raise OSError(errno.ENOENT, reason, self.locate(file))

    def _missing(self) -> list[str]:
        if self.is_shared:  # what a server has taken is its own to keep
            return []
        if self.is_local:
            paths = {file: self.checkpoints.parent / file for file in self.files}
            return [file for file, path in paths.items() if not (path.is_file() and path.stat().st_size)]
        folders = {file.rpartition("/")[0] for file in self.files}
        there = {each.path for folder in folders for each in self.client.list_artifacts(self.id, folder or None)}
        return [file for file in self.files if file not in there]

    def log_arrays(self, file: str, **arrays: np.ndarray) -> None:
        """Record arrays as one compressed npz file."""
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        self.log_bytes(content.getvalue(), file)

    def log_dataset(self, name: str, digest: str, sizes: Mapping[str, int], source: str) -> None:
        """Record the data as an input of the run."""
        dataset = Dataset(name, digest[:12], "local", json.dumps({"uri": redact(source)}), profile=json.dumps(sizes))
        context = InputTag("mlflow.data.context", ", ".join(sizes))
        self.client.log_inputs(self.id, [DatasetInput(dataset, [context])])

    def log_model(
        self, name: str, predictor: nn.Module, example: np.ndarray, step: int, classes: Sequence[str], **more: Any
    ) -> None:
        """Record the model of `step` as a LoggedModel, without pickle.

        `predictor` maps uint8 images (N, H, W), of which `example` is some, to class probabilities (N, num_classes).
        Its metadata are `classes` and what `more` there is to know, in plain values.
        Do nothing where the run is `without_model`. Raises OSError where the temporary folder is too small.
        """
        self.model = name
        if self.without_model:
            return
        self.delete_models()  # made by this run before it was interrupted
        with torch.no_grad():
            predictor = predictor.eval().cpu()
            output = predictor(torch.from_numpy(example)).numpy()
        requirements = [f"{package}=={version(package).partition('+')[0]}" for package in MODEL_REQUIREMENTS]
        folder, size = tempfile.gettempdir(), sum(tensor.nbytes for tensor in predictor.state_dict().values())
        if shutil.disk_usage(folder).free < size + 2**20:  # torch.export would abort the whole process
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
        settings = {
            "run_id": self.id,  # and not within mlflow.start_run, which calls the run FINISHED where it ends
            "signature": infer_signature(example, output),
            "input_example": example,
            "pip_requirements": requirements,
            "metadata": {"classes": list(classes), **more},
            "serialization_format": "pt2",
        }
        if isinstance(self.client, DeferredClient):
            with tempfile.TemporaryDirectory() as folder:
                prepare_model(predictor, Path(folder) / "model", **settings)
                self.client.log_saved_model(Path(folder) / "model", name, step)
            return
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(experiment_id=self.experiment_id)
        # The step links the model to its metrics; the default is the untrained network's.
        log_model(predictor, name, step=step, **settings)

    def delete_models(self) -> None:
        """Delete the run's LoggedModels, whole or not; in a journal the next model does that."""
        if isinstance(self.client, DeferredClient):
            return
        for model in self.client.search_logged_models([self.experiment_id], f"source_run_id = '{self.id}'"):
            self.client.delete_logged_model(model.model_id)

    def locate(self, file: str) -> str:
        """Return the path or URI of an artifact of the run."""
        return str(self.checkpoints.parent / file) if self.is_local else f"{self.artifacts}/{file}"

    def share_checkpoints(self, newest: str) -> None:
        """Upload the checkpoint `newest`, and what changed of a user's own, if the store keeps artifacts elsewhere."""
        if not self.is_local:
            self.uploads.share(newest)

    def keep_only(self, checkpoint: str) -> None:
        """Delete every checkpoint except the one named."""
        self.files[f"checkpoints/{checkpoint}"] = None
        if not self.is_local:
            self.uploads.keep_only(checkpoint)
            return
        disk.keep_only(self.checkpoints, checkpoint)


def _check_place(folder: Path) -> None:
    """Raise OSError where a file, or a link to the folder of another run, is in the place of a run's folder."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise OSError(errno.ENOTDIR, "is not a folder, and the run's files belong there: move it away", str(folder))
    root, real = folder.parents[1].resolve(), folder.resolve()
    if real.is_relative_to(root) and real != root / folder.parent.name / folder.name:
        raise OSError(errno.ELOOP, f"leads into {real}, where another run's files are: remove the link", str(folder))

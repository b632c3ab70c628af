"""Lightning's MLflow logger, with a buffer."""

import warnings
from collections.abc import Callable, Mapping
from time import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from pytorch_lightning.loggers import MLFlowLogger

from digitlab.tracking.journal import MOST

ATTEMPTS = 6  # to write points while the store's file is locked; MLflow waits for 20 s in each


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, but buffered; it does not set the run's status or store a point twice.

    Values that callbacks and metrics log through Lightning get the step that `step_of_metrics` returns, because
    Lightning's own step counts its batches.
    """

    step_of_metrics: Callable[[], int]

    def __init__(self, client: MlflowClient, run_id: str, stored: Mapping[str, int]):
        """Take as `stored` the last stored step of each metric."""
        super().__init__(tracking_uri=client.tracking_uri, run_id=run_id)
        self.client, self.id, self.stored = client, run_id, stored
        self.points: list[Metric] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values, now = dict(metrics), int(time() * 1000)
        if values.pop("epoch", None) is not None:  # Lightning adds it to what callbacks and metrics log
            step = self.step_of_metrics()
        step = step or 0
        self.points += [
            Metric(key, float(value), now, step) for key, value in values.items() if step > self.stored.get(key, -1)
        ]
        if len(self.points) >= MOST["metrics"]:
            self.flush()

    def save(self) -> None:
        """Do nothing: Lightning calls this after every value, and a write may take longer than a step."""

    def flush(self) -> None:
        """Write the buffer; wait, with a warning, while another process has the store's file locked."""
        attempts_left = ATTEMPTS
        while self.points:
            try:
                some = self.points[: MOST["metrics"]]
                self.client.log_batch(self.id, metrics=some)  # MLflow stores a repeated point once
                del self.points[: len(some)]
            except MlflowException as error:
                attempts_left -= 1
                if not attempts_left or "database is locked" not in str(error):
                    raise
                warnings.warn("another process has the store's file locked; trying again", stacklevel=2)

    def finalize(self, status: str = "success") -> None:
        """Write the buffer. The status is not set here, because the test and the artifacts follow after fit."""
        if status == "success":  # otherwise the current epoch is trained again, and gives the same points
            self.flush()

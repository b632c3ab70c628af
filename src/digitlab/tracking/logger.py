"""Lightning's MLflow logger, buffered."""

import warnings
from collections.abc import Callable, Mapping
from time import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from pytorch_lightning.loggers import MLFlowLogger

BATCH = 1000  # points that one call of MLflow takes at most
ATTEMPTS = 6  # to write points while the store's file is locked, each of the 20 s that MLflow waits


class RunLogger(MLFlowLogger):
    """Lightning's MLflow logger, but buffered, silent about the run's status, and blind to points already stored.

    What callbacks and metrics log through Lightning goes to the step that `step_of_metrics` gives, for Lightning's own
    counts its batches.
    """

    step_of_metrics: Callable[[], int]

    def __init__(self, client: MlflowClient, run_id: str, stored: Mapping[str, int]):
        """Take the last step of each metric that is `stored`."""
        super().__init__(tracking_uri=client.tracking_uri, run_id=run_id)
        self.client, self.id, self.stored = client, run_id, stored
        self.points: list[Metric] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values, now = dict(metrics), int(time() * 1000)
        if values.pop("epoch", None) is not None:  # which Lightning adds to what others log
            step = self.step_of_metrics()
        step = step or 0
        self.points += [
            Metric(key, float(value), now, step) for key, value in values.items() if step > self.stored.get(key, -1)
        ]
        if len(self.points) >= BATCH:
            self.flush()

    def save(self) -> None:
        """Do nothing: Lightning asks for it after every value, and a write takes longer than many a step."""

    def flush(self) -> None:
        """Write what is buffered, waiting while another process holds the store's file."""
        attempts_left = ATTEMPTS
        while self.points:
            try:
                self.client.log_batch(self.id, metrics=self.points[:BATCH])  # the same twice is stored once
                del self.points[:BATCH]
            except MlflowException as error:
                attempts_left -= 1
                if not attempts_left or "database is locked" not in str(error):
                    raise
                warnings.warn("another process holds the store's file; trying again", stacklevel=2)

    def finalize(self, status: str = "success") -> None:
        """Write what is buffered; the status is the Run's to set: after fit come the test and the artifacts."""
        if status == "success":  # else the epoch under way is trained again, and gives the same points
            self.flush()

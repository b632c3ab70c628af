"""What is looked at while a run goes on: the machine."""

from collections.abc import Sequence
from time import time

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

PATIENCE = 1  # seconds that the end of a run waits for a value that is being read


class DeferredMetrics(SystemMetricsMonitor):
    """MLflow's system metrics for a server: they wait for it with all else, and hold up the end of no run."""

    def __init__(self, client: MlflowClient, run_id: str, interval: int, recorded: Sequence[Metric]):
        super().__init__(run_id, interval, tracking_uri=client.tracking_uri)
        self.client = client
        steps = [each.step for each in recorded if each.key.startswith(self._metrics_prefix)]
        self._logging_step = max(steps, default=-1) + 1

    def monitor(self) -> None:
        while not self._shutdown_event.is_set():
            for _ in range(self.samples_before_logging):
                self.collect_metrics()
                self._shutdown_event.wait(self.sampling_interval)
            try:
                self.publish_metrics(self.aggregate_metrics())
            except (MlflowException, OSError, SystemExit):  # the run meets it too, and says it
                return

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        now, step = int(time() * 1000), self._logging_step
        points = [Metric(f"{self._metrics_prefix}{key}", value, now, step) for key, value in metrics.items()]
        self.client.log_batch(self._run_id, points)
        self._logging_step += 1
        for each in self.monitors:
            each.clear_metrics()

    def finish(self) -> None:
        self._shutdown_event.set()
        if self._process:
            self._process.join(PATIENCE)

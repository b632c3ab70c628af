"""What is looked at while a run goes on: the machine, and whether the server answers."""

from contextlib import suppress
from http import HTTPStatus
from threading import Event, Thread
from time import monotonic

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.rest_utils import http_request

from digitlab.platform import console

OUTAGE = 10  # seconds without an answer until it is said
PATIENCE = 1  # seconds that the end of a run waits for a value that is being written


class PatientMetrics(SystemMetricsMonitor):
    """MLflow's system metrics for a server: they go on after an outage, and hold up the end of no run."""

    def monitor(self) -> None:
        while not self._shutdown_event.is_set():
            self.collect_metrics()
            self._shutdown_event.wait(self.sampling_interval)
            try:
                self.publish_metrics(self.aggregate_metrics())
            except Exception:  # what was not written is written with the next, which is of another step
                self._logging_step += 1

    def finish(self) -> None:
        self._shutdown_event.set()
        if self._process:
            self._process.join(PATIENCE)
            if not self._process.is_alive():
                super().finish()


class OutageWatch:
    """Say in one line, while this is entered, that the server does not answer, and in another that it does again."""

    def __init__(self, client: MlflowClient, run_id: str):
        self.run_id, self._over = run_id, Event()
        self.credentials = getattr(client._tracking_client.store, "get_host_creds", None)  # only a server has them

    def __enter__(self) -> "OutageWatch":
        if self.credentials:
            Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()

    def _watch(self) -> None:
        answered, is_told = monotonic(), False
        while not self._over.wait(OUTAGE / 4):
            if self._answers():
                if is_told:
                    console.say("the server answers again")
                answered, is_told = monotonic(), False
            elif monotonic() - answered >= OUTAGE and not (is_told or self._over.is_set()):
                console.warn("the server does not answer; the run waits for it, for some minutes")
                is_told = True

    def _answers(self) -> bool:
        assert self.credentials
        once = {"max_retries": 0, "timeout": OUTAGE / 4}
        with suppress(MlflowException, OSError):
            asked = {"run_id": self.run_id}
            answer = http_request(self.credentials(), "/api/2.0/mlflow/runs/get", "GET", params=asked, **once)
            return answer is not None and answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
        return False

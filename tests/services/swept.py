"""A sweep as jobs of a cluster, and what is left of it."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress

import psutil
from cluster import Cluster
from conftest import Harness
from fault_run import SETTINGS, Oracle
from outages import Outcome, points_differ
from program import Program, processes

SHORT = "trainer.max_epochs=80"


class Swept:
    """A sweep of `cells` on a cluster, with its own store."""

    def __init__(self, harness: Harness, cluster: Cluster, *cells: str):
        self.harness, self.cluster = harness, cluster
        folder = f"hydra.launcher.submitit_folder={harness.folder}/jobs/%j"
        self.arguments = ("-m", *SETTINGS, SHORT, *cells, "sweep.name=s", "hydra/launcher=slurm", folder)
        self.arguments += ("hydra.launcher.cpus_per_task=4", "hydra.launcher.mem_gb=4")
        self.began = time.monotonic()

    def start(self, *more: str) -> Program:
        return Program(self.harness, *self.arguments, *more)

    def wait_for(self, condition: Callable[[], object], driver: Program | None = None, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (driver.output() if driver else "") + str(self.cluster.jobs())
            time.sleep(0.2)

    def trained(self) -> list[str]:
        """Return the jobs of the runs that have trained some epochs."""
        runs = [
            run for run in self.harness.cells() if run.info.status == "RUNNING" and run.data.metrics.get("val/loss")
        ]
        return sorted(run.data.tags["job"] for run in runs if len(self.harness.history(run, "val/loss")) > 3)

    def hold(self, count: int = 1) -> dict[str, psutil.Process]:
        """Stop as many jobs once each has trained: on a fast machine they end before the test has looked at them."""
        held = {}

        def are_held() -> bool:
            for job in set(self.trained()) - set(held):
                process = self.process(job)
                process.suspend()
                if self._is_writable():
                    held[job] = process
                else:
                    process.resume()
            return len(held) >= count

        self.wait_for(are_held)
        return dict(sorted(held.items()))

    def _is_writable(self) -> bool:
        """Say whether no process, a stopped one above all, is in the middle of writing to the store."""
        with closing(sqlite3.connect(self.harness.folder / "mlflow.db", timeout=0)) as database:
            with suppress(sqlite3.OperationalError):
                database.execute("BEGIN IMMEDIATE")
            return database.in_transaction

    def wait(self, driver: Program) -> int:
        """Wait for its end; jobs that were queued again start at once, not two minutes later."""
        deadline = time.monotonic() + 800
        while driver.process.poll() is None and time.monotonic() < deadline:
            for job, state in self.cluster.jobs().items():
                if state == "PENDING":
                    self.cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(1)
        return driver.wait(1)

    def log(self, job: str) -> str:
        """Return what a job has printed."""
        (file,) = self.harness.folder.glob(f"jobs/*/{job}_0_log.out")
        return file.read_text()

    def not_continued(self, job: str) -> str:
        """Say what is wrong where a job that was queued again has not continued its run."""
        log = self.log(job)
        return "" if log.count("continuing ") == 1 and log.count("after epoch ") == 1 else log

    def process(self, job: str) -> psutil.Process:
        """Return the process that trains."""

        def trains(process: psutil.Process) -> bool:
            words, variables = process.cmdline(), process.environ()
            array = (variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID"))
            own = "_".join(array) if all(array) else variables.get("SLURM_JOB_ID")
            return "submitit.core._submit" in words and "python" in words[0] and own == job

        return processes(trains)[0]

    def outcome(self, code: int, oracle: Oracle, *wrong: str, count: int = 2, seconds: float = 0) -> Outcome:
        seconds = seconds or time.monotonic() - self.began
        lost, twice, running, found = points_differ(self.harness.client, "digitlab", oracle, count)
        return Outcome(code, lost, twice, running, seconds, (*found, *filter(None, wrong)))

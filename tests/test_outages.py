"""A store that is away for a while: locked by another process, or a server that goes and comes back."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import requests
from bench import Bench, ordeal

pytestmark = pytest.mark.slow


def lock(database: Path, seconds: float) -> None:
    """Hold the store's file as another process would, for a while."""
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("begin exclusive")
    threading.Timer(seconds, connection.close).start()


LOCKS = {
    "points:before#3": (1, 15, 25, 60),
    "running:before#1": (25,),
    "text:before#1": (25,),
    "terminate:before#1": (25,),
    "done:before#1": (25,),
}


def test_a_store_locked_by_another_process_costs_no_point_and_no_epoch(tmp_path, oracle):
    cases = [(point, seconds) for point, times in LOCKS.items() for seconds in times]

    def one(case: tuple[str, int]) -> list[str]:
        point, seconds = case
        bench = Bench(tmp_path / f"{point}-{seconds}")
        wrong = ordeal(bench, oracle, f"STOP@{point}", meanwhile=lambda: lock(bench.database, seconds))
        if point.startswith("points") and "is done already" not in bench.says:
            wrong.append("training did not go on")
        return wrong

    with ThreadPoolExecutor(len(cases)) as pool:  # they do nothing but wait
        found = dict(zip(cases, pool.map(one, cases), strict=True))
    assert {case: wrong for case, wrong in found.items() if wrong} == {}


class Server:
    """MLflow's tracking server on a bench's store, artifacts included."""

    def __init__(self, bench: Bench):
        self.bench = bench
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        bench.uri = f"http://127.0.0.1:{self.port}"
        with closing(sqlite3.connect(bench.database)) as connection, connection:
            connection.execute("update experiments set artifact_location = 'mlflow-artifacts:/'")

    def start(self) -> None:
        store = self.bench.database
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}",
             "--artifacts-destination", self.bench.folder / "artifacts", "--host", "127.0.0.1",
             "--port", str(self.port), "--workers", "1"],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                requests.get(f"{self.bench.uri}/health", timeout=2).raise_for_status()
                return
            except requests.RequestException:
                time.sleep(0.3)
        pytest.fail("the server does not come up")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_a_server_that_is_gone_for_30_seconds_costs_no_point_and_no_epoch(tmp_path, oracle):
    bench = Bench(tmp_path / "run")
    server = Server(bench)
    server.start()

    def go_and_come_back() -> None:
        server.stop()
        threading.Timer(30, server.start).start()

    try:
        assert ordeal(bench, oracle, "STOP@points:before#3", meanwhile=go_and_come_back) == []
        assert "is done already" in bench.says
    finally:
        server.stop()

"""Outages of the store: a file that another process locks for a while, a server that stops and starts again."""

import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fault_run import FaultRun, Oracle, check_fault
from servers import tracking_server

pytestmark = pytest.mark.slow


def lock(database: Path, seconds: float) -> None:
    """Lock the store's file for some seconds, as another process would."""
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


def locked(run: FaultRun, oracle: Oracle, point: str, seconds: float) -> list[str]:
    wrong = check_fault(run, oracle, f"STOP@{point}", meanwhile=lambda: lock(run.database, seconds))
    if point.startswith("points") and "is done already" not in run.output:
        wrong.append("training did not go on")
    return wrong


def without_server(run: FaultRun, oracle: Oracle, seconds: float) -> list[str]:
    server = tracking_server(run.database, run.folder / "artifacts")
    run.uri = server.uri
    with closing(sqlite3.connect(run.database)) as connection, connection:
        connection.execute("update experiments set artifact_location = 'mlflow-artifacts:/'")

    def restart_later() -> None:
        server.stop()
        threading.Timer(seconds, server.start).start()

    with server:
        wrong = check_fault(run, oracle, "STOP@points:before#3", meanwhile=restart_later)
        return wrong if "is done already" in run.output else [*wrong, "training did not go on"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, oracle) -> dict[str, Future]:
    """What is wrong after each outage. All run at once, because they mostly wait."""
    with ThreadPoolExecutor(20) as pool:
        locks = {
            f"{point} {seconds} s": pool.submit(
                locked, FaultRun(tmp_path_factory.mktemp("locked") / "run"), oracle, point, seconds
            )
            for point, times in LOCKS.items()
            for seconds in times
        }
        server = pool.submit(without_server, FaultRun(tmp_path_factory.mktemp("x") / "run"), oracle, 30)
        return locks | {"server": server}


def test_no_point_or_epoch_is_lost_while_another_process_locks_the_store(outcomes):
    found = {name: outcome.result() for name, outcome in outcomes.items() if name != "server"}
    assert len(found) == 8
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_no_point_or_epoch_is_lost_while_the_server_is_down_for_30_seconds(outcomes):
    assert outcomes["server"].result() == []

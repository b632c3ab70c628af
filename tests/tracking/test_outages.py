"""A store that is away for a while: locked by another process, or a server that goes and comes back."""

import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fault_run import Bench, Oracle, fault_run
from servers import tracking_server

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


def locked(bench: Bench, oracle: Oracle, point: str, seconds: float) -> list[str]:
    wrong = fault_run(bench, oracle, f"STOP@{point}", meanwhile=lambda: lock(bench.database, seconds))
    if point.startswith("points") and "is done already" not in bench.says:
        wrong.append("training did not go on")
    return wrong


def deserted(bench: Bench, oracle: Oracle, seconds: float) -> list[str]:
    server = tracking_server(bench.database, bench.folder / "artifacts")
    bench.uri = server.uri
    with closing(sqlite3.connect(bench.database)) as connection, connection:
        connection.execute("update experiments set artifact_location = 'mlflow-artifacts:/'")

    def go_and_come_back() -> None:
        server.stop()
        threading.Timer(seconds, server.start).start()

    with server:
        wrong = fault_run(bench, oracle, "STOP@points:before#3", meanwhile=go_and_come_back)
        return wrong if "is done already" in bench.says else [*wrong, "training did not go on"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, oracle) -> dict[str, Future]:
    """What is wrong after each outage: they run all at once, for they do nothing but wait."""
    with ThreadPoolExecutor(20) as pool:
        locks = {
            f"{point} {seconds} s": pool.submit(
                locked, Bench(tmp_path_factory.mktemp("locked") / "run"), oracle, point, seconds
            )
            for point, times in LOCKS.items()
            for seconds in times
        }
        server = pool.submit(deserted, Bench(tmp_path_factory.mktemp("x") / "run"), oracle, 30)
        return locks | {"server": server}


def test_a_store_locked_by_another_process_costs_no_point_and_no_epoch(outcomes):
    found = {name: outcome.result() for name, outcome in outcomes.items() if name != "server"}
    assert len(found) == 8
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_server_that_is_gone_for_30_seconds_costs_no_point_and_no_epoch(outcomes):
    assert outcomes["server"].result() == []

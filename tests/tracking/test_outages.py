"""Outages of the store: a file that another process locks for a while, a server that stops and starts again."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_run import FaultRun, Oracle, check_fault
from outages import SCENARIOS, Outcome, check, play, printed
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


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, oracle) -> dict[str, Future]:
    """What is wrong after each outage. All run at once, because they mostly wait."""
    with ThreadPoolExecutor(20) as pool:
        return {
            f"{point} {seconds} s": pool.submit(
                locked, FaultRun(tmp_path_factory.mktemp("locked") / "run"), oracle, point, seconds
            )
            for point, times in LOCKS.items()
            for seconds in times
        }


def test_no_point_or_epoch_is_lost_while_another_process_locks_the_store(outcomes):
    found = {name: outcome.result() for name, outcome in outcomes.items()}
    assert len(found) == 8
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, oracle) -> dict[str, Outcome]:
    """What each failure of a server came to. Some run at once, because they mostly wait."""
    folder = tmp_path_factory.mktemp("served")
    with tracking_server(folder / "db.sqlite", folder / "kept") as server, ThreadPoolExecutor(8) as pool:
        found = {
            each.name: pool.submit(play, each, server.uri, folder / f"run-{number}", oracle)
            for number, each in enumerate(SCENARIOS)
        }
        return {name: outcome.result() for name, outcome in found.items()}


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, Outcome]]:
    with printed() as rows:
        yield rows


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_a_run_outlives_its_server(ended, scenario, rows):
    check(rows, scenario.name, ended[scenario.name])

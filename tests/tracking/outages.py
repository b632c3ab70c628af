"""Runs on a server that fails in mid-run, and what is left of each: a row of the table in docs/reliability.md."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fault_run import LEAN, REPOSITORY, TIMES, FaultRun, Oracle
from mlflow import MlflowClient
from proxy import WAYS, Proxy

IN_EPOCH_3, AT_END = "points:before#3", "epoch:after#4"
FAILS = 8  # seconds
HEADINGS = ("what fails", "exit code", "lost", "twice", "left RUNNING", "seconds")


@dataclass(frozen=True)
class Scenario:
    """A fault of the server, in `way` for `seconds` from a `point` on; then the same command is given again."""

    name: str
    way: str = "gone"
    where: str = ""
    seconds: float | None = FAILS  # None: until the command has ended
    point: str = IN_EPOCH_3
    fault: str = ""  # what happens to the run itself meanwhile
    code: int = 0
    line: str = ""  # what the run says
    syncs: bool = False  # `digitlab store sync` is given before the same command


@dataclass(frozen=True)
class Outcome:
    code: int
    lost: int
    twice: int
    running: int
    seconds: float
    wrong: tuple[str, ...]


ARTIFACTS = "mlflow-artifacts"
WAITS = "what the run recorded waits in"
SCENARIOS = (
    Scenario("server gone for 5 s", seconds=5),
    Scenario("server gone for 60 s", seconds=60, line="warning: the server does not answer"),
    Scenario("server gone for good", seconds=None, code=1, line=WAITS),
    Scenario("server gone for good, then sync", seconds=None, code=1, line=WAITS, syncs=True),
    *(Scenario(f"answers {way} for {FAILS} s", way) for way in WAYS if way != "gone"),
    Scenario("artifacts refused while a checkpoint is written", "refused", r"PUT .*\.ckpt"),
    Scenario("artifacts refused at the end", "refused", ARTIFACTS, point=AT_END),
    Scenario("artifacts gone for good", "gone", ARTIFACTS, None, code=1, line=WAITS),
    Scenario("kill -9 while the server is gone", seconds=None, fault="KILL@epoch:after#3", code=-9),
    Scenario("kill -9 while the server is gone, then sync", seconds=None, fault="KILL@epoch:after#3", code=-9,
             syncs=True),
    Scenario("Ctrl-C while the server is gone", seconds=None, fault="INT@epoch:after#3", code=130, line=WAITS),
    Scenario("Ctrl-C while the server is silent", "silent", seconds=None, fault="INT@epoch:after#3", code=130,
             line=WAITS),
    Scenario("the answer to the creation of the run lost", "lost", "POST .*/runs/create", 1, point="create:before#1"),
)  # fmt: skip


class OnServer(FaultRun):
    """A run in its own experiment on a server, and commands beside it with the same `environment`."""

    def __init__(self, folder: Path, uri: str, environment: Mapping[str, str] = {}, changes: Iterable[str] = ()):
        super().__init__(folder, [*LEAN, *changes])
        self.uri, self.experiment, self.environment = uri, folder.name, dict(environment)

    def command(self, *words: str) -> subprocess.CompletedProcess:
        places = {"MLFLOW_TRACKING_URI": self.uri, "DIGITLAB_JOURNAL": f"{self.folder}/journal", "PYTHONPATH": "src"}
        environment = os.environ | self.environment | places
        return subprocess.run([sys.executable, *words], cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def play(
    scenario: Scenario, uri: str, folder: Path, oracle: Oracle, restart: Callable[[], None] | None = None
) -> Outcome:
    """Run a scenario on the server at `uri` and say what is left; `restart` takes the place of a proxy's fault."""
    wrong = []
    with Proxy(uri) as proxy:
        run = OnServer(folder, proxy.uri, changes=["hooks:end_soon_without_server"])

        def fail() -> None:
            if restart:
                threading.Thread(target=restart).start()
                return
            proxy.way, proxy.where = scenario.way, scenario.where
            if scenario.seconds:
                threading.Timer(scenario.seconds, recover).start()

        def recover() -> None:
            proxy.way = ""

        began = time.monotonic()
        try:
            code = run.execute(f"STOP@{scenario.point};{scenario.fault}".rstrip(";"), meanwhile=fail)
        except AssertionError as error:  # it does not end; the other scenarios go on
            return Outcome(-1, 0, 0, 0, time.monotonic() - began, (str(error),))
        seconds = time.monotonic() - began
        recover()
        if code != scenario.code:
            wrong.append(f"exit code {code}: {run.output[-300:]}")
        if scenario.line and sum(scenario.line in line for line in run.output.splitlines()) != 1:
            wrong.append(f"not one line with {scenario.line!r}: {run.output[-600:]}")
        if "Traceback" in run.output:
            wrong.append(f"a traceback: {run.output[-2000:]}")
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(run.experiment)
        assert experiment
        if scenario.syncs:
            told = run.command("-m", "digitlab", "store", "sync")
            said = told.stdout + told.stderr
            if "is complete: " not in said:
                wrong.append(f"sync: {said}")
            wrong += ["RUNNING after sync" for each in _runs(client, experiment) if each.info.status == "RUNNING"]
        if run.execute() or (not scenario.fault and "is done already" not in run.output):
            wrong.append(f"the same command: {run.output[-300:]}")
        left = [*(folder / "journal").rglob("*.*"), *(folder / "tmp").rglob("*.ckpt")]
        wrong += [f"left: {each}" for each in left]
        lost, more, running, others = points_differ(client, run.experiment, oracle)
        return Outcome(code, lost, more, running, seconds, (*wrong, *others))


def points_differ(client: MlflowClient, name: str, oracle: Oracle, count: int = 1) -> tuple[int, int, int, list[str]]:
    """Return how many points the runs of an experiment lack, and have besides, how many runs are RUNNING, and what else
    is wrong: there must be `count` runs like the oracle's, done.
    """
    experiment = client.get_experiment_by_name(name)
    assert experiment
    found = [each for each in _runs(client, experiment) if not each.data.tags["fingerprint"].startswith("sweep-")]
    states = [(each.info.status, each.data.tags.get("done")) for each in found]
    wrong = [] if states == [("FINISHED", "true")] * count else [f"runs: {states}"]
    expected = Counter((key, step, value) for key, step, value, _ in oracle.points)
    lost = more = 0
    for each in found:
        points = Counter(_points(client, each.info.run_id))
        lost, more = lost + (expected - points).total(), more + (points - expected).total()
    return lost, more, sum(status == "RUNNING" for status, _ in states), wrong


def _runs(client: MlflowClient, experiment) -> list:
    return client.search_runs([experiment.experiment_id])


def _points(client: MlflowClient, run_id: str) -> list[tuple[str, int, float]]:
    keys = [key for key in client.get_run(run_id).data.metrics if not TIMES.match(key)]
    return [(key, point.step, point.value) for key in keys for point in client.get_metric_history(run_id, key)]


def check(outcomes: dict[str, Outcome], name: str, outcome: Outcome) -> None:
    """Note what a scenario came to; nothing may be lost of it."""
    outcomes[name] = outcome
    assert outcome.wrong == ()
    assert (outcome.lost, outcome.twice, outcome.running) == (0, 0, 0)


@contextmanager
def printed(what: str = HEADINGS[0]) -> Iterator[dict[str, Outcome]]:
    """Collect what each scenario came to; at the end print it as the table of docs/reliability.md."""
    outcomes: dict[str, Outcome] = {}
    yield outcomes
    print(f"\n{table(outcomes, what)}")


def table(outcomes: dict[str, Outcome], what: str = HEADINGS[0]) -> str:
    """Return the outcomes as a table of Markdown."""
    rows = [(what, *HEADINGS[1:]), ("---",) * len(HEADINGS)]
    rows += [
        (name, str(each.code), str(each.lost), str(each.twice), str(each.running), f"{each.seconds:.0f}")
        for name, each in outcomes.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

"""A bench for one small run: start it with a fault, look at what it left, start it again, and say what is wrong.

What is right is taken from a run that nothing happened to, and read without MLflow or digitlab: from the files alone.
"""

import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import hooks
import psutil
import pytest
from content import digest, read
from disks import Disks, enter_namespace

from digitlab.tracking.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
EPOCHS = 4
SETTINGS = (
    "data=mnist5k", "trainer=cpu", f"trainer.max_epochs={EPOCHS}", "optim=adam", "optim.lr=0.2", "scheduler=cosine",
    "data.batch_size=500", "data.steps_per_execution=1", "model=mlp", "model.hidden=[{units: 8, dropout: 0.2}]",
)  # fmt: skip
PRELOAD = (
    "digitlab.training.run",
    "digitlab.sweep.execute",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.pytorch",
    "mlxtend",
)
LEAN = ("hooks:skip_pictures",)
NAMES = ("last", "previous", "best")
TIMES = re.compile(r"time/|images_per_s|system/")  # what no two runs have alike


def _child(
    folder: Path, fault: str, arguments: list[str], changes: list[str], environment: dict[str, str], keeper: int | None
) -> None:
    os.setsid()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # MLflow behaves otherwise in its presence
    os.environ.update(environment)
    tempfile.tempdir = None
    trace = os.open(folder / "trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if keeper:
        enter_namespace(keeper)
    hooks.main(fault, trace, arguments, changes)


@cache
def empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Store(f"sqlite:///{folder}/mlflow.db", "digitlab").open()
        return Path(folder, "mlflow.db").read_bytes()


class Bench:
    """A store in a folder of its own, and the starts of one run on it."""

    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported everything
    # Every start reads the exit codes of processes that ended; where another thread reads the same one, it is told 255.
    reading = threading.Lock()

    def __init__(
        self,
        folder: Path,
        changes: Iterable[str] = LEAN,
        disks: Disks | None = None,
        place: str = "",
    ):
        """Lay an empty store, which takes a second to make, into `folder`; let `place` in it be one of `disks`."""
        self.folder, self.changes = folder, list(changes)
        self.disks = disks
        for name in ("tmp", "artifacts", "store"):
            (folder / name).mkdir(parents=True)
        if disks:
            disks.mount(folder / place)
        self.database = self.seen(folder / "store" / "mlflow.db")
        prepared = folder / "prepared.db"
        prepared.write_bytes(empty_store())
        with closing(sqlite3.connect(prepared)) as connection, connection:
            connection.execute("update experiments set artifact_location = ?", [(folder / "artifacts").as_uri()])
        shutil.move(prepared, self.database)
        self.uri = f"sqlite:///{folder / 'store' / 'mlflow.db'}"
        self.context.set_forkserver_preload(list(PRELOAD))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests' / 'faults'}")
            patch.setenv("OMP_NUM_THREADS", "1")
            forkserver.ensure_running()

    def seen(self, path: Path) -> Path:
        return self.disks.seen(path) if self.disks else path

    def start(self, fault: str = "", *overrides: str) -> BaseProcess:
        (self.folder / "trace").write_text("")
        environment = {"MLFLOW_TRACKING_URI": self.uri, "TMPDIR": f"{self.folder}/tmp"}
        keeper = self.disks and self.disks.keeper.pid
        arguments = (self.folder, fault, [*SETTINGS, *overrides], self.changes, environment, keeper)
        process = self.context.Process(target=_child, args=arguments)
        with self.reading:
            process.start()
        return process

    def run(self, fault: str = "", *overrides: str, meanwhile: Callable[[], None] | None = None) -> int:
        """Start, wait for the end and return the exit code; do something `meanwhile`, where the fault is to STOP."""
        process = self.start(fault, *overrides)
        if meanwhile:
            while fault.partition("@")[2] not in self.trace or psutil.Process(process.pid).status() != "stopped":
                assert not wait([process.sentinel], 0.01), self.says
            meanwhile()
            os.kill(process.pid, signal.SIGCONT)
        assert wait([process.sentinel], 300), self.says
        with self.reading:
            process.join()
        return process.exitcode

    @property
    def says(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def trace(self) -> list[str]:
        """The points that the newest start passed."""
        file = self.folder / "trace"
        return file.read_text().split() if file.exists() else []

    @property
    def saves(self) -> int:
        """How many times the newest start had finished to save an epoch."""
        return sum(point.startswith("name-last:after") for point in self.trace)

    def ask(self, question: str) -> list[tuple]:
        with tempfile.TemporaryDirectory() as folder:  # sqlite takes no path into a namespace
            for file in self.database.parent.glob("mlflow.db*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder, "mlflow.db"))) as connection:
                return connection.execute(question).fetchall()

    def runs(self) -> dict[str, tuple[str, bool]]:
        """Status of each run, and whether it is tagged done."""
        done = {run for (run,) in self.ask("select run_uuid from tags where key = 'done' and value = 'true'")}
        return {run: (status, run in done) for run, status in self.ask("select run_uuid, status from runs")}

    def points(self) -> list[tuple[str, int, float, bool]]:
        """Every point but those of time and machine: key, step, value, whether it is no number."""
        rows = self.ask("select key, step, value, is_nan from metrics order by key, step, value")
        return [row for row in rows if not TIMES.match(row[0])]

    @property
    def checkpoints(self) -> Path:
        (run,) = self.runs()
        return self.seen(self.folder / "artifacts") / run / "artifacts" / "checkpoints"

    def saved(self) -> dict[str, dict | None]:
        """The content of each checkpoint by name; None for one that does not read back."""
        files = {name: self.checkpoints / f"{name}.ckpt" for name in NAMES} if self.runs() else {}
        return {name: read(file) for name, file in files.items() if file.exists()}


class Oracle:
    """What a run comes to that nothing happens to."""

    def __init__(self, folder: Path, changes: Iterable[str] = LEAN, overrides: Iterable[str] = ()):
        self.bench = Bench(folder / "run", [*changes, "hooks:keep_every_epoch"])
        assert self.bench.run("", *overrides) == 0, self.bench.says
        self.points = self.bench.points()
        self.trace = self.bench.trace
        kept = self.bench.checkpoints.with_name("epochs")
        self.epochs = {digest(read(file)): int(file.stem) for file in kept.iterdir()}
        (self.tested,) = self.bench.saved().items()

    def epoch(self, checkpoint: dict | None) -> int:
        """Which epoch's checkpoint this is, to the last bit; 0 for none."""
        return self.epochs.get(digest(checkpoint), 0)

    def faults(self, bench: Bench, at_least: int) -> list[str]:
        """Say what a start that was broken off may not leave: lost or damaged checkpoints, lost points, a false end."""
        wrong = []
        saved = bench.saved()
        epochs = {name: self.epoch(checkpoint) for name, checkpoint in saved.items()}
        wrong += [f"I1: {name} is not what an epoch gives" for name, epoch in epochs.items() if not epoch]
        is_tested = any(row[0] == "test/acc" for row in bench.points())  # then its weights are all it needs
        if max(epochs.values(), default=0) < (self.epoch(self.tested[1]) if is_tested else at_least):
            wrong.append(f"I2: {at_least} epochs were saved, {epochs} are there")
        for name, epoch in epochs.items():
            expected = {row for row in self.points if row[1] <= epoch and row[0] in ("train/loss", "val/loss")}
            if expected - set(bench.points()):
                wrong.append(f"I6: {name} is of epoch {epoch}, whose points are not all there")
        wrong += self._structure(bench)
        if len(bench.runs()) > 1:
            wrong.append(f"I5: {len(bench.runs())} runs")
        return wrong

    def remains(self, bench: Bench) -> list[str]:
        """Say how a run that came to its end differs from one that nothing happened to."""
        wrong = self._structure(bench)
        if list(bench.runs().values()) != [("FINISHED", True)]:
            wrong.append(f"I5: {bench.runs()}")
            return wrong
        name, checkpoint = self.tested
        files = sorted(file.name for file in bench.checkpoints.iterdir())
        if files != [f"{name}.ckpt"]:
            wrong.append(f"I8: {files} in the checkpoints")
        if digest(bench.saved().get(name)) != digest(checkpoint):
            wrong.append("I3: other weights")
        if bench.points() != self.points:
            wrong.append(f"I6: points differ: {sorted(set(bench.points()) ^ set(self.points))[:4]}")
        repeated = bench.ask("select key, step from metrics group by run_uuid, key, step having count(*) > 1")
        wrong += [f"I6: twice: {each}" for each in repeated]
        wrong += [f"I8: {file.name} is left" for file in bench.database.parent.glob(".mlflow.db*")]
        return wrong

    @staticmethod
    def _structure(bench: Bench) -> list[str]:
        wrong = []
        if bench.ask("pragma integrity_check") != [("ok",)]:
            wrong.append("I7: the database is damaged")
        known = {run for (run,) in bench.ask("select run_uuid from runs")} | {"models"}
        folders = {each.name for each in bench.seen(bench.folder / "artifacts").iterdir()}
        wrong += [f"I7: a folder of no run: {each}" for each in folders - known]
        return wrong


def fault_run(
    bench: Bench,
    oracle: Oracle,
    fault: str = "",
    meanwhile: Callable[[], None] | None = None,
    mend: Callable[[], None] | None = None,
) -> list[str]:
    """Start with a fault, start again when it is mended, and say what is wrong with what came of it."""
    code = bench.run(fault, meanwhile=meanwhile)
    for each in fault.split(";"):
        place = each.partition("@")[2]
        if place and place not in bench.trace:
            return [f"{place} was not reached: {bench.says[-300:]}"]
    wrong = []
    if code or not (meanwhile or mend):
        wrong = [f"after the fault: {each}" for each in oracle.faults(bench, at_least=bench.saves)]
        wrong += _manners(bench, fault, code)
    saves = bench.saves
    (bench.folder / "trace").rename(bench.folder / "first-trace")
    print(f"{fault or bench.folder}: exit code {code} after {saves} saves: {(bench.says.splitlines() or [''])[-1]}")
    if mend:
        mend()
    code = bench.run()
    if code:
        return [*wrong, f"I8: starting again ends with {code}: {bench.says[-300:]}"]
    if saves + bench.saves > EPOCHS:
        wrong.append(f"I4: {saves} epochs had been saved, {bench.saves} were trained again")
    return wrong + [f"after the recovery: {each}" for each in oracle.remains(bench)]


def _manners(bench: Bench, fault: str, code: int) -> list[str]:
    """Say what is wrong with how a start ended that `fault` happened to: exit code, last words, status."""
    action = re.split("[*@]", fault)[0]
    codes = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130}
    status = {"KILL": {"RUNNING"}, "TERM": {"KILLED"}, "INT": {"KILLED"}}.get(action, {"FAILED"})
    if not action or action == "STOP":
        status = {"FAILED", "RUNNING"}  # which could not be written
    wrong = [] if code == codes.get(action, 1) else [f"I8: exit code {code}"]
    if any(done for _, done in bench.runs().values()) and "@done:after" not in fault:
        wrong.append("I5: tagged done")
    found = {each for each, _ in bench.runs().values()}
    if found - status and "@terminate:after" not in fault and "@done" not in fault:
        wrong.append(f"I5: status {found}, not {status}")
    if action in codes or action == "MemoryError":
        return wrong
    last = (bench.says.splitlines() or [""])[-1]
    if not re.fullmatch(r"error: .* \(free: [\d,]+ bytes in /.*\)", last):
        wrong.append(f"not one line that names a place and its free bytes: {bench.says[-300:]}")
    if "Traceback" in bench.says:
        wrong.append(f"a traceback: {bench.says[-2000:]}")
    return wrong

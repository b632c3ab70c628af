"""Run a small training run with a fault, check what is left, start it again, and list what is wrong.

The expected results are those of a run without a fault. They are read from its files, without MLflow or digitlab.
What is wrong is named by the guarantee that it breaks: I1 every checkpoint is that of an epoch, I2 no saved epoch is
lost, I3 the weights are as expected, I4 no saved epoch is trained again, I5 there is one run with the right status,
I6 every metric point is there once, I7 database and folders are intact, I8 exit codes are right and no file is left.
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
TIMES = re.compile(r"time/|images_per_s|system/")  # metrics that differ between any two runs


def _child(
    folder: Path, fault: str, arguments: list[str], changes: list[str], environment: dict[str, str], keeper: int | None
) -> None:
    os.setsid()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # MLflow behaves differently under pytest
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


class FaultRun:
    """A store in its own folder, and one run on it, which can be started several times."""

    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported everything
    # Every start collects the exit codes of ended processes; a second thread that collects the same one gets 255.
    reading = threading.Lock()

    def __init__(
        self,
        folder: Path,
        changes: Iterable[str] = LEAN,
        disks: Disks | None = None,
        place: str = "",
    ):
        """Copy an empty store into `folder`; mount one of `disks` at the subfolder `place`."""
        self.folder, self.changes = folder, list(changes)
        self.environment: dict[str, str] = {}
        self.experiment = ""
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
        places = {"TMPDIR": f"{self.folder}/tmp", "DIGITLAB_JOURNAL": f"{self.folder}/journal"}
        environment = {"MLFLOW_TRACKING_URI": self.uri, **places, **self.environment}
        keeper = self.disks and self.disks.keeper.pid
        experiment = [f"tracking.experiment={self.experiment}"] if self.experiment else []
        arguments = (self.folder, fault, [*SETTINGS, *overrides, *experiment], self.changes, environment, keeper)
        process = self.context.Process(target=_child, args=arguments)
        with self.reading:
            process.start()
        return process

    def execute(self, fault: str = "", *overrides: str, meanwhile: Callable[[], None] | None = None) -> int:
        """Start, wait for the end and return the exit code; call `meanwhile` while a STOP fault holds the process."""
        process, place = self.start(fault, *overrides), fault.partition(";")[0].partition("@")[2]
        if meanwhile:
            while place not in self.trace or psutil.Process(process.pid).status() != "stopped":
                assert not wait([process.sentinel], 0.01), self.output
            meanwhile()
            os.kill(process.pid, signal.SIGCONT)
        assert wait([process.sentinel], 300), self.output
        with self.reading:
            process.join()
        return process.exitcode

    @property
    def output(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def trace(self) -> list[str]:
        """The points that the newest start passed."""
        file = self.folder / "trace"
        return file.read_text().split() if file.exists() else []

    @property
    def saves(self) -> int:
        """How many epochs the newest start saved completely."""
        return sum(point.startswith("name-last:after") for point in self.trace)

    def ask(self, question: str) -> list[tuple]:
        with tempfile.TemporaryDirectory() as folder:  # sqlite cannot open a path in another namespace
            for file in self.database.parent.glob("mlflow.db*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder, "mlflow.db"))) as connection:
                return connection.execute(question).fetchall()

    def runs(self) -> dict[str, tuple[str, bool]]:
        """Status of each run, and whether it is tagged done."""
        done = {run for (run,) in self.ask("select run_uuid from tags where key = 'done' and value = 'true'")}
        return {run: (status, run in done) for run, status in self.ask("select run_uuid, status from runs")}

    def points(self) -> list[tuple[str, int, float, bool]]:
        """Every point except those of time and system metrics: key, step, value, whether it is nan."""
        rows = self.ask("select key, step, value, is_nan from metrics order by key, step, value")
        return [row for row in rows if not TIMES.match(row[0])]

    @property
    def checkpoints(self) -> Path:
        (run,) = self.runs()
        return self.seen(self.folder / "artifacts") / run / "artifacts" / "checkpoints"

    def saved(self) -> dict[str, dict | None]:
        """The content of each checkpoint by name; None for a damaged one."""
        files = {name: self.checkpoints / f"{name}.ckpt" for name in NAMES} if self.runs() else {}
        return {name: read(file) for name, file in files.items() if file.exists()}


class Oracle:
    """The results of a run without a fault."""

    def __init__(self, folder: Path, changes: Iterable[str] = LEAN, overrides: Iterable[str] = ()):
        self.run = FaultRun(folder / "run", [*changes, "hooks:keep_every_epoch"])
        assert self.run.execute("", *overrides) == 0, self.run.output
        self.points = self.run.points()
        self.trace = self.run.trace
        kept = self.run.checkpoints.with_name("epochs")
        self.epochs = {digest(read(file)): int(file.stem) for file in kept.iterdir()}
        (self.tested,) = self.run.saved().items()

    def epoch(self, checkpoint: dict | None) -> int:
        """Return the epoch whose checkpoint is bit-identical to this one; 0 for none."""
        return self.epochs.get(digest(checkpoint), 0)

    def check_interrupted(self, run: FaultRun, at_least: int) -> list[str]:
        """List what is wrong after an interrupted start: lost or damaged checkpoints, lost points, a false status."""
        wrong = []
        saved = run.saved()
        epochs = {name: self.epoch(checkpoint) for name, checkpoint in saved.items()}
        wrong += [f"I1: {name} is not what an epoch gives" for name, epoch in epochs.items() if not epoch]
        is_tested = any(row[0] == "test/acc" for row in run.points())  # then only the tested weights are needed
        if max(epochs.values(), default=0) < (self.epoch(self.tested[1]) if is_tested else at_least):
            wrong.append(f"I2: {at_least} epochs were saved, {epochs} are there")
        for name, epoch in epochs.items():
            expected = {row for row in self.points if row[1] <= epoch and row[0] in ("train/loss", "val/loss")}
            if expected - set(run.points()):
                wrong.append(f"I6: {name} is of epoch {epoch}, whose points are not all there")
        wrong += self._structure(run)
        if len(run.runs()) > 1:
            wrong.append(f"I5: {len(run.runs())} runs")
        return wrong

    def check_finished(self, run: FaultRun) -> list[str]:
        """List how a finished run differs from one without a fault."""
        wrong = self._structure(run)
        if list(run.runs().values()) != [("FINISHED", True)]:
            wrong.append(f"I5: {run.runs()}")
            return wrong
        name, checkpoint = self.tested
        files = sorted(file.name for file in run.checkpoints.iterdir())
        if files != [f"{name}.ckpt"]:
            wrong.append(f"I8: {files} in the checkpoints")
        if digest(run.saved().get(name)) != digest(checkpoint):
            wrong.append("I3: other weights")
        if run.points() != self.points:
            wrong.append(f"I6: points differ: {sorted(set(run.points()) ^ set(self.points))[:4]}")
        repeated = run.ask("select key, step from metrics group by run_uuid, key, step having count(*) > 1")
        wrong += [f"I6: twice: {each}" for each in repeated]
        wrong += [f"I8: {file.name} is left" for file in run.database.parent.glob(".mlflow.db*")]
        return wrong

    @staticmethod
    def _structure(run: FaultRun) -> list[str]:
        wrong = []
        if run.ask("pragma integrity_check") != [("ok",)]:
            wrong.append("I7: the database is damaged")
        known = {run_id for (run_id,) in run.ask("select run_uuid from runs")} | {"models"}
        folders = {each.name for each in run.seen(run.folder / "artifacts").iterdir()}
        wrong += [f"I7: a folder of no run: {each}" for each in folders - known]
        return wrong


def check_fault(
    run: FaultRun,
    oracle: Oracle,
    fault: str = "",
    meanwhile: Callable[[], None] | None = None,
    repair: Callable[[], None] | None = None,
) -> list[str]:
    """Start with a fault, repair it, start again, and list what is wrong after each start."""
    code = run.execute(fault, meanwhile=meanwhile)
    for each in fault.split(";"):
        place = each.partition("@")[2]
        if place and place not in run.trace:
            return [f"{place} was not reached: {run.output[-300:]}"]
    wrong = []
    if code or not (meanwhile or repair):
        wrong = [f"after the fault: {each}" for each in oracle.check_interrupted(run, at_least=run.saves)]
        wrong += _check_exit(run, fault, code)
    saves = run.saves
    (run.folder / "trace").rename(run.folder / "first-trace")
    print(f"{fault or run.folder}: exit code {code} after {saves} saves: {(run.output.splitlines() or [''])[-1]}")
    if repair:
        repair()
    code = run.execute()
    if code:
        return [*wrong, f"I8: starting again ends with {code}: {run.output[-300:]}"]
    if saves + run.saves > EPOCHS:
        wrong.append(f"I4: {saves} epochs had been saved, {run.saves} were trained again")
    return wrong + [f"after the recovery: {each}" for each in oracle.check_finished(run)]


def _check_exit(run: FaultRun, fault: str, code: int) -> list[str]:
    """List what is wrong with the exit of a start with `fault`: exit code, last line, status."""
    action = re.split("[*@]", fault)[0]
    codes = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130}
    status = {"KILL": {"RUNNING"}, "TERM": {"KILLED"}, "INT": {"KILLED"}}.get(action, {"FAILED"})
    if not action or action == "STOP":
        status = {"FAILED", "RUNNING"}  # the status itself could not be written
    wrong = [] if code == codes.get(action, 1) else [f"I8: exit code {code}"]
    if any(done for _, done in run.runs().values()) and "@done:after" not in fault:
        wrong.append("I5: tagged done")
    found = {each for each, _ in run.runs().values()}
    if found - status and "@terminate:after" not in fault and "@done" not in fault:
        wrong.append(f"I5: status {found}, not {status}")
    if action in codes or action == "MemoryError":
        return wrong
    last = (run.output.splitlines() or [""])[-1]
    if not re.fullmatch(r"error: .* \(free: [\d,]+ bytes(, but no more files,)? in /.*\)", last):
        wrong.append(f"not one line that names a place and its free bytes: {run.output[-300:]}")
    if "Traceback" in run.output:
        wrong.append(f"a traceback: {run.output[-2000:]}")
    return wrong

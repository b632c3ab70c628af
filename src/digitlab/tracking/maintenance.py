"""Maintain a store that is a file: check and restore it, repair its paths after a move, remove what no run needs."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from digitlab.platform.secrets import redact
from digitlab.platform.text import last_line, shorten
from digitlab.tracking import copy, delivery, integrity, schema
from digitlab.tracking.failures import is_of_store, root_of
from digitlab.tracking.store import Store

# Where MLflow stores absolute paths.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
BY_A_SERVER = {  # what to do about a store that is not a file here
    "relocate": "nothing to do here, for only the server knows where its artifacts lie",
    "gc": "on its machine, mlflow gc --backend-store-uri DATABASE --artifacts-destination PLACE --tracking-uri ADDRESS "
    "removes the runs that were deleted",
    "check": "its database has tools of its own, on its machine; digitlab report says whether it answers",
    "restore": "its database is restored on its machine, from the backup that is made there",
}
READY = 2  # MLflow's LoggedModelStatus


def relocate(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Change the stored paths of all artifacts after the store was moved; yield lines that say what was changed.

    It is one transaction, for a dry run on a copy in memory. Raises OSError where there is no store, it is not a file,
    it is damaged, or a run is in progress.
    """
    file = _sound(store, "relocate")
    here = (file.parent / "artifacts").as_uri()
    changed = 0
    with nullcontext() if is_dry else _no_runs(file), _database(file, is_dry) as database:
        database.execute("begin immediate")
        elsewhere = "select distinct artifact_location from experiments where artifact_location like 'file:%/artifacts'"
        for (there,) in [row for row in database.execute(elsewhere) if row[0] != here]:
            yield f"from {there} to {here}"
            for table, column in LOCATIONS:
                moved = database.execute(
                    f"update {table} set {column} = :here || substr({column}, length(:there) + 1)"
                    f" where {column} = :there or substr({column}, 1, length(:there) + 1) = :there || '/'",
                    {"here": here, "there": there},
                ).rowcount
                changed += moved
                if moved:
                    yield f"{moved:>6} {table}.{column}"
        database.execute("commit")
    if not changed:
        yield f"nothing to do: the paths in the store are right, {here}"


def collect_garbage(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Remove deleted runs, models that are incomplete or of deleted runs, artifacts without a run, and unused locks.

    Yields a line for each. Raises OSError where there is no store, it is not a file, it is damaged, or a run is in
    progress.
    """
    file = _sound(store, "gc")
    artifacts = file.parent / "artifacts"
    before = _size(file.parent)
    with nullcontext() if is_dry else _no_runs(file):
        with closing(sqlite3.connect(file)) as database:
            deleted = dict(database.execute("select run_uuid, name from runs where lifecycle_stage = 'deleted'"))
            runs = {run for (run,) in database.execute("select run_uuid from runs")}
            models = database.execute(
                "select model_id, name, source_run_id, status, lifecycle_stage from logged_models"
            ).fetchall()
            useless = {
                model: name
                for model, name, run, status, stage in models
                if stage == "deleted" or status != READY or run in deleted or (run and run not in runs)
            }
            known = {model for model, *_ in models}
        yield from (f"deleted run {name} ({run})" for run, name in deleted.items())
        yield from (f"model {name} ({model}), incomplete or of a deleted run" for model, name in useless.items())
        if not is_dry and (deleted or useless):
            with closing(sqlite3.connect(file)) as database, database:
                mark = "update logged_models set lifecycle_stage = 'deleted' where model_id = ?"
                database.executemany(mark, [(model,) for model in useless])
            gc = ["gc", "--backend-store-uri", store.uri, "--tracking-uri", store.uri]
            done = subprocess.run([sys.executable, "-m", "mlflow", *gc], check=False, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"{file}: mlflow gc: {last_line(done.stderr)}")
        orphans = [folder for folder in artifacts.glob("?" * 32) if folder.name not in runs]
        orphans += [folder for folder in artifacts.glob("models/m-*") if folder.name not in known]
        yield from (f"artifacts without a run: {folder}" for folder in orphans)
        locks = list((artifacts.parent / "locks").glob("*.lock"))
        if locks:
            yield f"{len(locks)} locks that nobody holds"
        if not (deleted or useless or orphans or locks):
            yield "nothing to remove"
        elif not is_dry:
            left = [artifacts / run for run in deleted] + [artifacts / "models" / model for model in useless]
            for folder in (*orphans, *left):
                shutil.rmtree(folder, ignore_errors=True)
            for lock in locks:
                lock.unlink(missing_ok=True)
            yield f"{(before - _size(file.parent)) / 1e6:.1f} MB freed"


def check(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Read the whole store; yield lines on it and its daily copy. Raises OSError where it is damaged or not a file."""
    file = _file(store, "check")
    integrity.check(file, "integrity_check")
    older = ", of an older MLflow: a run will upgrade it" if schema.is_older(file) else ""
    with closing(sqlite3.connect(file)) as database:
        (runs,) = database.execute("select count(*) from runs").fetchone()
    yield f"{file}: sound, {runs:,} runs, {file.stat().st_size / 1e6:.1f} MB{older}"
    copy = integrity.copy_of(file)
    if copy.exists():
        integrity.check(copy)
        yield f"{copy}: sound, of {integrity.date(copy)}"
    else:
        yield "no daily copy yet: the next run makes one"


def restore(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Put the daily copy in the place of a store that is damaged or gone; yield lines that say what was done.

    Raises OSError where the store is sound, is not a file or has no sound copy, or a run is in progress.
    """
    file = _file(store, "restore", must_exist=False)
    copy = integrity.copy_of(file)
    if not copy.exists():
        raise OSError(f"{copy} does not exist: there is no copy of the store")
    integrity.check(copy)
    with nullcontext() if is_dry else _no_runs(file):
        if is_there := file.exists() and file.stat().st_size > 0:
            try:
                integrity.check(file)
            except OSError:
                pass
            else:
                raise OSError(
                    f"{file} is sound; move it away to restore its copy of {integrity.date(copy)} all the same"
                )
        if is_there:
            kept = integrity.free_name(file, "damaged")
            yield f"the damaged file is kept as {kept}"
            if not is_dry:
                for part in (*integrity.side_files(file), file):  # what they hold belongs to the damaged file
                    part.rename(f"{kept}{part.name.removeprefix(file.name)}")
        if not is_dry:
            integrity.copy_to(copy, file)
            integrity.forget_unclean_ends(file)
        yield f"{file} is as it was on {integrity.date(copy)}"
        with closing(sqlite3.connect(copy)) as database:
            known = {run for (run,) in database.execute("select run_uuid from runs")}
        unknown = sum(folder.name not in known for folder in (file.parent / "artifacts").glob("?" * 32))
        if unknown:
            yield f"{unknown} later runs are not in it; their commands train them again, and gc removes their files"


def sync(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Complete the runs that ended here while their server was away; yield lines on them.

    Raises OSError where the store is a file, or the server takes nothing.
    """
    if store.file:
        raise OSError("sync: the store is a file, so nothing waits for it; MLFLOW_TRACKING_URI names a server")
    store.peek()
    done = False
    for line in delivery.sync(store):
        done = True
        yield line
    if not done:
        yield "nothing waits for the server"


def copy_to(store: Store, address: str) -> Iterator[str]:
    """Copy all runs of the experiment, and their registered models, to the store at `address`; yield lines on them."""
    target = Store(address, store.experiment)
    if target.uri == store.uri:
        raise OSError(f"--to={redact(address)}: is the store itself")
    store.open(create=False)
    with target.translate_errors():
        target.open()
    try:
        yield from copy.copy(store, target)
    except Exception as error:
        if not is_of_store(error):
            raise
        between = redact(f"from {store.uri} to {target.uri}")
        raise OSError(f"{between}: {redact(shorten(root_of(error)))}") from error


def _file(store: Store, task: str, must_exist: bool = True) -> Path:
    if store.file is None:
        raise OSError(f"{task}: the store is a server's: {BY_A_SERVER[task]}")
    if must_exist and not store.exists():
        raise OSError(f"{store.file} does not exist; MLFLOW_TRACKING_URI=sqlite:///FILE names another")
    return store.file


def _sound(store: Store, task: str) -> Path:
    """Return the file of a store in which nothing is missing: what is not in it would be taken for garbage."""
    file = _file(store, task)
    integrity.check(file)
    if schema.is_older(file):
        raise OSError(f"{file} is of an older MLflow; a run upgrades it, after a copy")
    return file


@contextmanager
def _database(file: Path, is_dry: bool) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        if not is_dry:
            yield database
            return
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            database.backup(copy)
            yield copy


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextmanager
def _no_runs(file: Path) -> Iterator[None]:
    """Keep runs from starting within this context; raise OSError where one is in progress."""
    with FileLock(f"{file}.lock"):
        for lock in (file.parent / "locks").glob("*.lock"):
            try:
                with FileLock(lock, timeout=0):
                    pass
            except Timeout:
                raise BlockingIOError(f"{lock.stem} is running; wait for it to end, or stop it") from None
        yield

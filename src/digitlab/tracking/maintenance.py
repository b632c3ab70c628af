"""Maintain a store that is a file: repair the paths in it after it was moved, and remove what no run needs."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from digitlab.tracking.store import Store

# Where MLflow stores absolute paths.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
READY = 2  # MLflow's LoggedModelStatus


def relocate(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Change the stored paths of all artifacts after the store was moved; yield lines that say what was changed.

    It is one transaction. Raises OSError where there is no store, it is not a file, or a run is in progress.
    """
    file = _file(store)
    here = (file.parent / "artifacts").as_uri()
    changed = 0
    with _no_runs(file), closing(sqlite3.connect(file, isolation_level=None)) as database:
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
        database.execute("rollback" if is_dry else "commit")
    if not changed:
        yield f"nothing to do: the paths in the store are right, {here}"


def collect_garbage(store: Store, is_dry: bool = False) -> Iterator[str]:
    """Remove deleted runs, models that are incomplete or of deleted runs, artifacts without a run, and unused locks.

    Yields a line for each. Raises OSError where there is no store, it is not a file, or a run is in progress.
    """
    file = _file(store)
    artifacts = file.parent / "artifacts"
    before = _size(file.parent)
    with _no_runs(file):
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
            subprocess.run([sys.executable, "-m", "mlflow", *gc], check=True, capture_output=True)
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


def _file(store: Store) -> Path:
    if store.file is None:
        raise OSError("is a server's; run this where the server keeps its files")
    if not store.exists():
        raise OSError(f"{store.file} does not exist; MLFLOW_TRACKING_URI=sqlite:///FILE names another")
    return store.file


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

"""Locks: only one process at a time trains a run, and the run of a dead process is marked as killed."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import entities

from digitlab.platform.process import is_of_this_host, is_running, this_job, this_process
from digitlab.tracking import lease
from digitlab.tracking.address import digest_of
from digitlab.tracking.integrity import in_use
from digitlab.tracking.store import Store, user_name


@contextmanager
def owner(store: Store, fingerprint: str) -> Iterator[bool]:
    """Hold the lock of `fingerprint` on this machine, and say whether it had to wait for another process.

    Warns while it waits.
    """
    lock, has_waited = _lock(store, fingerprint), False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        has_waited = True
        warnings.warn("another process runs the same; waiting for it to end", stacklevel=2)
        lock.acquire()
    try:
        with in_use(store.file, fingerprint) if store.file else nullcontext():
            yield has_waited
    finally:
        _release(store, lock)


def is_owner_alive(store: Store, run: entities.Run) -> bool:
    """Say whether another process may be working on a run of a server without holding our lock."""
    if store.file or run.info.status != "RUNNING":
        return False  # a store in a file has its locks beside it, which all its users share
    owner, job = run.data.tags.get("owner", "::"), run.data.tags.get("job")
    if job and job == this_job():
        return False  # a job that was queued again: it runs in one place at a time
    if owner == this_process() or not is_running(owner):
        return False
    return is_of_this_host(owner) or not lease.has_lapsed(run)


def mark_dead_run(store: Store, run: entities.Run, ended_job: str = "") -> str:
    """Return the status of a run that is not done, after setting it to KILLED if its process is dead.

    `ended_job` is a job that is known to have ended, whichever host it was on.
    """
    if run.info.status != "RUNNING":
        return run.info.status
    with if_dead(store, run) as is_dead:
        is_dead |= not store.file and bool(ended_job) and run.data.tags.get("job") == ended_job
        if is_dead:
            store.client.set_terminated(run.info.run_id, "KILLED")
            store.client.set_tag(run.info.run_id, "error", "killed, no exit status")
        return "KILLED" if is_dead else "RUNNING"


@contextmanager
def if_dead(store: Store, run: entities.Run) -> Iterator[bool]:
    """Say whether no process is working on a RUNNING run, and keep any from starting within this context."""
    lock = _lock(store, run.data.tags.get("fingerprint", run.info.run_id))
    try:
        is_free = not is_owner_alive(store, run) and bool(lock.acquire(timeout=0))
    except Timeout:
        is_free = False
    try:
        yield is_free
    finally:
        _release(store, lock)


def _lock(store: Store, fingerprint: str) -> FileLock:
    folder = store.file.parent / "locks" if store.file else Path(tempfile.gettempdir()) / f"digitlab-{user_name()}"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if store.file else f"{digest_of(store.uri)}-"
    return FileLock(folder / f"{prefix}{fingerprint}.lock")


def _release(store: Store, lock: FileLock) -> None:
    """Release a lock, and remove its file from a folder that nobody tidies; who waits for it opens another one."""
    if lock.is_locked and not store.file:
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()

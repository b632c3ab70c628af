"""Damage to the file of a store: notice it, after an unclean end above all, and keep a daily copy beside the file."""

import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from time import time

from digitlab.platform.process import is_running, this_process

DAY = 86_400  # seconds
PATIENCE = 120  # seconds to wait for a process that has the file locked


def check(file: Path, pragma: str = "quick_check") -> None:
    """Raise OSError if sqlite finds damage in `file`: pages by "quick_check", indices too by "integrity_check"."""
    try:
        with closing(sqlite3.connect(file, timeout=PATIENCE)) as database:
            (found,) = database.execute(f"pragma {pragma}(1)").fetchone()
    except sqlite3.OperationalError as error:  # it is locked, or the disk fails
        raise OSError(f"{file}: {error}") from error
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        raise OSError(f"{file} is damaged ({found.splitlines()[-1][:100]}); {remedy(file)}")


def is_damage(reason: str) -> bool:
    """Say whether what sqlite says means that the file is damaged."""
    return "malformed" in reason or "file is not a database" in reason


def remedy(file: Path) -> str:
    """Say what helps where `file` is damaged or gone."""
    if copy_of(file).exists():
        return f"digitlab store restore takes the copy of {date(copy_of(file))}"
    return "digitlab store restore has no copy of it yet; sqlite3's .recover may save a part"


def copy_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.daily")


def free_name(file: Path, word: str) -> Path:
    """Return a name beside `file` that no file has yet: FILE.WORD-1 and so on."""
    names = (file.with_name(f"{file.name}.{word}-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def date(file: Path) -> str:
    return f"{datetime.fromtimestamp(file.stat().st_mtime).astimezone():%Y-%m-%d %H:%M}"


def copy_daily(file: Path) -> None:
    """Copy the store, where it is sound and its last copy is more than a day old; raise OSError where it is not sound.

    A copy that cannot be made is a warning: the store itself is well.
    """
    copy = copy_of(file)
    with suppress(FileNotFoundError):
        if abs(time() - copy.stat().st_mtime) < DAY:  # of the future too: the clock was wrong then
            return
    check(file)
    try:
        if shutil.disk_usage(file.parent).free < 3 * file.stat().st_size:
            raise OSError("too little room on the disk")
        copy_to(file, copy)
    except (OSError, sqlite3.Error) as error:
        warnings.warn(f"no daily copy of {file}: {error}", stacklevel=2)


def side_files(file: Path) -> list[Path]:
    """Return the files in which sqlite keeps what is still to be done to a database, or undone."""
    return [side for ending in ("journal", "wal", "shm") if (side := file.with_name(f"{file.name}-{ending}")).exists()]


def remove(file: Path) -> None:
    """Remove a database that may be there."""
    for each in (*side_files(file), file):
        each.unlink(missing_ok=True)


def copy_to(source: Path, target: Path) -> None:
    """Copy a store that others may be writing to; `target` is whole or as it was."""
    temporary = target.with_name(f".{target.name}.new")
    remove(temporary)
    try:
        with (
            closing(sqlite3.connect(source, timeout=PATIENCE)) as database,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            database.backup(copy)
        shutil.copymode(source, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        for side in side_files(target):  # sqlite would play it into the copy
            side.unlink()
        temporary.replace(target)
    finally:
        remove(temporary)


@contextmanager
def in_use(file: Path, fingerprint: str) -> Iterator[None]:
    """Leave a mark beside the store that this process writes to it; a mark without its process is an unclean end."""
    mark = _marks(file) / f"{fingerprint}.running"
    mark.write_text(this_process())
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def check_after_unclean_end(file: Path) -> None:
    """Check the store where a process that wrote to it has been killed; raise OSError where it is damaged."""
    dead = [mark for mark in _marks(file).glob("*.running") if not _is_alive(mark)]
    if dead:
        check(file)
        forget(dead)


def forget_unclean_ends(file: Path) -> None:
    """Remove every mark, where no run is in progress and the store has been restored."""
    forget(list(_marks(file).glob("*.running")))


def forget(marks: list[Path]) -> None:
    for mark in marks:
        mark.unlink(missing_ok=True)


def _is_alive(mark: Path) -> bool:
    try:
        return is_running(mark.read_text())
    except FileNotFoundError:  # it has ended meanwhile
        return True
    except ValueError:  # killed while it wrote the mark
        return False


def _marks(file: Path) -> Path:
    return file.parent / "locks"

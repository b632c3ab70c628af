"""What a run writes to a server, on local disk until the server has it: a queue that survives a kill at any moment."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock
from time import sleep
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from digitlab import REPOSITORY
from digitlab.tracking.address import digest_of

LARGEST = 2 * 2**30  # bytes that may wait; a run that has more to write ends
MOST = {"metrics": 1000, "params": 100, "tags": 100}  # that MLflow takes in one call
MOST_OF_ALL = 1000
FOLDER = "DIGITLAB_JOURNAL"  # the environment variable of the folder where journals lie
SCHEMA = """
    create table if not exists about (key text primary key, value text);
    create table if not exists entries (
        number integer primary key autoincrement, call text, arguments text, place text, size integer
    );
"""


class Entry(NamedTuple):
    """A call of MLflow that waits: its name, its arguments, the file or folder that it hands over, if any."""

    number: int
    call: str
    arguments: dict[str, Any]
    file: Path | None
    size: int  # bytes


class Journal:
    """The queue of one run in its own folder: entries are added at one end and removed at the other.

    A file that an entry hands over is linked where that is possible, so it must be replaced, not changed. Raises
    OSError where the disk or the queue is full.
    """

    def __init__(self, folder: Path, about: Mapping[str, str] | None = None):
        """Open the journal in `folder`, or make a new one, with what is to be known `about` it.

        Raises filelock.Timeout where another process has it open.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder, self._lock, self._changed = folder, FileLock(folder / "lock"), Lock()
        self.added, self._handed_out = Event(), 0
        with _turn(folder):
            if about:
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt of the same process
            folder.mkdir(exist_ok=True)
            self._lock.acquire(timeout=0)
        with self._disk_errors():
            # From several threads, one at a time.
            self._database = sqlite3.connect(folder / "journal.db", check_same_thread=False)
            self._database.executescript(SCHEMA)
            with self._database:
                self._database.executemany("insert or replace into about values (?, ?)", (about or {}).items())
            self.about = dict(self._database.execute("select key, value from about"))

    def put(self, call: str, arguments: Mapping[str, Any], file: Path | None = None, place: str | None = None) -> None:
        """Add a call at the end; of a file for the same `place` in the store only the last one waits."""
        text = json.dumps(arguments)
        size = len(text) + (_size(file) if file else 0)
        with self._changed, self._disk_errors():
            if size + self._waiting(place) > LARGEST:
                reason = f"{LARGEST:,} bytes wait for the server already"
                raise OSError(errno.EDQUOT, reason, str(self.folder))
            with self._database:
                older = self._database.execute("select number from entries where place = ?", [place]).fetchall()
                row = call, text, place, size
                new = self._database.execute(
                    "insert into entries (call, arguments, place, size) values (?, ?, ?, ?)", row
                )
                if file:
                    _take(file, self._files(int(new.lastrowid or 0)) / file.name)
                self._database.executemany("delete from entries where number = ?", older)
            for (number,) in older:
                shutil.rmtree(self._files(number), ignore_errors=True)
        self.added.set()

    def extend(self, call: str, lists: Mapping[str, list]) -> None:
        """Add a call whose arguments are lists to the last entry, where that is the same call and there is room in it.

        So the slower the server is, the more a call hands over.
        """
        with self._changed, self._disk_errors():
            last = self._database.execute(
                "select number, call, arguments from entries order by number desc limit 1"
            ).fetchone()
            if last and last[1] == call and last[0] != self._handed_out:
                joined = {key: old + lists.get(key, []) for key, old in json.loads(last[2]).items()}
                if (
                    all(len(joined[key]) <= MOST[key] for key in joined)
                    and sum(map(len, joined.values())) <= MOST_OF_ALL
                ):
                    text = json.dumps(joined)
                    with self._database:
                        self._database.execute(
                            "update entries set arguments = ?, size = ? where number = ?", [text, len(text), last[0]]
                        )
                    return
        self.put(call, lists)

    def has(self, call: str) -> bool:
        """Say whether a call of this name waits."""
        with self._changed, self._disk_errors():
            return bool(self._database.execute("select 1 from entries where call = ? limit 1", [call]).fetchone())

    def first(self) -> Entry | None:
        """Return the entry that waits longest."""
        with self._changed, self._disk_errors():
            found = self._database.execute(
                "select number, call, arguments, size from entries order by number limit 1"
            ).fetchone()
            if not found:
                return None
            number, call, arguments, size = found
            self._handed_out = number
            files = self._files(number)
            return Entry(number, call, json.loads(arguments), next(files.iterdir()) if files.exists() else None, size)

    def remove(self, entry: Entry) -> None:
        """Remove an entry that has arrived."""
        with self._changed, self._disk_errors():
            with self._database:
                self._database.execute("delete from entries where number = ?", [entry.number])
            shutil.rmtree(self._files(entry.number), ignore_errors=True)

    def close(self) -> None:
        """Leave the journal as it is, for somebody else to go on with."""
        with self._changed:
            self._database.close()
        self._lock.release()

    def discard(self) -> None:
        """Remove the journal and all that is in it."""
        with self._changed:
            self._database.close()
        with _turn(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _waiting(self, place: str | None) -> int:
        """Return the bytes that wait, less those for `place`, which what is put there now replaces."""
        kept = "select coalesce(sum(size), 0) from entries where place is null or place is not ?"
        return self._database.execute(kept, [place]).fetchone()[0]

    def _files(self, number: int) -> Path:
        return self.folder / "files" / str(number)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise OSError(code, str(error), str(self.folder / "journal.db")) from error


def root() -> Path:
    """Return the folder of all journals."""
    return Path(os.environ.get(FOLDER) or REPOSITORY / "mlruns" / "journal").absolute()


def folder_of(uri: str, run_id: str, owner: str) -> Path:
    """Return where the journal of a run lies while the process `owner` makes it: who takes it over has another one."""
    return root() / f"{digest_of(uri)}-{run_id}-{sha256(owner.encode()).hexdigest()[:8]}"


def abandoned(uri: str, is_awaited: Callable[[Mapping[str, str]], bool]) -> Iterator[Journal]:
    """Yield each journal that waits for the server at `uri` and that no process has open.

    Of those that one has open, `is_awaited` says, by what is known about each, which to wait for.
    """
    for folder in sorted(root().glob(f"{digest_of(uri)}-*")):
        while (journal := _open(folder)) is None and (about := _peek(folder)) and is_awaited(about):
            sleep(0.1)
        if journal is None:
            continue
        try:
            yield journal
        finally:
            journal.close()


def _open(folder: Path) -> Journal | None:
    with suppress(Timeout):
        return Journal(folder)
    return None


def _peek(folder: Path) -> dict[str, str]:
    """Return what is known about a journal that another process has open."""
    address = f"{(folder / 'journal.db').as_uri()}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as database:
        return dict(database.execute("select key, value from about"))
    return {}


def _turn(folder: Path) -> FileLock:
    """Return what keeps others from finding a journal before it is locked, or while it is removed."""
    return FileLock(folder.parent / "lock")


def _take(source: Path, target: Path) -> None:
    """Link or copy a file or a folder to where nothing is."""
    shutil.rmtree(target.parent, ignore_errors=True)  # of a process that was killed here
    target.parent.mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        with target.open("rb") as copied:
            os.fsync(copied.fileno())


def _size(file: Path) -> int:
    files = file.rglob("*") if file.is_dir() else [file]
    return sum(each.stat().st_size for each in files if each.is_file())

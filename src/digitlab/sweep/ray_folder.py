"""The folder of a cluster of Ray that this machine starts for one sweep."""

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "digitlab-ray-"
LONGEST = 36  # characters of its path: Ray puts sockets in it, whose paths Linux limits to 107


class Folder:
    """A temporary folder; those that killed processes have left are removed with it."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def make(self) -> str:
        base = Path(tempfile.gettempdir())
        if len(str(base / PREFIX)) + 8 > LONGEST:
            base = Path("/tmp")
        for old in base.glob(f"{PREFIX}*"):
            with suppress(Timeout, OSError):
                if time.time() - old.stat().st_mtime > 60:  # else it may be about to be locked
                    with FileLock(old / "lock", timeout=0):
                        shutil.rmtree(old)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self.lock = FileLock(self.path / "lock")
        self.lock.acquire()
        return str(self.path / "ray")  # which Ray opens to everybody

    def remove(self) -> None:
        if self.path:
            self.lock.release()
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None

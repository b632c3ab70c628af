"""Share the GPUs of a machine among the processes of a user: each takes one, the least taken first."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

# One folder for each user, whose files no other may open; on Windows it lies in the user's own folder.
CLAIMS = Path(tempfile.gettempdir()) / f"digitlab-gpus-{getattr(os, 'getuid', int)()}"


def claim(names: Sequence[str]) -> tuple[int, FileLock]:
    """Take one of the GPUs that this process sees, by the names that every process knows them by.

    Return its place among `names`, and the claim, which holds while it is referred to, at most until the process ends.
    """
    CLAIMS.mkdir(mode=0o700, parents=True, exist_ok=True)
    for others in count():
        for place, name in enumerate(names):
            lock = FileLock(CLAIMS / f"{name}.{others}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return place, lock
    raise AssertionError("unreachable: there is always one more")

"""Load the large libraries quickly, and be rid of them quickly."""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage while modules load, and leave what they are made of out of every later collection.

    torch, Lightning and MLflow are a million objects that stay: walking them takes a fourth of the time of loading
    them, and half of that of reading many runs.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # the last collection is for all: triton calls what it does not see a leak


def leave() -> NoReturn:
    """End the process, which went well, without taking the libraries apart: object by object that is two seconds."""
    threading._shutdown()  # as the interpreter ends threads, and after them what was registered for the end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

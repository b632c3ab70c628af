"""Import large libraries quickly, and end the process quickly."""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

_SIGNAL = ModuleType("scipy.signal")  # a placeholder
vars(_SIGNAL)["hamming"] = None


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import libraries within this context without garbage collection and without scipy.signal.

    torch, Lightning and MLflow create a million objects that stay. Traversing them takes a fourth of the time of
    importing them, and later half of the time of reading many runs, so they are excluded from collection for good.
    Where nothing is imported, as in later cells of a sweep, nothing is excluded. torchmetrics, which Lightning imports
    for its version, imports scipy.signal, and with it all of scipy.stats, only to look up one name.
    """
    loaded = len(sys.modules)
    gc.disable()
    if "scipy.signal" not in sys.modules:
        sys.modules["scipy.signal"] = _SIGNAL
    try:
        yield
    finally:
        if sys.modules["scipy.signal"] is _SIGNAL:
            del sys.modules["scipy.signal"]
        if len(sys.modules) > loaded:
            gc.freeze()
            atexit.register(gc.unfreeze)  # triton reports what the last collection misses as a leak
        gc.enable()


def fast_exit(code: int = 0) -> NoReturn:
    """End the process with an exit code without freeing every object, which takes two seconds."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  private; the interpreter ends in this order
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

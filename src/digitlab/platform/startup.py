"""Load the large libraries quickly, and end the process quickly."""

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

_SIGNAL = ModuleType("scipy.signal")  # stands in for it
vars(_SIGNAL)["hamming"] = None


@contextmanager
def fast_imports() -> Iterator[None]:
    """Load libraries within this context without what takes the most time and gives nothing.

    No garbage is collected, then or later, of what they are made of: torch, Lightning and MLflow are a million objects
    that stay, and walking them takes a fourth of the time of loading them, and half of that of reading many runs. Where
    nothing is left to load, in a sweep's later cells, nothing is done: what an earlier cell left is garbage. And
    scipy.signal stays out: torchmetrics, which Lightning asks for its version, loads it, and with it all of
    scipy.stats, for one look at whether it holds a name.
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
            atexit.register(gc.unfreeze)  # the last collection is for all: triton calls what it does not see a leak
        gc.enable()


def fast_exit() -> NoReturn:
    """End the process, which went well, without taking the libraries apart: object by object that is two seconds."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  private; as the interpreter ends threads, and after them what was registered for the end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

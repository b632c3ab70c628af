"""Load the large libraries quickly."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


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

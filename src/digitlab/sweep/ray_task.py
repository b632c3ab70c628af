"""What is sent to the workers of Ray: a function, and what makes them like the process that started the sweep."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from digitlab import REPOSITORY

GPUS = "CUDA_VISIBLE_DEVICES"
Origin = tuple[Sequence[str], Sequence[str], dict[str, str], tuple[str, ...]]


def origin(threads: int, has_gpu: bool) -> Origin:
    """Return the folders of this process, the current one first, where it imports from, and its environment.

    The last part is what begins the names of variables that a worker has of its own. Ray keeps a function while its
    cluster lives, so this is no part of one: it holds what is secret.

    - `threads`: of a worker, unless OMP_NUM_THREADS says how many.
    - `has_gpu`: whether Ray gives it a GPU; else it sees none.
    """
    kept = ("RAY_", GPUS) if has_gpu else ("RAY_",)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    environment |= {} if has_gpu else {GPUS: ""}
    folders = list(dict.fromkeys([os.getcwd(), str(REPOSITORY)]))
    path = [str(Path(each).absolute()) for each in sys.path]
    return folders, path, {"OMP_NUM_THREADS": str(threads)} | environment, kept


def make_task() -> Callable[[Origin, bytes, list[str], int], bytes | str]:
    """Return a function that makes a worker like the `origin`, and has it `run` a cell, as ray_cell does.

    It returns what `run` does, or a line that says why this worker cannot; without a sweep only that. It is sent whole,
    since a worker may lack the code that it would come from.
    """

    def digitlab_cell(origin: Origin, sweep: bytes, overrides: list[str], number: int) -> bytes | str:
        import os
        import socket
        import sys

        folders, path, environment, kept = origin
        for folder in folders:
            if not os.path.isdir(folder):
                return (
                    f"host {socket.gethostname()}: has no folder {folder}, which each machine needs as this one has it"
                )
        os.chdir(folders[0])
        own = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        os.environ.clear()
        os.environ.update(environment | own)
        sys.path += [each for each in path if each not in sys.path]
        try:
            from digitlab.sweep.ray_cell import run
        except ImportError as error:
            return f"host {socket.gethostname()}: {error}; {sys.executable} has not what this machine's Python has"
        return run(sweep, overrides, number) if sweep else b""

    return digitlab_cell

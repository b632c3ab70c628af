"""A cluster of Ray that runs the cells of a sweep: one that is there, or one of this machine's own."""

import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from math import ceil, floor
from queue import Empty, SimpleQueue
from typing import Any

import psutil
import ray  # pyright: ignore[reportMissingImports]  it is in an extra that dev is without
import torch
from hydra.core.utils import JobReturn
from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

from digitlab.config.errors import UserError, one_line
from digitlab.platform import console
from digitlab.sweep.plan import duration
from digitlab.sweep.ray_cell import failed, unpack
from digitlab.sweep.ray_folder import Folder
from digitlab.sweep.ray_internals import connect
from digitlab.sweep.ray_task import make_task, origin
from digitlab.sweep.runner import DEATHS

ANSWER = 15  # seconds that a cluster may take to answer
GRACE = 4  # seconds that cells may take to close their runs
MOST = 1000  # cells that Ray is told of at once
NEEDS = {"cpus": "CPU", "gpus": "GPU"}  # of a cell, and what Ray calls them
OBJECTS = 100 << 20  # bytes of shared memory; what cells hand over takes a thousandth of it
# A process of its own tries to connect: the attempt cannot be interrupted, and a cluster of another kind ends it.
TRY = """
import sys, ray
try:
    ray.init(sys.argv[1], log_to_driver=False, configure_logging=False)
except Exception as error:
    sys.exit("; ".join(line.strip() for line in str(error).splitlines() if line.strip()))
"""


class Cluster:
    """Workers of Ray, each of which runs one cell at a time.

    - `address`: of a cluster that is there, HOST:PORT, or auto for the one of this machine; None starts one.
    - `n_jobs`: how many cells are run at once; -1: as many as there is room for.
    - `cpus`, `gpus`: what a cell takes; None: a GPU, or a share of it, where this machine has some.
    """

    def __init__(self, address: str | None, n_jobs: int, cpus: int, gpus: float | None):
        self.folder, self.is_quiet = Folder(), False
        self.at_once = n_jobs if n_jobs > 0 else MOST
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            self._join(address) if address else self._start(n_jobs, cpus)
            self.needs: dict[str, Any] = {"num_cpus": cpus, "num_gpus": _gpus(gpus, n_jobs)}
            self.task = ray.remote(max_retries=0, **self.needs)(make_task())
            self.origin = origin(cpus, self.needs["num_gpus"] > 0)
            if address:
                self._check_machines()
        except BaseException as error:
            self.close()
            if isinstance(error, RayError):
                raise UserError(f"hydra/launcher=ray: {one_line(error)}") from error
            raise

    def _start(self, n_jobs: int, cpus: int) -> None:
        """Start a cluster of this machine's own, to which nobody else has the key, and which ends with this process."""
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        cells = n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) // cpus)
        own = {"include_dashboard": False, "object_store_memory": OBJECTS, "_temp_dir": self.folder.make()}
        try:
            connect(self._show, "local", num_cpus=cells * cpus, **own)
        except Exception as error:
            raise UserError(f"hydra/launcher=ray: cannot be started: {one_line(error)}") from error

    def _join(self, address: str) -> None:
        """Connect to a cluster that is there, of which this machine has to be a part."""
        began, wrong = time.monotonic(), f"hydra.launcher.address={address}"
        host, _, port = address.rpartition(":")
        try:
            if host:
                socket.create_connection((host, int(port)), ANSWER).close()
            left = ANSWER - (time.monotonic() - began)
            tried = [sys.executable, "-c", TRY, address]
            said = subprocess.run(tried, capture_output=True, text=True, timeout=left, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise UserError(f"{wrong}: no cluster of Ray has answered within {ANSWER} s") from None
        except OSError as error:
            raise UserError(f"{wrong}: does not answer: {one_line(error)}") from error
        if said.returncode:
            raise UserError(f"{wrong}: {said.stderr.strip().splitlines()[-1] if said.stderr else said.returncode}")
        connect(self._show, address)

    def _check_machines(self) -> None:
        """Raise UserError where no machine of the cluster has what a cell takes, or one could not run it."""
        machines = [each for each in ray.nodes() if each["Alive"]]
        for key, name in NEEDS.items():
            most, needed = max(each["Resources"].get(name, 0) for each in machines), self.needs[f"num_{key}"]
            machines = [each for each in machines if each["Resources"].get(name, 0) >= needed]
            if not machines:
                raise UserError(f"hydra.launcher.{key}={needed:g}: the largest machine of the cluster has {most:g}")
        places = [NodeAffinitySchedulingStrategy(each["NodeID"], soft=False) for each in machines]
        here = [self.task.options(num_cpus=0, num_gpus=0, scheduling_strategy=place) for place in places]
        for answer in [each.remote(self.origin, b"", [], 0).future() for each in here]:
            if wrong := answer.result():
                raise UserError(f"hydra.launcher.address: {wrong}")

    def run(self, sweep: bytes, cells: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
        """Run cells, given by their overrides; one whose worker has died goes on on another, until `DEATHS` have.

        In the end, whatever it is, no cell is left running.

        - `sweep`: what they have in common, packed by ray_cell.
        - `first`: the number of the first of them in the sweep.
        """
        results: dict[int, JobReturn] = {}
        waiting, ended = deque(range(len(cells))), SimpleQueue()
        running: dict[int, Any] = {}
        deaths: Counter[int] = Counter()
        began = time.monotonic()
        try:
            while len(results) < len(cells):
                while waiting and len(running) < self.at_once:
                    number = waiting.popleft()
                    running[number] = self.task.remote(self.origin, sweep, list(cells[number]), first + number)
                    running[number].future().add_done_callback(lambda future, at=number: ended.put((at, future)))
                number, future = ended.get()  # Ray's own wait would make an error of a signal
                del running[number]
                error = future.exception()
                if isinstance(error, RayError) and not isinstance(error, RayTaskError):
                    deaths[number] += 1
                    reason = f"its worker process died ({type(error).__name__})"
                    if deaths[number] < DEATHS:
                        console.warn(f"cell {first + number + 1}: {reason}; another one goes on with it")
                        waiting.appendleft(number)
                        continue
                    results[number] = failed(f"{reason}, {DEATHS} times")
                else:
                    results[number] = failed(_cause(error)) if error else unpack(future.result())
                over = len(results)
                left = duration((time.monotonic() - began) / over * (len(cells) - over))
                more = f", {left} left" if over < len(cells) else ""
                console.say(f"{over} of {len(cells)} cells have ended{more}")
        except BaseException:
            self._cancel(list(running.values()), ended)
            raise
        return [results[number] for number in range(len(cells))]

    def _cancel(self, running: Sequence[Any], ended: SimpleQueue) -> None:
        """Interrupt what runs, and give it time to close its runs; the end of the connection kills the rest."""
        self.is_quiet = True
        for each in running:
            ray.cancel(each)
        deadline = time.monotonic() + GRACE
        with suppress(Empty):
            for _ in running:
                ended.get(timeout=max(0, deadline - time.monotonic()))
        self.close()

    def _show(self, line: str) -> None:
        if not self.is_quiet:
            console.say(line)

    def close(self) -> None:
        """End the connection, and the cluster where it is this machine's own."""
        started = psutil.Process().children(recursive=True) if self.folder.path else []
        ray.shutdown()
        for each in started:  # where Ray was interrupted while it started, it leaves some
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.folder.remove()


def _gpus(wanted: float | None, cells: int) -> float:
    """Return how many GPUs a cell takes.

    A run on a GPU is not the one that is planned on a CPU, so here and there have to have some.
    """
    if not torch.cuda.is_available():
        if wanted:
            raise UserError(f"hydra.launcher.gpus={wanted:g}: start the sweep on a machine that has a GPU too")
        return 0
    found = ray.cluster_resources().get("GPU", 0)
    if wanted is not None or not found or cells <= found:
        return float(found > 0) if wanted is None else wanted
    return floor(10_000 / ceil(cells / found)) / 10_000  # Ray counts in ten-thousandths; no cell has parts of two GPUs


def _cause(error: BaseException) -> str:
    return one_line(getattr(error, "cause", None) or error)  # Ray's own is a page long

"""A cluster of Ray as its users start one, of several machines that are all this one."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from program import Program
from servers import free_port
from services import wait_until


def named(name: str, *roots: int) -> list[psutil.Process]:
    """Return the processes below `roots` whose name begins so: ray::digitlab_cell is a worker with a cell."""
    found = []
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(root).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found += [child] if " ".join(child.cmdline()).startswith(name) else []
    return found


def wait_for_cells(count: int, *roots: int, program: Program) -> list[psutil.Process]:
    """Wait until so many cells are being run below `roots`; return their workers."""
    found = []

    def are_there() -> bool:
        assert program.process.poll() is None, program.output()
        found[:] = named("ray::digitlab_cell", *roots)
        return len(found) >= count

    wait_until(are_there)
    return found


class RayCluster:
    """`ray start --head` and machines that join it, in processes and a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's own are too long for sockets
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(), "RAY_USAGE_STATS_ENABLED": "0"
        }  # fmt: skip
        self.machines: list[subprocess.Popen] = []
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def start(self, *options: str) -> subprocess.Popen:
        """Add a machine, the first of which is the head."""
        where = [f"--address={self.address}"] if self.machines else ["--head", f"--port={self.port}"]
        where += [] if self.machines else [f"--temp-dir={self.folder}", "--include-dashboard=false"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where, *options]
        with (self.folder / f"{len(self.machines)}.log").open("w") as log:
            machine = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        self.machines.append(machine)
        count = sum(each.poll() is None for each in self.machines)
        wait_until(lambda: len(self.ask("[each for each in ray.nodes() if each['Alive']]")) >= count)
        return machine

    def ask(self, expression: str):
        """Return what an expression says in a program that is connected to the cluster."""
        program = f"import ray; ray.init('{self.address}', log_to_driver=False); print(repr({expression}))"
        told = subprocess.run([sys.executable, "-c", program], env=self.environment, capture_output=True, text=True)
        return eval(told.stdout, {"inf": float("inf")})  # what Python itself has printed

    def kill(self, machine: subprocess.Popen) -> None:
        """End a machine as a power cut does."""
        with suppress(psutil.NoSuchProcess):
            for each in [*psutil.Process(machine.pid).children(recursive=True), psutil.Process(machine.pid)]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        machine.wait()

    def stop(self) -> None:
        for machine in reversed(self.machines):
            self.kill(machine)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster(*options: str) -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        cluster.start(*options)
        yield cluster
    finally:
        cluster.stop()

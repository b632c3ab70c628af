"""Start the other processes of a run, see when one has ended, and end them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread, current_thread, main_thread
from typing import IO, Any

import torch
from omegaconf import DictConfig, OmegaConf

from digitlab.config.allowed import allowed
from digitlab.config.errors import UserError
from digitlab.platform.signals import say_last

PROGRAM = "digitlab.training.follow"
NOTICE = 20  # seconds in which this process should see by itself that another one has ended
HEAR = 5  # seconds in which it should hear of it, where it is not within a call that does not end, as of a GPU
TOLD = signal.SIGRTMIN  # by which the thread that watches tells the one that trains


class ProcessEndedError(UserError):
    """Another process of the run has ended before its time."""


class Others:
    """The processes that this one has started on the run of `cfg`; they meet at a `port`, and are `size` with this one.

    They take their parts of the processor's threads that this process had.
    """

    def __init__(self, cfg: DictConfig, size: int, port: int):
        self.size, self.threads, self.is_over, self.is_heard = size, torch.get_num_threads(), Event(), Event()
        self.is_main = current_thread() is main_thread()  # which alone can set what a signal does
        self.handler = signal.signal(TOLD, self._hear) if self.is_main else None
        torch.set_num_threads(max(1, self.threads // size))
        told = {"path": sys.path, "parent": os.getpid(), "allowed": [*allowed()]}
        told["cfg"] = OmegaConf.to_container(cfg, resolve=True)
        self.started = [self._start(rank, port, json.dumps(told).encode()) for rank in range(1, size)]
        Thread(target=self._watch, daemon=True).start()

    def _start(self, rank: int, port: int, told: bytes) -> tuple[subprocess.Popen, IO]:
        """Start one process; return it, and the file of what it complains of."""
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.size}  # as torchrun says it
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": torch.get_num_threads()}
        place |= {"PYTHONPATH": Path(__file__).parents[2]}
        complaints = TemporaryFile()  # noqa: SIM115  it is read when the process has ended
        process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=os.environ | {name: str(value) for name, value in place.items()},
            start_new_session=True,  # a Ctrl-C is for this process, which ends the others
        )
        assert process.stdin
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(told)  # where no list of processes shows it
        return process, complaints

    def have_ended(self) -> bool:
        """Say whether any of them has."""
        return any(process.poll() is not None for process, _ in self.started)

    def cause(self, patience: float = 5) -> str:
        """Say which has ended, and why; "" where none has, in `patience` seconds."""
        until = time.monotonic() + patience
        while not self.have_ended():
            if time.monotonic() > until:
                return ""
            time.sleep(0.05)
        rank, (process, complaints) = next(
            (rank, each) for rank, each in enumerate(self.started, 2) if each[0].poll() is not None
        )
        complaints.seek(0)
        lines = [line for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
        code = process.returncode
        said = signal.Signals(-code).name if code < 0 else lines[-1] if lines else f"exit code {code}"
        return f"process {rank} of {self.size} ended: {said.removeprefix('error: ')}"

    def end(self) -> None:
        """Kill them: they hold nothing that this process does not hold too."""
        self.is_over.set()
        if self.is_main:
            signal.signal(TOLD, self.handler)
        for process, complaints in self.started:
            process.kill()
            process.wait()
            complaints.close()
        torch.set_num_threads(self.threads)

    def _watch(self) -> None:
        """End the run where another process has ended and this one does not see that, as while it validates."""
        while not self.is_over.wait(1):
            if self.have_ended():
                break
        if self.is_over.wait(NOTICE):
            return
        if self.is_main:
            signal.pthread_kill(main_thread().ident, TOLD)  # pyright: ignore[reportArgumentType]  it has begun
        if not self.is_heard.wait(HEAR) and not self.is_over.is_set():
            say_last(f"error: {self.cause()}")
            os._exit(1)

    def _hear(self, *_: Any) -> None:
        self.is_heard.set()
        if not self.is_over.is_set():
            raise ProcessEndedError(self.cause())

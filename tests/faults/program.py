"""The program as a process of its own, which tests interrupt."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import psutil
from hooks import REPOSITORY

if TYPE_CHECKING:
    from conftest import Harness

COMMON = ["data=mnist5k", "trainer=cpu", "trainer.max_epochs=5"]
FAULTHANDLER = {"PYTHONFAULTHANDLER": "1"}


class Program:
    """`python src/train.py ...` in its own process group, with its output in a file."""

    started: ClassVar[list["Program"]] = []

    def __init__(self, harness: "Harness", *overrides: str):
        harness.folder.mkdir(exist_ok=True)
        self.log = harness.folder / f"{len(list(harness.folder.glob('*.log')))}.log"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, REPOSITORY / "src" / "train.py", *COMMON, *overrides],
                env=os.environ | harness.places | {"PYTHONUNBUFFERED": "1"} | FAULTHANDLER,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(self)

    def output(self) -> str:
        return self.log.read_text()

    def wait(self, timeout: float = 120) -> int:
        """Wait for its end and return its exit code; fail after `timeout` s with its output and what it was doing."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGABRT)  # which every thread of it answers with a traceback
            self.process.wait()
        raise AssertionError(f"not over after {timeout} s:\n{self.output()}")

    @classmethod
    def end_all(cls) -> None:
        """Kill what a test has left running."""
        while cls.started:
            cls.started.pop().kill()

    def wait_for(self, words: str) -> bool:
        """Wait until it prints `words`; return whether it did before it ended."""
        while words not in self.output() and self.process.poll() is None:
            time.sleep(0.02)
        return words in self.output()

    def kill(self) -> bool:
        """Kill it; return whether it was still alive."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL


def processes(are_meant: Callable[[psutil.Process], object]) -> list[psutil.Process]:
    """Return the processes of which `are_meant` is true; not those that it cannot ask: ended, or another user's."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if are_meant(process):
                found.append(process)
    return found


def wait_until_gone(processes: list[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]

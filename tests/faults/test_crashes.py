"""Power cuts: replay the recorded system calls, and check every state of the disk in which unsynced data is lost."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from content import read
from fault_run import LEAN, NAMES, REPOSITORY, SETTINGS, FaultRun, Oracle

pytestmark = pytest.mark.slow

CALLS = "openat,close,write,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"
LINE = re.compile(r"(\w+)\((.*)\) += (\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class State(NamedTuple):
    """The files that a disk would hold, the number of completely saved epochs, and the step after which it is."""

    files: dict[str, bytes]
    saves: int
    step: str


class Disk:
    """The folder of checkpoints after each system call: as written, and as synced."""

    def __init__(self):
        self.contents: list[bytes] = []  # of each file that was ever created, by number
        self.synced: list[bytes] = []
        self.names: dict[str, int] = {}
        self.possible: list[dict[str, int]] = [{}]  # what the folder may hold after a power cut
        self.open: dict[str, int | None] = {}  # descriptor -> number of the file; None for the folder itself

    def call(self, name: str, descriptor: str, flags: str, texts: list[str], data: bytes, result: str) -> bool:
        """Apply a system call; return whether it changed anything."""
        files = [Path(text).name for text in texts if Path(text).parent.name == "checkpoints"]
        if name == "openat" and files:
            if files[0] not in self.names:
                self._change(self.names | {files[0]: self._make()})
            self.open[result] = self.names[files[0]]
            if "O_TRUNC" in flags:
                self.contents[self.names[files[0]]] = b""
            return True
        if name == "openat" and Path(texts[0]).name == "checkpoints":
            self.open[result] = None
        elif name == "close":
            self.open.pop(descriptor, None)
        elif name == "write" and isinstance(self.open.get(descriptor), int):
            self.contents[self.open[descriptor]] += data
            return True
        elif name in ("fsync", "fdatasync") and descriptor in self.open:
            number = self.open[descriptor]
            if number is None:
                self.possible = [self.names]
            else:
                self.synced[number] = self.contents[number]
            return True
        elif name.startswith("rename") and len(files) == 2:
            old, new = files
            self._change({each: n for each, n in self.names.items() if each != old} | {new: self.names[old]})
            return True
        elif name.startswith("unlink") and files:
            self._change({each: n for each, n in self.names.items() if each != files[0]})
            return True
        return False

    def after_kill(self) -> dict[str, bytes]:
        return {name: self.contents[number] for name, number in self.names.items()}

    def after_power_cut(self) -> list[dict[str, bytes]]:
        return [{name: self.synced[number] for name, number in names.items()} for names in self.possible]

    def _make(self) -> int:
        self.contents.append(b"")
        self.synced.append(b"")
        return len(self.contents) - 1

    def _change(self, names: dict[str, int]) -> None:
        self.names = names
        self.possible = [*self.possible, names]


def states(log: Path) -> Iterator[State]:
    """Yield every state that a kill or a power cut could leave, in order."""
    disk, named, saves, step = Disk(), 0, 0, "the start"
    for line in log.read_text().splitlines():
        matched = LINE.match(line)
        if not matched:
            continue
        name, arguments, result = matched.groups()
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(arguments)]
        descriptor = arguments.partition(",")[0]
        if name == "write" and descriptor == "2" and texts:
            step = texts[0].decode(errors="replace").strip()
            if step.startswith("name-last:after"):
                named += 1
            if step.startswith("epoch:after"):
                saves = named  # the save has returned
            if step.startswith("name-last:after"):
                yield State(disk.after_kill(), named, step)
            continue
        paths = [text.decode(errors="replace") for text in texts] if name != "write" else []
        data = texts[0] if name == "write" and texts else b""
        if disk.call(name, descriptor, arguments, paths, data, result):
            yield State(disk.after_kill(), saves, step)
            for files in disk.after_power_cut():
                yield State(files, saves, f"{step}, power cut")


def record(folder: Path, *changes: str) -> Path:
    """Execute the small run under strace; return the log of its main thread's system calls."""
    run = FaultRun(folder)
    strace = ["strace", "-ff", "-o", folder / "strace", "-xx", "-s", "1000000", "-e", f"trace={CALLS}"]
    hooks = [REPOSITORY / "tests" / "faults" / "hooks.py", "+".join(["", *LEAN, *changes]), "src/train.py"]
    subprocess.run(
        [*strace, sys.executable, *hooks, *SETTINGS],
        env=os.environ | {"MLFLOW_TRACKING_URI": run.uri, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    name = "".join(f"\\x{byte:02x}" for byte in b"checkpoints/.last.ckpt.new")
    (log,) = [file for file in folder.glob("strace.*") if name in file.read_text()]
    return log


def lost(log: Path, oracle: Oracle, folder: Path) -> tuple[int, list[str]]:
    """Return the number of states, and what is wrong in any of them."""
    count, epochs, wrong = 0, {}, []
    for files, saves, step in states(log):
        count += 1
        kept = {name: files[f"{name}.ckpt"] for name in NAMES if f"{name}.ckpt" in files}
        for content in kept.values():
            if content not in epochs:
                file = folder / "state.ckpt"
                file.write_bytes(content)
                epochs[content] = oracle.epoch(read(file))
        found = {name: epochs[content] for name, content in kept.items()}
        is_tested = "last" not in kept and saves == len(oracle.epochs)
        if 0 in found.values():
            wrong.append(f"I1 at {step}: {found}")
        if max(found.values(), default=0) < (oracle.epoch(oracle.tested[1]) if is_tested else saves):
            wrong.append(f"I2 at {step}: {saves} epochs were saved, {found} are there")
        if found and found.get("best", 0) < min(max(found.values()), oracle.epoch(oracle.tested[1])):
            wrong.append(f"best at {step}: {found}")
    return count, wrong


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed, so system calls cannot be recorded")
def test_a_power_cut_at_any_moment_leaves_every_saved_epoch(tmp_path, oracle):
    count, wrong = lost(record(tmp_path / "run"), oracle, tmp_path)
    print(f"{count} states")
    assert count >= 100
    assert wrong == []

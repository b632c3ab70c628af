"""Run an entry point with faults: `python tests/faults/hooks.py ACTION@POINT#N+CHANGE src/train.py ...`.

ACTION happens when POINT is passed for the Nth time:

- `KILL`, `TERM`, `INT`, `STOP`: the process sends itself the signal; `TERM*` repeats it until the process has ended.
- `EIO`, `ENOSPC` or another errno: the call fails with it. `MemoryError` likewise.
- `FLIP`: one bit of the file changes, as on a bad disk.

`A@...;B@...` are two faults. Points are before and after every call that stores something: open, write, fsync and
rename of a checkpoint, and calls of MLflow. CHANGEs are functions that are called first. src/ has no code for this.
"""

import errno
import io
import itertools
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Fault:
    """An action and the point where it happens: `KILL@write:half#2`."""

    def __init__(self, text: str):
        action, _, self.place = text.partition("@")
        self.action, self.again = action.removesuffix("*"), action.endswith("*")

    def strike(self) -> None:
        if self.action == "MemoryError":
            raise MemoryError
        if self.action == "FLIP":
            flip_bit()
            return
        if hasattr(errno, self.action):
            code = getattr(errno, self.action)
            raise OSError(code, os.strerror(code))
        process, number = os.getpid(), getattr(signal, f"SIG{self.action}")
        if self.again and not os.fork():
            with suppress(ProcessLookupError):
                while True:
                    time.sleep(0.001)
                    os.kill(process, number)
            os._exit(0)
        os.kill(process, number)


def flip_bit() -> None:
    """Flip a bit of every checkpoint that is being written, as a bad disk would."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            file = descriptor.readlink()
            if file.suffix == ".new":
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 1
                file.write_bytes(content)


class Points:
    """Count how often each point is passed, write that to a file, and trigger the faults."""

    def __init__(self, faults: list[Fault], trace: int):
        self.faults, self.trace = faults, trace
        self.counts: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # the thread of the system metrics is not deterministic
        self.counts[name] += 1
        place = f"{name}#{self.counts[name]}"
        os.write(self.trace, f"{place}\n".encode())
        for fault in self.faults:
            if fault.place == place:
                fault.strike()

    def around(self, owner: object, function: str, name: Callable[..., str | None]) -> None:
        """Let every call of `owner.function` pass NAME:before and NAME:after, unless `name` returns None."""
        real = getattr(owner, function)

        def call(*args, **kwargs):
            point = name(*args, **kwargs)
            if point:
                self.reach(f"{point}:before")
            result = real(*args, **kwargs)
            if point:
                self.reach(f"{point}:after")
            return result

        setattr(owner, function, call)


def install_hooks(points: Points) -> None:
    """Install points around every call that stores something."""
    import mlflow.pytorch
    import torch
    from mlflow import MlflowClient

    from digitlab.data import download
    from digitlab.tracking.deferred import DeferredClient
    from digitlab.tracking.run import Run
    from digitlab.training.checkpoint import EpochCheckpoint
    from digitlab.training.classifier import Classifier

    def of_checkpoint(path: object) -> bool:
        return Path(os.fspath(path)).parent.name == "checkpoints"

    def synced(descriptor: int) -> str | None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return "sync-folder" if path.name == "checkpoints" else "sync-file" if of_checkpoint(path) else None

    points.around(os, "fsync", synced)
    points.around(os, "replace", lambda _, to: f"name-{Path(to).stem}" if of_checkpoint(to) else None)
    points.around(os, "unlink", lambda path, **_: "delete" if of_checkpoint(path) else None)
    points.around(torch, "save", lambda content, *_, **__: "pickle" if "callbacks" in content else None)
    real_open = io.open

    def open_(file, mode="r", *args, **kwargs):
        is_ours = not isinstance(file, int) and "w" in mode and of_checkpoint(file)
        if not is_ours:
            return real_open(file, mode, *args, **kwargs)
        points.reach("open:before")
        opened = real_open(file, mode, *args, **kwargs)
        points.reach("open:after")
        write = opened.write

        def in_halves(content):
            points.reach("write:before")
            middle = len(content) // 2
            write(content[:middle])
            opened.flush()
            points.reach("write:half")
            write(content[middle:])
            points.reach("write:after")

        opened.write = in_halves
        return opened

    io.open = open_
    points.around(download, "_download", lambda *_: "download")
    points.around(Path, "replace", lambda path, _: "download-name" if path.suffix == ".part" else None)
    points.around(EpochCheckpoint, "on_train_epoch_end", lambda *_: "epoch")
    points.around(Classifier, "training_step", lambda *_: "batch")
    points.around(Classifier, "validation_step", lambda *_: "validation")
    points.around(MlflowClient, "create_run", lambda *_, **__: "create")
    points.around(MlflowClient, "update_run", lambda *_, **__: "running")

    def tag(_, __, key, *___, **____) -> str | None:
        return "wanted" if key.startswith("wanted_by.") else "done" if key == "done" else None

    for client in (MlflowClient, DeferredClient):
        points.around(client, "log_batch", lambda *_, metrics=(), **__: "points" if metrics else None)
        points.around(client, "set_terminated", lambda *_, **__: "terminate")
        points.around(client, "set_tag", tag)
        points.around(client, "log_artifact", lambda *_: "arrays")
    points.around(MlflowClient, "log_text", lambda *_: "text")
    points.around(MlflowClient, "log_figure", lambda *_: "figure")
    points.around(Run, "log_model", lambda *_, **__: "model")
    points.around(mlflow.pytorch, "save_model", lambda *_, **__: "model-file")


def skip_pictures(change: Callable[[object, str, object], None] = setattr) -> None:
    """Skip figures and model, which take most of the time of a small run."""
    from digitlab.plots import run_figures
    from digitlab.tracking import run

    for name in ("samples", "curves", "confusion", "mistakes"):
        change(run_figures, name, lambda *_: None)
    change(run.Run, "log_figure", lambda *_: None)
    change(run.Run, "log_model", lambda self, name, *_, **__: setattr(self, "model", name))


def download_from_here() -> None:
    """Let a server in this process be the only mirror of the data sets."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from torchvision import datasets

    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    data = os.environ.get("DIGITLAB_DATA", REPOSITORY / "data")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=data))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("MNIST", "FashionMNIST"):
        getattr(datasets, name).mirrors = [f"http://127.0.0.1:{server.server_port}/{name}/raw/"]


def keep_every_epoch() -> None:
    """Copy each epoch's checkpoint to a folder beside the run's own."""
    from digitlab.training.checkpoint import EpochCheckpoint

    save = EpochCheckpoint.on_train_epoch_end

    def save_and_copy(self, *args) -> None:
        save(self, *args)
        kept = self.folder.with_name("epochs")
        kept.mkdir(exist_ok=True)
        shutil.copy(self.folder / "last.ckpt", kept / f"{self.epoch}.ckpt")

    EpochCheckpoint.on_train_epoch_end = save_and_copy


def on_another_host() -> None:
    """Be a process of the host that the environment names, where leases lapse within seconds."""
    import socket

    from digitlab.tracking import lease, turn

    socket.gethostname = lambda: os.environ["HOST"]
    lease.BEAT, lease.LAPSE, turn.LOOK_AGAIN = 2, 8, 0.5


def end_soon_without_server() -> None:
    """Wait no longer at the end of a run than for an outage of a minute."""
    from digitlab.tracking import delivery

    delivery.PATIENCE = 62


def clock_an_hour_back() -> None:
    _shift_clock(lambda calls: -3600)


def clock_a_day_ahead() -> None:
    _shift_clock(lambda calls: 86_400)


def clock_jumps_back() -> None:
    """Set the clock back in the middle of a run."""
    _shift_clock(lambda calls: -600 if calls > 100 else 0)


def _shift_clock(shift: Callable[[int], float]) -> None:
    from digitlab.tracking import logger

    real, calls = time.time, itertools.count()
    time.time = logger.time = lambda: real() + shift(next(calls))


def main(fault: str, trace: int, arguments: list[str], changes: list[str]) -> None:
    """Do what `python src/train.py ARGUMENTS` does, with `fault` and after the `changes`.

    Passed points are written to the file descriptor `trace`. A change is a function, as MODULE:NAME, to call first.
    """
    import digitlab.training.run  # noqa: F401  the functions to hook must exist

    install_hooks(Points([Fault(each) for each in fault.split(";")], trace))
    for change in changes:
        pkgutil.resolve_name(change)()
    sys.argv = ["src/train.py", *arguments]
    runpy.run_path(str(REPOSITORY / "src" / "train.py"), run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    what, *changed = sys.argv[1].split("+")
    main(what, 2, sys.argv[3:], changed)

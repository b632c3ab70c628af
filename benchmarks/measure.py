"""Measure cases side by side: in turn, in one run, with medians, ratios and their spread."""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

import yaml

from digitlab import REPOSITORY

DATA = os.environ.get("DIGITLAB_DATA", str(REPOSITORY / "data"))
IMPORTS = "import torch, pytorch_lightning, mlflow"  # what every run waits for
GRID = yaml.safe_load((REPOSITORY / "conf" / "sweep" / "grid.yaml").read_text())["hydra"]["sweeper"]["params"]
MODELS, OPTIMS = (GRID[key].split(",") for key in ("model", "optim"))  # the small networks, the tutorials' optimizers


def machine() -> str:
    """Say what this is measured on, one line."""
    names = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "mlflow"))
    cores = f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"
    return f"{date.today()}, {cores}, Python {platform.python_version()}, {versions}"


def _read(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


@dataclass(frozen=True)
class Process:
    """What a Python process took, and what it wrote to stdout."""

    seconds: float
    processor_seconds: float  # of all its threads, on a machine that others may use too
    peak: int  # MiB
    out: str


def python(*arguments: str, cwd: Path = REPOSITORY) -> Process:
    """Run Python on `arguments` in a checkout to its end; end this process too where it fails."""
    with TemporaryFile("w+") as out:
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, stdout=out)
        status = Path(f"/proc/{process.pid}/status")
        ended = 0
        while not ended:
            with suppress(OSError):  # getrusage would count this process's peak too
                lines = [line.split() for line in status.read_text().splitlines()]
                peak = max([peak, *(int(line[1]) // 1024 for line in lines if line[0] == "VmHWM:")])
            time.sleep(0.02)
            ended, process.returncode, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"error: python {' '.join(map(str, arguments))} failed")
        out.seek(0)
        return Process(seconds, usage.ru_utime + usage.ru_stime, peak, out.read())


def layers(name: str) -> dict:
    """Return what a network of conf/model is made of, as keywords of ConvNet."""
    node = yaml.safe_load((REPOSITORY / "conf" / "model" / f"{name}.yaml").read_text())
    return {"blocks": node.get("blocks", []), "hidden": node.get("hidden", [])}


def unpack_mnist(folder: str) -> None:
    """Put MNIST into `folder` as the usual code wants it: the files unpacked."""
    from torchvision.datasets import MNIST

    shutil.copytree(f"{DATA}/MNIST", f"{folder}/MNIST")
    MNIST(folder, download=True)  # unpacks what is there


def configure(*overrides: str):
    """Compose what the command line would."""
    from digitlab.config.arguments import understood
    from digitlab.config.compose import compose, configuration

    with configuration():
        return compose(*understood(overrides))


def seconds(call: Callable, repeats: int = 1) -> float:
    """Return the seconds of one call, the mean over `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def in_turn(cases: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run every case once a round, A B C A B C; return each case's values, those of the warm-up rounds left out."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for each in range(warm_up + rounds):
        for name, case in cases.items():
            value = case()
            if each >= warm_up:
                values[name].append(value)
    return values


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the ratio of the medians, and the lowest and highest ratio of any round."""
    rounds = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ours) / statistics.median(theirs), min(rounds), max(rounds)


def verdict(ours: list[float], theirs: list[float]) -> str:
    """Write a ratio with its spread, and whether anything follows from it."""
    middle, low, high = ratio(ours, theirs)
    unclear = " no conclusion: the rounds disagree" if low < 1 < high else ""
    return f"{middle:.2f} [{low:.2f}..{high:.2f}]{unclear}"


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table under a title, and the machine."""
    print(f"\n### {title}\n\n{machine()}\n")
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()

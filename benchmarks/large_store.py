"""Time what people ask of a store of 10,000 runs: PYTHONPATH=src python benchmarks/large_store.py

The runs are made up, as in report_2000.py: 84 sweeps of 120 runs, a day apart. Each command is one process; what it
takes in a store of one such sweep stands beside it.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import python, show
from report_2000 import MODELS, OPTIMS, fill

from digitlab.tracking.store import Store

PLAN = ["src/train.py", "-m", "model=mlp,cnn_simple,cnn_pool,cnn_single_5x5", "optim=adam,sgd,adadelta,adamw,rmsprop",
        "seed=range(5)", "sweep.dry_run=true"]  # fmt: skip
COMMANDS = {
    "report of a sweep of 120 runs": ["src/report.py", "report.sweep=sweep0"],
    "plan of 100 cells": PLAN,
    "`digitlab explain latest`": ["-m", "digitlab", "explain", "latest"],
    "`digitlab explain best:model=cnn_pool`": ["-m", "digitlab", "explain", "best:model=cnn_pool"],
}


def make(folder: Path, sweeps: int) -> str:
    """Return the address of a store with that many sweeps, the first one the newest."""
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", "digitlab")
    store.open()
    for n in range(sweeps):
        fill(
            store,
            MODELS[:6],
            OPTIMS[:4],
            [1 + 0.002 * n],
            seeds=5,
            epochs=12,
            steps=20,
            sweep=f"sweep{n}",
            days_ago=n + 1,
        )
    return store.uri


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=84)
    with TemporaryDirectory() as temporary:
        stores = {sweeps: make(Path(temporary) / str(sweeps), sweeps) for sweeps in (1, parser.parse_args().sweeps)}
        rows = []
        for what, command in COMMANDS.items():
            row = [what]
            for uri in stores.values():
                os.environ["MLFLOW_TRACKING_URI"] = uri
                extra = [f"report.dir={Path(temporary) / 'report'}"] if command[0] == "src/report.py" else []
                run = python(*command, *extra)
                row += [f"{run.seconds:.1f}", f"{run.processor_seconds:.1f}", str(run.peak)]
            rows.append(row)
    sizes = [f"{120 * sweeps:,} runs" for sweeps in stores]
    headings = [f"{size}: {unit}" for size in sizes for unit in ("s", "s of processor", "peak MiB")]
    show("Commands in a small and in a large store, n = 1", ["command", *headings], rows)


if __name__ == "__main__":
    main()

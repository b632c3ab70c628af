"""Time ours against peers, each whole process in turn: Keras on TensorFlow, a Lightning template, the plain loop.

Peers are written in their own idioms with their own defaults (benchmarks/peers/) and train the same network on the same
images; Keras has a virtual environment of its own, the first argument names its Python.
PYTHONPATH=src python benchmarks/peers.py PYTHON_WITH_KERAS [rounds]
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import DATA, in_turn, show, unpack_mnist, verdict

from digitlab import REPOSITORY
from digitlab.data.sources import torchvision_mnist
from digitlab.platform import machine

KERAS = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
PEERS = REPOSITORY / "benchmarks" / "peers"


def process(*command: str) -> tuple[float, float]:
    """Return the seconds of a whole process, and the median of those that it prints for its epochs after the first."""
    start = time.perf_counter()
    out = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    epochs = [float(found) for found in re.findall(r"(?:epoch_s |acc [\d.]+  )([\d.]+)(?: s,|\n)", out.stdout)]
    return whole, statistics.median(epochs[1:] or epochs)


def ours(*overrides: str, door: str = "src/train.py") -> tuple[float, float]:
    return process(sys.executable, door, *overrides, "rerun=true")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/ours.db"
        images = torchvision_mnist(Path(DATA)).train
        file = f"{folder}/mnist.npz"
        np.savez(file, images=images[0][:54_000].numpy(), labels=images[1][:54_000].numpy())
        unpack_mnist(folder)
        simple = ["model=cnn_simple", "optim=adam", "trainer.max_epochs=3"]
        double = ["model=cnn_double_3x3", "optim=adadelta", "optim.rho=0.9", "data.batch_size=64", "data.split=test"]
        dense = ["optim=adam", "data.val_fraction=0.0834"]
        kinds = {"ours fp32": "trainer.precision=32-true"}
        if machine.computes_in_bf16("cpu"):  # elsewhere it is emulated
            kinds["ours bf16"] = "trainer.precision=bf16-mixed"
        template = [str(PEERS / "template.py"), folder, f"sqlite:///{folder}/template.db"]
        dense_door = str(PEERS / "ours_dense.py")
        groups = {
            "cnn_simple, 54,000 images, 3 epochs": {
                "Keras 3 + TensorFlow": lambda: process(KERAS, str(PEERS / "keras_simple.py"), file, "3"),
                **{name: lambda kind=kind: ours(*simple, kind) for name, kind in kinds.items()},
            },
            "dense, batch norm, 55,000 images, 3 epochs": {
                "Lightning template": lambda: process(sys.executable, *template, "3"),
                "ours fp32": lambda: ours(*dense, "trainer.max_epochs=3", door=dense_door),
            },
            "dense, batch norm, 55,000 images, 1 epoch": {
                "Lightning template": lambda: process(sys.executable, *template, "1"),
                "ours fp32": lambda: ours(*dense, "trainer.max_epochs=1", door=dense_door),
            },
            "cnn_double_3x3, 60,000 images, batch 64, 1 epoch": {
                "plain PyTorch example": lambda: process(sys.executable, str(PEERS / "plain_loop.py"), folder, "1"),
                **{name: lambda kind=kind: ours(*double, "trainer.max_epochs=1", kind) for name, kind in kinds.items()},
            },
        }
        for work, cases in groups.items():
            values = in_turn(cases, ROUNDS, warm_up=0)
            peer, *mine = values
            rows = []
            for name in mine:
                of = [[pair[index] for pair in values[each]] for index in (1, 0) for each in (peer, name)]
                rows.append([f"{name} against {peer}",
                             *(f"{statistics.median(a):.2f} / {statistics.median(b):.2f}" for a, b in (of[:2], of[2:])),
                             verdict(of[0], of[1]), verdict(of[2], of[3])])  # fmt: skip
            header = ["who", "s/epoch theirs / ours", "process s theirs / ours", "epochs: faster", "process: faster"]
            show(f"{work}: whole processes, n = {ROUNDS} rounds in turn", header, rows)


if __name__ == "__main__":
    main()

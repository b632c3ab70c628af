"""Measure the peak memory of a full-MNIST cnn_pool run above that of its bare imports, each in a process of its own.

PYTHONPATH=src python benchmarks/memory.py [epochs]
"""

import os
import sys
import tempfile

from measure import IMPORTS, python, show

EPOCHS = sys.argv[1] if len(sys.argv) > 1 else "2"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        imports = python("-c", IMPORTS).peak
        run = python("src/train.py", "model=cnn_pool", "optim=adadelta", f"trainer.max_epochs={EPOCHS}").peak
    show(
        "Peak memory, full MNIST, n = 1",
        ["bare imports MiB", "cnn_pool run MiB", "above"],
        [[str(imports), str(run), str(run - imports)]],
    )


if __name__ == "__main__":
    main()

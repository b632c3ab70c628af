"""Measure the peak memory of a full-MNIST cnn_pool run above that of its bare imports, each in a process of its own.

PYTHONPATH=src python benchmarks/memory.py [epochs]
"""

import os
import subprocess
import sys
import tempfile

from measure import ROOT, show

EPOCHS = sys.argv[1] if len(sys.argv) > 1 else "2"
PEAK = "import resource; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
IMPORTS = f"import torch, pytorch_lightning, mlflow, torchmetrics, sklearn.metrics, matplotlib.pyplot; {PEAK}"
RUN = f"import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); {PEAK}"


def peak(*arguments: str) -> int:
    """Return the peak MiB of a Python process."""
    out = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return int(out.rpartition("peak ")[2])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        imports = peak("-c", IMPORTS)
        run = peak("-c", RUN, "src/train.py", "model=cnn_pool", "optim=adadelta", f"trainer.max_epochs={EPOCHS}")
    show(
        "Peak memory, full MNIST, n = 1",
        ["bare imports MiB", "cnn_pool run MiB", "above"],
        [[str(imports), str(run), str(run - imports)]],
    )


if __name__ == "__main__":
    main()

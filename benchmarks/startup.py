"""Time the starts: `--cfg job`, the first training step, and a whole short run.

Each against `import torch, pytorch_lightning, mlflow`, all in processes of their own, in turn, warm cache and store.
PYTHONPATH=src python benchmarks/startup.py [rounds]
"""

import os
import statistics
import sys
import tempfile

from measure import IMPORTS, in_turn, python, show, verdict

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
# The door, left at the first optimizer step: Adam's own, so that everything before it has been done.
FIRST_STEP = """
import os, runpy, sys
sys.path.insert(0, "src")
from digitlab.platform.startup import fast_imports
with fast_imports():  # as the door loads it
    import torch
def leave(*_, **__):
    os._exit(0)
torch.optim.Adam.step = leave
sys.argv = ["src/train.py", *sys.argv[1:]]
runpy.run_path("src/train.py", run_name="__main__")
"""
RUN = ["model=mlp", "optim=adam", "data=mnist5k", "trainer=smoke", "rerun=true"]


def process(*arguments: str):
    """Return a case: the seconds of a Python process with these arguments."""

    return lambda: python(*arguments).seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        process("src/train.py", *RUN)()
        cases = {
            IMPORTS: process("-c", IMPORTS),
            "src/train.py --cfg job": process("src/train.py", "--cfg", "job"),
            "src/train.py to the first training step": process("-c", FIRST_STEP, *RUN),
            "src/train.py, one epoch of mlp on mnist5k, whole": process("src/train.py", *RUN),
        }
        values = in_turn(cases, ROUNDS)
    base = values[IMPORTS]
    rows = [[name, f"{statistics.median(each):.2f}", verdict(each, base)] for name, each in values.items()]
    show(f"Start-up, n = {ROUNDS} rounds in turn", ["process", "s, median", "over the imports"], rows)


if __name__ == "__main__":
    main()

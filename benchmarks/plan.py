"""Time a sweep of 100 full-MNIST cells that are all done, start to finish; the store is made without training.

PYTHONPATH=src python benchmarks/plan.py [rounds]
"""

import itertools
import os
import statistics
import sys
import tempfile

from measure import configure, python, show
from mlflow.entities import Metric, Param

from digitlab.config.leaves import flatten
from digitlab.tracking.begin import begin
from digitlab.tracking.store import Store
from digitlab.training.setup import identify, name_parts, name_run

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
MODELS, OPTIMS, SEEDS = "mlp,cnn_simple,cnn_pool,cnn_single_5x5", "adam,sgd,adadelta,adamw,rmsprop", range(5)


def record(store: Store, model: str, optim: str, seed: int) -> None:
    """Record a run as training would have left it."""
    cfg, data, fingerprint = identify(configure(f"model={model}", f"optim={optim}", f"seed={seed}"))
    names = name_parts(cfg, data)
    run = begin(store, name_run(cfg, names), {"fingerprint": fingerprint, **names})
    points = [Metric(key, 0.9, 1, epoch) for epoch in range(13) for key in ("train/acc", "val/loss", "val/acc")]
    points += [Metric("train/loss_step", 0.1, 1, step) for step in range(500)]
    points += [Metric(key, 0.9, 1, 12) for key in ("test/acc", "test/loss")]
    params = {key: value for key, value in (names | flatten(cfg)).items() if not key.startswith("tracking")}
    store.client.log_batch(run.id, points, [Param(key, value) for key, value in params.items()])
    store.client.set_terminated(run.id, "FINISHED")
    store.client.set_tag(run.id, "done", "true")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        store = Store(os.environ["MLFLOW_TRACKING_URI"], "digitlab")
        store.open()
        for cell in itertools.product(MODELS.split(","), OPTIMS.split(","), SEEDS):
            record(store, *cell)
        command = ["src/train.py", "-m", f"model={MODELS}", f"optim={OPTIMS}", f"seed={','.join(map(str, SEEDS))}"]
        runs = [python(*command) for _ in range(ROUNDS)]
    for run in runs:
        if "100 of 100 cells are done" not in run.out:
            sys.exit(f"error: the cells are not all done:\n{run.out[-2000:]}")
    seconds = [run.seconds for run in runs]
    show(
        f"A sweep of 100 done cells, start to finish, n = {ROUNDS}",
        ["median s", "lowest", "highest"],
        [[f"{statistics.median(seconds):.1f}", f"{min(seconds):.1f}", f"{max(seconds):.1f}"]],
    )


if __name__ == "__main__":
    main()

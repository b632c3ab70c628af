"""Time a sweep of short runs against the same cells as processes of their own, and what a run costs beside its passes.

PYTHONPATH=src python benchmarks/cells.py
"""

import os
import statistics
import tempfile

from measure import MODELS, OPTIMS, python, show
from mlflow import MlflowClient

SHORT = ["data=mnist5k", "trainer=smoke"]


def run(*arguments: str) -> float:
    """Return the seconds of `python src/train.py`."""
    return python("src/train.py", *arguments, *SHORT).seconds


def fixed_costs(uri: str) -> list[float]:
    """Return for each run its seconds without those of its training passes."""
    client = MlflowClient(uri)
    costs = []
    for each in client.search_runs([client.get_experiment_by_name("digitlab").experiment_id]):
        if "time/epoch_s" in each.data.metrics:
            passes = sum(point.value for point in client.get_metric_history(each.info.run_id, "time/epoch_s"))
            costs.append((each.info.end_time - each.info.start_time) / 1000 - passes)
    return costs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/sweep.db"
        run("model=mlp", "optim=adam", "seed=1")  # the store exists in both cases
        together = run("sweep=grid")
        costs = fixed_costs(os.environ["MLFLOW_TRACKING_URI"])
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/processes.db"
        run("model=mlp", "optim=adam", "seed=1")
        alone = sum(run(f"model={model}", f"optim={optim}") for model in MODELS for optim in OPTIMS)
    count = len(MODELS) * len(OPTIMS)
    cheapest, middle = min(costs), statistics.median(costs)
    show(
        f"{count} cells of one epoch on the embedded data, n = 1",
        ["sweep s", "processes s", "processes / sweep", "a run beside its training passes: median s", "lowest s"],
        [[f"{together:.1f}", f"{alone:.1f}", f"{alone / together:.1f}", f"{middle:.2f}", f"{cheapest:.2f}"]],
    )


if __name__ == "__main__":
    main()

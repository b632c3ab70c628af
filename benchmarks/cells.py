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


def passes(uri: str) -> dict[str, list[tuple[float, float]]]:
    """Return of each network's runs the seconds of the training passes, and those of all besides."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digitlab").experiment_id
    of: dict[str, list[tuple[float, float]]] = {}
    for each in client.search_runs([experiment], "params.seed = '0'"):
        if "time/epoch_s" in each.data.metrics:
            trained = sum(point.value for point in client.get_metric_history(each.info.run_id, "time/epoch_s"))
            whole = (each.info.end_time - each.info.start_time) / 1000
            of.setdefault(each.data.params["model"], []).append((trained, whole - trained))
    return of


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/sweep.db"
        run("model=mlp", "optim=adam", "seed=1")  # the store exists in both cases
        together = run("sweep=grid")
        of = passes(os.environ["MLFLOW_TRACKING_URI"])
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/processes.db"
        run("model=mlp", "optim=adam", "seed=1")
        alone = sum(run(f"model={model}", f"optim={optim}") for model in MODELS for optim in OPTIMS)
    count = len(MODELS) * len(OPTIMS)
    trained = sum(seconds for each in of.values() for seconds, _ in each)
    besides = [seconds for _, seconds in of["mlp"][:-1]]  # it evaluates in no time; the oldest loaded the libraries
    show(
        f"{count} cells of one epoch on the embedded data, n = 1",
        ["sweep s", "processes s", "processes / sweep", "of both, training s", "processes / sweep without it",
         "a run of mlp beside its training: median s"],
        [[f"{together:.1f}", f"{alone:.1f}", f"{alone / together:.1f}", f"{trained:.1f}",
          f"{(alone - trained) / (together - trained):.1f}", f"{statistics.median(besides):.2f} (n = {len(besides)})"]],
    )  # fmt: skip


if __name__ == "__main__":
    main()

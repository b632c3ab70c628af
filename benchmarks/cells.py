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
    cores = len(os.sched_getaffinity(0))
    sweeps = {"one after another": [], f"{cores} at once": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}"]}
    together = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (way, launcher) in enumerate(sweeps.items()):
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/sweep{number}.db"
            run("model=mlp", "optim=adam", "seed=1")  # the store exists in all cases
            together[way] = run("sweep=grid", *launcher)
        serial = passes(f"sqlite:///{folder}/sweep0.db")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/processes.db"
        run("model=mlp", "optim=adam", "seed=1")
        alone = sum(run(f"model={model}", f"optim={optim}") for model in MODELS for optim in OPTIMS)
    rows = [[way, f"{seconds:.1f}", f"{alone:.1f}", f"{alone / seconds:.1f}"] for way, seconds in together.items()]
    count = len(MODELS) * len(OPTIMS)
    show(
        f"{count} cells of one epoch on the embedded data, n = 1",
        ["the sweep's cells", "sweep s", "processes s", "processes / sweep"],
        rows,
    )
    trained = sum(seconds for each in serial.values() for seconds, _ in each)
    besides = [seconds for _, seconds in serial["mlp"][:-1]]  # it evaluates in no time; the first loads the libraries
    show(
        "What these cells cost beside their training, one after another",
        ["training s, all cells", "processes / sweep without it", "a run of mlp beside it: median s"],
        [[f"{trained:.1f}", f"{(alone - trained) / (together['one after another'] - trained):.1f}",
          f"{statistics.median(besides):.2f} (n = {len(besides)})"]],
    )  # fmt: skip


if __name__ == "__main__":
    main()

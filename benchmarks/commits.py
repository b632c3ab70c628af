"""Time this code against another checkout of it, both through the front door, in turn.

git worktree add --detach ../before COMMIT; PYTHONPATH=src python benchmarks/commits.py ../before [rounds]
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import OPTIMS, Process, in_turn, python, show, verdict
from mlflow import MlflowClient

from digitlab import REPOSITORY

OTHER = Path(sys.argv[1]).resolve()
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 7
RUN = ["optim=adam", "data=mnist5k", "trainer=smoke", "rerun=true"]
NETWORKS = ("mlp", "cnn_simple", "cnn_pool", "cnn_double_3x3")
Case = Callable[[Path, Path], float]  # of a checkout and a folder of its own: seconds


def processor(*arguments: str, script: str = "src/train.py") -> Case:
    """Return a case: the processor seconds of a script, which other programs on the machine disturb less."""
    return lambda checkout, folder: run(checkout, folder, script, *arguments).processor_seconds


def epoch(model: str) -> Case:
    """Return a case: the seconds of an epoch of a network, the faster of its second and third, as the run says."""

    def measure(checkout: Path, folder: Path) -> float:
        run(checkout, folder, "src/train.py", f"model={model}", *RUN, "trainer.max_epochs=3")
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        newest = client.search_runs([client.get_experiment_by_name("digitlab").experiment_id], max_results=1)[0]
        return min(point.value for point in client.get_metric_history(newest.info.run_id, "time/epoch_s")[1:])

    return measure


def run(checkout: Path, folder: Path, *arguments: str) -> Process:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    os.environ["PYTHONPATH"] = str(checkout / "src")
    return python(*arguments, cwd=checkout)


def main() -> None:
    smoke = ["sweep=smoke", f"optim={','.join(OPTIMS)}", "trainer.max_epochs=1"]
    cases = {
        "`--cfg job`": processor("--cfg", "job"),
        "one epoch of mlp, the whole process": processor("model=mlp", *RUN),
        "a sweep of six cells that are all done": processor(*smoke),
        "its report": processor("report.sweep=smoke", script="src/report.py"),
        **{f"an epoch of {model}": epoch(model) for model in NETWORKS},
    }
    checkouts = {"this": REPOSITORY, "other": OTHER}
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: Path(folder) / name for name in checkouts}
        for name, checkout in checkouts.items():
            folders[name].mkdir()
            run(checkout, folders[name], "src/train.py", *smoke)
        rows = []
        for case, measure in cases.items():
            each = {name: partial(measure, checkout, folders[name]) for name, checkout in checkouts.items()}
            values = in_turn(each, ROUNDS, warm_up=0)
            medians = [f"{statistics.median(found):.2f}" for found in values.values()]
            rows.append([case, *medians, verdict(values["this"], values["other"])])
            print(*rows[-1], file=sys.stderr, flush=True)
    show(
        f"This code against {OTHER.name}, n = {ROUNDS} rounds in turn",
        ["case", "this: s", "other: s", "this / other"],
        rows,
    )


if __name__ == "__main__":
    main()

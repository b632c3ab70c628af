"""Report a store of 2,000 made-up runs and print time and peak memory: PYTHONPATH=src python benchmarks/report_2000.py

The rows go into the database at once, through MLflow's own tables: through its client they would take an hour. Their
parameters are those of real configurations, their curves approach an accuracy that depends on network, optimizer and
learning rate, with noise of the seed.
"""

import argparse
import json
import os
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
from measure import configure, python, show
from mlflow.store.tracking.dbmodels import models as table
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from digitlab import REPOSITORY
from digitlab.config.check import check
from digitlab.config.leaves import flatten
from digitlab.tracking import queries
from digitlab.tracking.store import Store

MODELS, OPTIMS = (sorted(file.stem for file in (REPOSITORY / "conf" / group).iterdir()) for group in ("model", "optim"))
SIZES = {"train": 54_000, "val": 6_000, "test": 10_000}
ENVIRONMENT = "python 3.11.7\ntorch 2.15.0\nmlflow 3.17.2\nCPU: made up, 2 cores, 2 threads\nGPU: none found\n"


def fill(
    store: Store,
    models: list[str],
    optims: list[str],
    rates: list[float],
    seeds: int,
    epochs: int,
    steps: int,
    sweep: str = "made-up",
    days_ago: int = 12,
) -> int:
    """Write one sweep of every combination; each run has `steps` points by optimizer step."""
    draw, start = np.random.default_rng(0), int((time.time() - 86_400 * days_ago) * 1000)
    parent = store.client.create_run(
        store.experiment_id, start, {"fingerprint": f"sweep-{sweep}", "sweep": sweep, "done": "true"}, sweep
    ).info.run_id
    rows = {model: [] for model in (table.SqlRun, table.SqlParam, table.SqlTag, table.SqlMetric, table.SqlLatestMetric)}
    inputs, cells = [], []
    predictions = store.file.parent / "predictions.npz"
    answers, labels = draw.dirichlet(np.full(10, 0.02), SIZES["test"]).astype(np.float32), np.arange(SIZES["test"]) % 10
    answers[np.arange(9900), labels[:9900]] += 1  # right but for a hundred
    mistaken = np.flatnonzero(answers.argmax(1) != labels)
    images = draw.integers(0, 256, (len(mistaken), 28, 28), dtype=np.uint8)
    np.savez_compressed(
        predictions,
        probabilities=answers,
        labels=labels,
        classes=list("0123456789"),
        mistaken=mistaken,
        mistaken_images=images,
    )
    dataset = uuid4().hex
    for m, model in enumerate(models):
        for o, optim in enumerate(optims):
            values = flatten(check(configure(f"model={model}", f"optim={optim}", "trainer=cpu")))
            settings = {key: value for key, value in values.items() if not key.startswith("names.")}
            for factor in rates:
                for seed in range(seeds):
                    lr = f"{float(settings['optim.lr']) * factor:g}"
                    own = {"model": model, "optim": optim, "data": "mnist", "seed": str(seed), "data.seed": str(seed)}
                    params = settings | own | {"optim.lr": lr, "parameters": str(30_000 * 2**m)}
                    params |= {"trainer.max_epochs": str(epochs)}
                    run_id, name = uuid4().hex, f"{model}-{optim}-s{seed}"
                    fingerprint = sha256(f"{model}{optim}{lr}{seed}".encode()).hexdigest()[:16]
                    tags = own | {"fingerprint": fingerprint, "done": "true", "owner": "made-up:1:1"}
                    tags |= {"mlflow.runName": name, "mlflow.parentRunId": parent, "sweep": sweep}
                    tags |= {"environment": ENVIRONMENT, "git.dirty": "false", "mlflow.source.git.commit": "0" * 40}
                    ended = start + 90_000
                    error = (0.008 + 0.0012 * abs(m - 3)) * (2.5 if optim == "sgd" else 1) * (1 + abs(np.log10(factor)))
                    error += 0.0008 * o / len(optims)
                    final = 1 - error + draw.normal(0, 0.0006)
                    pace = 1.2 if optim == "sgd" else 0.7
                    curve = final - 0.3 * np.exp(-pace * np.arange(1, epochs + 1)) + draw.normal(0, 0.0005, epochs)
                    tags[queries.BEST] = np.format_float_positional(np.round(curve, 4).max())
                    points = {
                        "val/acc": [0.1, *np.round(curve, 4)],
                        "val/loss": [2.3, *(4 * (1 - curve))],
                        "train/acc": [None, *curve],
                        "train/loss": [None, *(4 * (1 - curve))],
                        "time/epoch_s": [None, *(2.0 * 1.3**m + draw.normal(0, 0.05, epochs))],
                        "images_per_s": [None, *np.full(epochs, 2000.0)],
                        "train/loss_step": [None, *draw.random(steps)],
                        "test/acc": [None] * epochs + [round(final, 4)],
                        "test/loss": [None] * epochs + [4 * (1 - final)],
                    }
                    rows[table.SqlRun].append(
                        {"run_uuid": run_id, "name": name, "source_type": "LOCAL", "user_id": "made up",
                         "status": "FINISHED", "start_time": start, "end_time": ended, "lifecycle_stage": "active",
                         "experiment_id": int(store.experiment_id),
                         "artifact_uri": f"{(store.file.parent / 'artifacts' / run_id / 'artifacts').as_uri()}"}
                    )  # fmt: skip
                    rows[table.SqlParam] += [{"key": k, "value": v, "run_uuid": run_id} for k, v in params.items()]
                    rows[table.SqlTag] += [{"key": k, "value": v, "run_uuid": run_id} for k, v in tags.items()]
                    for key, values in points.items():
                        known = [
                            {"key": key, "value": float(value), "timestamp": ended, "step": step, "run_uuid": run_id,
                             "is_nan": False}
                            for step, value in enumerate(values) if value is not None
                        ]  # fmt: skip
                        rows[table.SqlMetric] += known
                        rows[table.SqlLatestMetric].append(known[-1])
                    inputs.append({"input_uuid": uuid4().hex, "source_type": "DATASET", "source_id": dataset,
                                   "destination_type": "RUN", "destination_id": run_id, "step": 0})  # fmt: skip
                    cells.append({"name": name, "fingerprint": fingerprint, "run_id": run_id})
                    start = ended + 1
                    artifacts = store.file.parent / "artifacts" / run_id / "artifacts"
                    artifacts.mkdir(parents=True)
                    (artifacts / "predictions.npz").hardlink_to(predictions)
    with Session(create_engine(store.uri)) as session:
        session.bulk_insert_mappings(
            table.SqlDataset,
            [{"dataset_uuid": dataset, "experiment_id": int(store.experiment_id), "name": "mnist",
              "digest": dataset[:12], "dataset_source_type": "local", "dataset_source": "{}",
              "dataset_profile": json.dumps(SIZES)}],
        )  # fmt: skip
        session.bulk_insert_mappings(table.SqlInput, inputs)
        for model, values in rows.items():
            session.bulk_insert_mappings(model, values)
        session.commit()
    store.client.log_text(parent, json.dumps(cells), "sweep.json")
    store.client.set_terminated(parent, "FINISHED")
    return len(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=9)
    parser.add_argument("--optims", type=int, default=6)
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0], help="times the optimizer's own learning rate")
    parser.add_argument("--seeds", type=int, default=37)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200, help="points by optimizer step of each run")
    parser.add_argument("--folder", type=Path, help="keep store and report here")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        store = Store(f"sqlite:///{folder / 'mlflow.db'}", "digitlab")
        store.open()
        began = time.perf_counter()
        count = fill(store, MODELS[: arguments.models], OPTIMS[: arguments.optims], arguments.rates, arguments.seeds,
                     arguments.epochs, arguments.steps)  # fmt: skip
        size, made = store.file.stat().st_size / 2**20, time.perf_counter() - began
        os.environ["MLFLOW_TRACKING_URI"] = store.uri
        run = python("src/report.py", f"report.dir={folder / 'report'}")
    show(
        f"A report of {count:,} runs, n = 1; the store of {size:,.0f} MiB was made in {made:.0f} s",
        ["s", "s of processor", "peak MiB"],
        [[f"{run.seconds:.1f}", f"{run.processor_seconds:.1f}", str(run.peak)]],
    )


if __name__ == "__main__":
    main()

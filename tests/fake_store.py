"""A store of made-up runs with known results."""

import csv
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunStatus, RunTag

if TYPE_CHECKING:
    from conftest import Harness

IMAGES = 1000


@cache
def empty_tables() -> bytes:
    """Return the sqlite file of an empty store, as MLflow creates it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{file}").search_experiments()
        return file.read_bytes()


class FakeStore:
    """A store of made-up runs, written by MLflow's client only."""

    def __init__(self, harness: "Harness"):
        self.harness = harness
        harness.folder.mkdir(parents=True)
        (harness.folder / "mlflow.db").write_bytes(empty_tables())
        self.experiment = harness.client.create_experiment("digitlab", (harness.folder / "artifacts").as_uri())
        self.clock = 1_700_000_000_000

    def record(
        self,
        model,
        optim,
        seed,
        accuracy,
        *,
        done=True,
        tested=True,
        loss=0.1,
        epochs=3,
        predictions=True,
        same=False,
        digest="d1ge57",
        **params,
    ) -> str:
        """Record a run that classifies `accuracy` of its 1,000 test images correctly, the first ones; return its id.

        One that is not `tested` has that validation accuracy after its last epoch, as the others do.

        All labels are of one class or, with `same`, all predictions are.
        """
        client, started = self.harness.client, self.clock
        settings = {"data": "mnist5k", "optim.lr": "0.1", "data.batch_size": "100", "parameters": "1234"} | params
        settings |= {} if tested else {"evaluate_on": "none"}
        settings |= {"model": model, "optim": optim, "seed": str(seed), "trainer.max_epochs": str(epochs)}
        tags = {"fingerprint": f"{sorted(settings.items())}", "owner": "here:1:1", "git.dirty": "false"}
        tags |= {"mlflow.source.git.commit": "abc", "environment": "torch 2.15.0\nCPU: fast, 2 cores\n"}
        run = client.create_run(self.experiment, started, tags, run_name=f"{model}-{optim}-s{seed}").info
        results = {"test/acc": accuracy, "test/loss": loss} if tested else {}
        points = [Metric(key, value, started, epochs) for key, value in results.items()]
        for epoch in range(epochs + 1):
            points.append(Metric("val/acc", accuracy - 0.01 * (epochs - epoch), started, epoch))
            points.append(Metric("val/loss", 1 - accuracy + 0.01 * (epochs - epoch), started, epoch))
            points += [Metric("time/epoch_s", 2.0, started, epoch)] if epoch else []
        client.log_batch(run.run_id, points, [Param(*each) for each in settings.items()])
        sizes = json.dumps({"train": 4000, "val": 500, "test": IMAGES})
        client.log_inputs(run.run_id, [DatasetInput(Dataset(settings["data"], digest, "local", "{}", profile=sizes))])
        if predictions and tested:
            wrong = np.arange(IMAGES) >= round(accuracy * IMAGES)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "predictions.npz"
                predicted, labels = (wrong * False, wrong) if same else (wrong, wrong * False)
                probabilities = np.stack([~predicted, predicted], axis=1).astype(np.float32)
                arrays = {"probabilities": probabilities, "labels": labels.astype(np.int64), "classes": ["0", "1"]}
                images = np.full((sum(wrong), 28, 28), 200, np.uint8)
                np.savez_compressed(file, **arrays, misclassified=np.flatnonzero(wrong), misclassified_images=images)
                client.log_artifact(run.run_id, file)
        self.clock += 10_000
        client.set_terminated(run.run_id, RunStatus.to_string(RunStatus.FINISHED), self.clock - 1000)
        if done:
            client.set_tag(run.run_id, "done", "true")
        return run.run_id

    def sweep(self, name: str, *ids: str, overrides: dict[str, list[str]] | None = None) -> str:
        """Record the parent run of a sweep over these runs, with the `overrides` of each; return its id."""
        client, fingerprint = self.harness.client, f"sweep-{name}"
        tags = {"fingerprint": fingerprint, "sweep": name, "done": "true"}
        parent = client.create_run(self.experiment, self.clock, tags, run_name=name).info.run_id
        cells = []
        for run_id in ids:
            run = client.get_run(run_id)
            client.log_batch(run_id, tags=[RunTag("mlflow.parentRunId", parent)])
            recorded = run_id if "done" in run.data.tags else None
            cell = {"name": run.info.run_name, "fingerprint": run.data.tags["fingerprint"], "run_id": recorded}
            cells.append(cell | {"overrides": (overrides or {}).get(run_id, [])})
        client.log_text(parent, json.dumps(cells), "sweep.json")
        self.clock += 10_000
        client.set_terminated(parent, RunStatus.to_string(RunStatus.FINISHED), self.clock)
        return parent

    def report(self, *arguments: str):
        return self.harness.main(*arguments, f"report.dir={self.folder}", entry_point="report")

    @property
    def folder(self) -> Path:
        return self.harness.folder / "report"

    def cells(self) -> dict[str, dict[str, str]]:
        with (self.folder / "report.csv").open() as file:
            return {f"{row['model']}/{row['optim']}": row for row in csv.DictReader(file)}

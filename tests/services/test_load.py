"""Many runs at once on one store, a file and a server: every point of every run arrives, once."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from conftest import REPOSITORY, Harness
from mlflow import MlflowClient
from services import Bucket, Postgres, missing, mlflow_server

PROCESSES, RUNS = map(int, os.environ.get("DIGITLAB_LOAD", "4x20").split("x"))
TINY = ("model=mlp", "trainer=smoke", "trainer.accelerator=cpu", "trainer.callbacks.progress=null", "data=mnist5k")
COMMAND = (sys.executable, "src/train.py", "-m", *TINY)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.night,
    pytest.mark.skipif(bool(missing()), reason=f"make test-services installs what it needs: {missing()}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # botocore's own
]


@pytest.fixture(params=["sqlite file", "server on PostgreSQL and S3"])
def uri(request, tmp_path) -> Iterator[str]:
    if request.param == "sqlite file":
        yield f"sqlite:///{tmp_path / 'mlflow.db'}"
        return
    postgres, bucket = Postgres(), Bucket()
    try:
        with mlflow_server(tmp_path / "server", postgres, bucket, is_proxied=True, has_auth=False) as server:
            yield server.uri
    finally:
        bucket.stop()
        postgres.close()


def counts(client: MlflowClient, run_id: str, keys: Mapping[str, float]) -> Counter[tuple[str, int]]:
    """Return how often each point of a run is there, by metric and step; not those of the machine."""
    return Counter(
        (key, point.step)
        for key in keys
        if not key.startswith("system/")
        for point in client.get_metric_history(run_id, key)
    )


def test_every_point_of_many_runs_at_once_arrives_once(uri, tmp_path):
    alone = Harness(tmp_path / "alone")
    assert alone.cli(*TINY).returncode == 0
    (oracle,) = alone.runs()
    expected = counts(alone.client, oracle.info.run_id, oracle.data.metrics)
    began = time.monotonic()
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "DIGITLAB_JOURNAL": str(tmp_path / "journal")}
    processes = [
        subprocess.Popen(
            [*COMMAND, f"seed=range({RUNS})", f"optim.lr=0.00{n + 1}", f"sweep.name=p{n}"],
            cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for n in range(PROCESSES)
    ]  # fmt: skip
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, [line for line in said.splitlines() if re.search("error|warning|failed", line)]
    print(f"\n{PROCESSES} x {RUNS} runs: {time.monotonic() - began:.0f} s")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digitlab")
    assert experiment
    runs = [
        run for run in client.search_runs([experiment.experiment_id], max_results=5000) if "model" in run.data.params
    ]
    assert len(runs) == PROCESSES * RUNS
    for run in runs:
        assert (run.info.status, run.data.tags["done"]) == ("FINISHED", "true")
        assert counts(client, run.info.run_id, run.data.metrics) == expected
        assert {each.path for each in client.list_artifacts(run.info.run_id)} >= {"config.yaml", "predictions.npz"}

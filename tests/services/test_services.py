"""MLflow's server on PostgreSQL and an S3 store: what digitlab does there, by way of artifacts and passwords."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from outages import SCENARIOS, OnServer, Outcome, Scenario, check, play, points_differ, printed
from services import BUCKET, PASSWORD, Bucket, Postgres, missing, mlflow_server

from digitlab.tracking.maintenance import BY_A_SERVER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.services,
    pytest.mark.skipif(bool(missing()), reason=f"make test-services installs what it needs: {missing()}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # botocore's own
]
# Each way to artifacts and each way in once; the other pairs are of the night, since MLflow hashes passwords slowly.
SERVERS = ["proxied with passwords", "direct"]
SERVERS += [pytest.param(kind, marks=pytest.mark.night) for kind in ("proxied", "direct with passwords")]
OUTAGES = ("server gone for 5 s", "kill -9 while the server is gone", "artifacts refused at the end")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres
    postgres.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    bucket = Bucket()
    yield bucket
    bucket.stop()


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, Outcome]]:
    with printed() as rows:
        yield rows


@pytest.mark.parametrize("kind", SERVERS)
def test_all_commands_work_on_each_kind_of_server(kind, postgres, bucket, oracle, tmp_path, rows, monkeypatch):
    is_proxied, has_auth = kind.startswith("proxied"), kind.endswith("passwords")
    environment = {} if is_proxied else bucket.environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with mlflow_server(tmp_path / kind.replace(" ", "-"), postgres, bucket, is_proxied, has_auth) as server:
        uri = server.uri.replace("://", f"://admin:{PASSWORD}@") if has_auth else server.uri
        client = MlflowClient(uri)

        def row(name: str, run: OnServer, began: float, code: int, *wrong: str, runs: int = 1) -> None:
            lost, twice, running, found = points_differ(client, run.experiment, oracle, runs)
            outcome = Outcome(code, lost, twice, running, time.monotonic() - began, (*found, *filter(None, wrong)))
            check(rows, f"{kind}: {name}", outcome)

        one = OnServer(tmp_path / f"one-{kind.replace(' ', '-')}", uri, environment)
        began = time.monotonic()
        row("train", one, began, one.execute(), one.output if "Traceback" in one.output else "")
        began = time.monotonic()
        code = one.execute()
        row("the same command again", one, began, code, "" if "is done already" in one.output else one.output)
        killed = OnServer(tmp_path / f"killed-{kind.replace(' ', '-')}", uri, environment)
        began = time.monotonic()
        code = killed.execute("KILL@points:after#3")
        again = killed.execute()
        row("kill -9, then the same command", killed, began, code, "" if again == 0 else killed.output)
        swept = OnServer(tmp_path / f"swept-{kind.replace(' ', '-')}", uri, environment)
        began = time.monotonic()
        workers = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        code = swept.execute("", "-m", "data.drop_last=false,true", "sweep.name=two", *workers)
        row("sweep with two workers", swept, began, code, "" if code == 0 else swept.output, runs=2)
        began = time.monotonic()
        where = (f"report.dir={tmp_path / 'report'}", f"tracking.experiment={swept.experiment}")
        told = swept.command("src/report.py", "report.sweep=two", *where)
        row("report", swept, began, told.returncode, told.stderr if told.returncode else "", runs=2)
        began = time.monotonic()
        told = one.command("-m", "digitlab", "store", "gc")
        is_told = "on its machine, mlflow gc" in told.stderr and PASSWORD not in told.stderr + told.stdout
        row("store gc, which says what to do", one, began, told.returncode, "" if is_told else told.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory, postgres, bucket):
    with mlflow_server(tmp_path_factory.mktemp("s") / "disturbed", postgres, bucket, True, False) as server:
        yield server


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.name in OUTAGES], ids=lambda each: each.name)
def test_a_run_outlives_an_outage(scenario, server, tmp_path, oracle, rows):
    check(rows, scenario.name, play(scenario, server.uri, tmp_path / tmp_path.name, oracle))


@pytest.mark.parametrize("name", ["PostgreSQL restarted in mid-run", "S3 silent for 8 s in mid-run"])
def test_a_run_outlives_what_is_behind_its_server(name, server, postgres, bucket, tmp_path, oracle, rows):
    restart = postgres.restart if name.startswith("PostgreSQL") else bucket.be_silent
    check(rows, name, play(Scenario(name), server.uri, tmp_path / tmp_path.name, oracle, restart))


def test_a_back_up_is_restored_and_deleted_runs_are_removed_for_good(postgres, bucket, tmp_path, monkeypatch):
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    other = Postgres()
    try:
        with mlflow_server(tmp_path / "before" / "kept", postgres, bucket, is_proxied=True, has_auth=False) as server:
            run = OnServer(tmp_path / "before" / "run", server.uri)
            assert run.execute() == 0, run.output
            dump = postgres.run("pg_dump", "--format=custom", "postgres")
        other.run("pg_restore", "--dbname=postgres", "--exit-on-error", given=dump)
        with mlflow_server(tmp_path / "after" / "kept", other, bucket, is_proxied=True, has_auth=False) as server:
            again = OnServer(tmp_path / "after" / "run", server.uri)
            assert again.execute() == 0, again.output
            assert "is done already" in again.output
            client = MlflowClient(server.uri)
            experiment = client.get_experiment_by_name(again.experiment)
            (restored,) = client.search_runs([experiment.experiment_id])
            assert client.list_artifacts(restored.info.run_id)
            client.delete_run(restored.info.run_id)
            (told,) = re.findall(r"mlflow (gc .*) removes", BY_A_SERVER["gc"])
            said = {"DATABASE": other.uri, "PLACE": f"s3://{BUCKET}/kept", "ADDRESS": server.uri}
            gc = [said.get(word, word) for word in told.split()]
            subprocess.run([sys.executable, "-m", "mlflow", *gc], check=True, capture_output=True)
            assert not client.search_runs([experiment.experiment_id], "", ViewType.ALL)
    finally:
        other.close()

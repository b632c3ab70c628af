"""digitlab store copy: all that a store has of its runs is in another one, once, and comes back."""

from pathlib import Path

import pytest
from conftest import Harness
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from servers import tracking_server

RUN = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "model=mlp", "trainer=cpu",
       "trainer.max_epochs=2")  # fmt: skip


def content(uri: str, folder: Path) -> dict[str, dict]:
    """By name all that a store has of each run, with names in the place of ids."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digitlab")
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    found = {}
    for run in map(client.get_run, names):
        run_id, name = run.info.run_id, run.info.run_name

        def named(text: str) -> str:
            for each, its_name in names.items():
                text = text.replace(each, its_name)
            return text

        place = Path(download_artifacts(run_id=run_id, dst_path=str(folder / run_id), tracking_uri=uri))
        models = client.search_logged_models([experiment.experiment_id], f"source_run_id = '{run_id}'")
        assert name not in found
        found[name] = {
            "status": (run.info.status, run.info.start_time, run.info.end_time),
            "params": run.data.params,
            "tags": {key: named(value) for key, value in run.data.tags.items() if not key.startswith("copied")},
            "points": {
                key: sorted(
                    (point.step, point.value, point.timestamp) for point in client.get_metric_history(run_id, key)
                )
                for key in run.data.metrics
            },
            "data": [each.dataset.to_dictionary() for each in run.inputs.dataset_inputs],
            "files": {
                str(file.relative_to(place)): named(file.read_text())
                if file.name == "sweep.json"
                else file.read_bytes()
                for file in place.rglob("*")
                if file.is_file()
            },
            "models": [
                (each.name, each.params, sorted((point.key, point.value, point.step) for point in each.metrics))
                for each in models
            ],
        }
    return found


def check(there: str, back: Harness, harness: Harness, tmp_path: Path, capsys) -> Harness:
    assert harness.main("-m", *RUN, "seed=0,1", "sweep.name=two") is None
    assert harness.main("store", "copy", "--to", there, entry_point="digitlab") is None
    assert "3 runs copied; 0 were there" in capsys.readouterr().out
    original = content(harness.uri, tmp_path / "1")
    assert content(there, tmp_path / "2") == original
    assert harness.main("store", "copy", "--to", there, entry_point="digitlab") is None
    assert "0 runs copied; 3 were there" in capsys.readouterr().out
    assert content(there, tmp_path / "3") == original
    server = Harness(tmp_path / "server")
    server.uri = there
    for target in (back, harness):
        assert server.main("store", "copy", "--to", target.uri, entry_point="digitlab") is None
        assert content(target.uri, tmp_path / f"back-{target.folder.name}") == original
    assert server.main(*RUN, "seed=1") is None  # it is done there
    assert "is done already" in capsys.readouterr().out
    return server


@pytest.mark.lean
def test_a_store_is_copied_into_another_and_back(harness, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    there = f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}"
    check(there, Harness(tmp_path / "back"), harness, tmp_path, capsys)


@pytest.mark.slow
def test_a_store_is_copied_to_a_server_and_back(harness, tmp_path, capsys):
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        there = check(server.uri, Harness(tmp_path / "back"), harness, tmp_path, capsys)
        assert there.main("evaluate", "latest", entry_point="digitlab") is None  # by its model

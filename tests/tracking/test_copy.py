"""digitlab store copy: all that a store has of its runs is in another one, once, and comes back."""

import socket
from pathlib import Path

import pytest
from conftest import Harness
from fake_store import empty_tables
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from servers import tracking_server

from digitlab.tracking import begin, copy, locks, maintenance, queries
from digitlab.tracking.store import Store

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


def registered(uri: str) -> list[tuple]:
    """Of each registered model the name of its run, what is said of it, and its alias."""
    client, found = MlflowClient(uri), []
    for model in client.search_registered_models():
        for each in client.search_model_versions(f"name = '{model.name}'"):
            version = client.get_model_version(model.name, each.version)
            where = client.get_model_version_download_uri(model.name, version.version)
            assert "MLmodel" in {file.name for file in Path(download_artifacts(where, tracking_uri=uri)).iterdir()}
            found.append((client.get_run(version.run_id).info.run_name, version.description, list(version.aliases)))
    return found


def check(there: str, back: Harness, harness: Harness, tmp_path: Path, capsys) -> Harness:
    assert harness.main("-m", *RUN, "seed=0,1", "sweep.name=two") is None
    if harness.pictures:
        name = ("--name", "digits", "--alias", "champion")
        assert harness.main("register", "best:sweep=two", *name, entry_point="digitlab") in (None, 0)
    harness.client.create_experiment("another")
    capsys.readouterr()
    assert harness.main("store", "copy", "--to", there, entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert "3 runs copied; 0 were there" in said
    assert "--experiment NAME copies another experiment; there are: another" in said
    original, champion = content(harness.uri, tmp_path / "1"), registered(harness.uri)
    assert len(champion) == said.count("digits: version 1 is 1 there") == int(harness.pictures)
    assert content(there, tmp_path / "2") == original
    assert registered(there) == champion
    assert harness.main("store", "copy", "--to", there, entry_point="digitlab") is None
    said = capsys.readouterr().out
    assert "0 runs copied; 3 were there" in said
    assert "digits" not in said
    assert content(there, tmp_path / "3") == original
    server = Harness(tmp_path / "server")
    server.uri = there
    for target in (back, harness):
        assert server.main("store", "copy", "--to", target.uri, entry_point="digitlab") is None
        assert content(target.uri, tmp_path / f"back-{target.folder.name}") == original
        assert registered(target.uri) == champion
    assert server.main(*RUN, "seed=1") is None  # it is done there
    assert "is done already" in capsys.readouterr().out
    return server


def test_what_has_been_continued_is_copied_anew(harness, tmp_path, capsys):
    """A run that was killed, and is copied as such, is copied again once it has been continued."""
    (tmp_path / "there").mkdir()
    there = MlflowClient(f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}")
    harness.folder.mkdir(exist_ok=True)
    (harness.folder / "mlflow.db").write_bytes(empty_tables())
    here = harness.client
    experiment = here.create_experiment("digitlab")
    owner = f"{socket.gethostname()}:{2**22 + 1}:1"  # no process has this number
    parent = here.create_run(experiment, tags={"fingerprint": "sweep-s", "sweep": "s", "owner": owner}, run_name="s")
    tags = {"fingerprint": "f", "owner": owner, "mlflow.parentRunId": parent.info.run_id}
    run_id = here.create_run(experiment, tags=tags, run_name="cell").info.run_id
    here.log_metric(run_id, "val/loss", 0.5, step=1)

    def copied() -> tuple[str, dict, list[int]]:
        assert harness.main("store", "copy", "--to", there.tracking_uri, entry_point="digitlab") is None
        found = there.search_runs([there.get_experiment_by_name("digitlab").experiment_id])
        (cell,) = (run for run in found if run.info.run_name == "cell")
        (its_parent,) = (run for run in found if run.info.run_name == "s")
        assert cell.data.tags["mlflow.parentRunId"] == its_parent.info.run_id
        steps = [point.step for point in there.get_metric_history(cell.info.run_id, "val/loss")]
        return cell.info.status, cell.data.tags, steps

    status, tags, steps = copied()
    assert (status, tags["error"], steps) == ("KILLED", "killed, no exit status", [1])
    assert "2 runs copied; 0 were there" in capsys.readouterr().out
    here.log_metric(run_id, "val/loss", 0.4, step=2)
    here.delete_tag(run_id, "error")
    here.set_terminated(run_id, "FINISHED")
    here.set_tag(run_id, "done", "true")
    status, tags, steps = copied()
    assert (status, tags.get("error"), tags["done"], steps) == ("FINISHED", None, "true", [1, 2])
    assert "1 runs copied; 2 were there" in capsys.readouterr().out
    copied()
    assert "0 runs copied; 2 were there" in capsys.readouterr().out


@pytest.fixture
def stores(tmp_path) -> tuple[Store, Store]:
    """Two stores without runs."""
    made = []
    for name in "ab":
        made.append(Store(f"sqlite:///{tmp_path / name}.db", "digitlab"))
        made[-1].open()
    return made[0], made[1]


def make(store: Store, name: str, fingerprint: str, **tags: str) -> str:
    tags = {"fingerprint": fingerprint, "owner": f"{socket.gethostname()}:{2**22 + 1}:1", **tags}
    return store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id


def end(store: Store, run_id: str, status: str = "FINISHED") -> None:
    store.client.set_terminated(run_id, status)
    if status == "FINISHED":
        store.client.set_tag(run_id, "done", "true")


def interrupt(*_) -> None:
    raise KeyboardInterrupt


def test_what_is_copied_in_part_cannot_be_continued_there(stores, monkeypatch):
    here, there = stores
    run_id = make(here, "run", "f")
    here.client.log_metric(run_id, "val/loss", 0.5, step=1)
    end(here, run_id)
    with monkeypatch.context() as patch:
        patch.setattr(copy, "_copy_artifacts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(copy.copy(here, there))
    assert queries.find(there, "f") == (None, None)
    assert "1 runs copied; 1 were there" in list(copy.copy(here, there))[-1]
    done, broken = queries.find(there, "f")
    assert done
    assert broken is None
    assert [point.step for point in there.client.get_metric_history(done.info.run_id, "val/loss")] == [1]


def test_a_cell_is_copied_with_its_sweep(stores):
    here, there = stores
    parent = make(here, "s", "sweep-s", sweep="s")
    end(here, make(here, "cell", "f", **{"mlflow.parentRunId": parent}))
    with locks.owner(here, "sweep-s"):
        assert list(copy.copy(here, there)) == ["0 runs copied; 0 were there"]
    end(here, parent)
    assert list(copy.copy(here, there))[-1] == "2 runs copied; 0 were there"
    runs = {run.info.run_name: run for run in queries.search(there, "")}
    assert runs["cell"].data.tags["mlflow.parentRunId"] == runs["s"].info.run_id


def test_a_run_whose_creation_was_not_answered_is_copied_once(stores, monkeypatch):
    here, there = stores
    end(here, make(here, "run", "f"))
    real, there.file = there.client.create_run, None

    def lost(*args, **keys):
        monkeypatch.setattr(there.client, "create_run", real)
        real(*args, **keys)
        raise MlflowException("Connection aborted")

    monkeypatch.setattr(there.client, "create_run", lost)
    monkeypatch.setattr(begin, "AGAIN", 0)
    list(copy.copy(here, there))
    (copied,) = queries.search(there, "")
    assert (copied.info.status, copied.data.tags["done"]) == ("FINISHED", "true")
    assert begin.REQUEST not in copied.data.tags


def test_a_run_that_was_continued_in_both_stores_is_left_as_it_is(stores):
    here, there = stores
    run_id = make(here, "run", "f")
    end(here, run_id, "KILLED")
    list(copy.copy(here, there))
    _, copied = queries.find(there, "f")
    for store, each, loss in ((there, copied.info.run_id, 0.3), (here, run_id, 0.4)):
        store.client.log_metric(each, "val/loss", loss, step=1)
        end(store, each)
    assert list(copy.copy(here, there)) == [
        f"run: run {run_id} was continued there too, so it is not copied again",
        "0 runs copied; 1 were there",
    ]
    assert [point.value for point in there.client.get_metric_history(copied.info.run_id, "val/loss")] == [0.3]


def test_an_error_names_both_stores(stores, monkeypatch):
    here, there = stores
    end(here, make(here, "run", "f"))

    def away(*_):
        raise MlflowException("Connection refused")

    monkeypatch.setattr(copy, "_fill", away)
    with pytest.raises(OSError, match=f"^from {here.uri} to {there.uri}: Connection refused$"):
        list(maintenance.copy_to(here, there.uri))


@pytest.mark.lean
def test_a_store_is_copied_into_another_and_back(harness, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    there = f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}"
    check(there, Harness(tmp_path / "back"), harness, tmp_path, capsys)


@pytest.mark.slow
def test_a_store_is_copied_to_a_server_and_back(harness, tmp_path, capsys):
    with tracking_server(tmp_path / "db.sqlite", tmp_path / "kept") as server:
        there = check(server.uri, Harness(tmp_path / "back"), harness, tmp_path, capsys)
        assert there.main("evaluate", "champion", entry_point="digitlab") is None  # by its model

"""A store lies under a folder of any name."""

from pathlib import Path

import pytest
from conftest import Harness
from mlflow.artifacts import download_artifacts

from digitlab.tracking.address import address_of, file_of
from digitlab.tracking.maintenance import relocate
from digitlab.tracking.store import Store

FAST = ("a%3Fb?c=d&e#f", "ü it's")
NAMES = ("a%20b", "a?b", "a#b", "it's", "two words", "数", "100%", "a+b", "a;b", "a@b", "$HOME")
RUN = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "model=mlp", "trainer=cpu",
       "trainer.max_epochs=1")  # fmt: skip


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)])
def test_a_store_lies_where_its_path_says(tmp_path, name):
    folder = tmp_path / name
    store = Store(f"sqlite:///{folder}/mlflow.db", "digitlab")
    store.open()
    assert (folder / "mlflow.db").is_file()
    assert file_of(address_of(folder / "mlflow.db")) == folder / "mlflow.db"
    assert Store(store.uri, "digitlab").file == store.file  # as a worker or the UI is told
    run = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run, "text", "folder/file.txt")
    assert (folder / "artifacts" / run / "artifacts" / "folder" / "file.txt").read_text() == "text"
    found = download_artifacts(run_id=run, artifact_path="folder/file.txt", tracking_uri=store.uri)
    assert Path(found).read_text() == "text"
    assert {each.name for each in tmp_path.iterdir()} == {name}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a%3Fb?c=d&e#f", "it's ü;@+"])
def test_a_run_is_found_continued_and_moved_under_an_odd_name(tmp_path, capsys, name):
    harness = Harness(tmp_path / name)
    assert harness.main(*RUN) is None
    assert harness.main(*RUN) is None
    assert "is done already" in capsys.readouterr().out
    harness.folder.rename(tmp_path / f"{name} moved")
    store = Store(f"sqlite:///{tmp_path / f'{name} moved'}/mlflow.db", "digitlab")
    list(relocate(store))
    store.open()
    (run,) = store.client.search_runs([store.experiment_id])
    assert {each.path for each in store.client.list_artifacts(run.info.run_id)} > {"config.yaml", "figures"}

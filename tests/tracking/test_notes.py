"""The description of a sweep holds as many cells as MLflow has room for."""

import re

import pytest

from digitlab.tracking import notes
from digitlab.tracking.store import Store


@pytest.mark.parametrize(("cells", "answer"), [(3, ""), (500, ""), (500, "a" * 3000), (3, "a" * 9000)])
def test_a_description_is_never_longer_than_mlflow_takes(tmp_path, cells, answer):
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", "digitlab")
    store.experiment_id = "7"
    recorded = [{"name": f"run-{n}", "status": "done", "run_id": f"{n:032}", "test_acc": 0.5} for n in range(cells)]
    text = notes.of_sweep(store, "grid", recorded, answer)
    assert len(text) <= 8000
    linked = re.findall(r"\[run-(\d+)\]\(#/experiments/7/runs/(\d{32})\) \| done \|  \| 0\.5000 \|", text)
    assert all(int(name) == int(run) for name, run in linked)
    if len(answer) < 8000:
        (more,) = re.findall(r"And (\d+) more", text) or [0]
        assert len(linked) + int(more) == cells
        assert (int(more) > 0) is (cells == 500)

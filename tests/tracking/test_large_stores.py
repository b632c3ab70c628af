"""What is asked of a large store reads only the runs that matter, and is answered as if all had been read."""

import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

from digitlab.tracking import queries, references
from digitlab.tracking.store import Store

MINUTE = 60_000
COUNT = 40
BESIDE = "host0", 50 * MINUTE + MINUTE // 2, 55 * MINUTE


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of forty runs, ten minutes apart and of a minute each; every third one validated on its test images.

    Every thirteenth is of an older digitlab. The second one is deleted, and one of another sort began while the fifth
    was running.
    """
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('large') / 'mlflow.db'}", "digitlab")
    store.open()
    for n in range(COUNT):
        run = store.client.create_run(store.experiment_id, 10 * MINUTE * (n + 1), run_name=f"mlp-s{n}").info.run_id
        params = {"model": "mlp", "data": ("mnist", "mnist5k")[n % 2], "data.split": ("random", "test")[n % 3 == 0]}
        metrics = [Metric("val/acc", 0.9 + n / 1000, 1, epoch) for epoch in range(3)] + [Metric("test/acc", 0.9, 1, 0)]
        tags = {"done": "true", "owner": f"host{n % 4}:1:1"} | ({queries.BEST: f"{0.9 + n / 1000}"} if n % 13 else {})
        store.client.log_batch(
            run, metrics, [Param(*each) for each in params.items()], [RunTag(*each) for each in tags.items()]
        )
        store.client.set_terminated(run, "FINISHED", 10 * MINUTE * (n + 1) + MINUTE)
        if n == 1:
            store.client.delete_run(run)
    beside = store.client.create_run(store.experiment_id, BESIDE[1], {"owner": "host0:2:1"}, "beside").info.run_id
    store.client.set_terminated(beside, "FINISHED", BESIDE[2])
    return store


@pytest.fixture
def read(store, monkeypatch):
    """The ids of the runs that are read from the store."""
    ids, search = [], store.client.search_runs

    def counted(*args, **kwargs):
        page = search(*args, **kwargs)
        ids.extend(run.info.run_id for run in page)
        return page

    monkeypatch.setattr(store.client, "search_runs", counted)
    return ids


def every(store):
    """Return the forty runs, the first one first."""
    filter_string = "attributes.run_name LIKE 'mlp-%'"
    return store.client.search_runs([store.experiment_id], filter_string, ViewType.ALL, 1000, ["attributes.start_time"])


def test_counts_reads_of_the_test_images_without_reading_the_runs(store, read):
    for data in ("mnist", "mnist5k", "kmnist"):
        runs = [run for run in every(store) if run.data.params["data"] == data]
        validating = [run for run in runs if run.data.params["data.split"] == "test"]
        read.clear()
        assert queries.test_reads(store, data) == (len(runs), 3 * len(validating))
        assert len(read) <= len(validating) + 8


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 8, 9])
def test_counts_any_number(store, count):
    first = 10 * MINUTE * (COUNT - count)
    assert sum(run.info.start_time > first for run in every(store)) == count
    assert queries._count(store, [store.experiment_id], f"attributes.start_time > {first}") == count


def test_finds_a_run_without_reading_the_others(store, read):
    last = every(store)[-1].info.run_id  # "beside" is no run of a network
    for reference in ("latest", last[:12], f"mlp-s{COUNT - 1}"):
        read.clear()
        assert references.resolve(store, reference).info.run_id == last
        assert len(read) <= 10
    for reference, best in {"best:data=mnist": 38, "best:data=mnist5k": 39, "best": 39}.items():
        read.clear()
        assert references.resolve(store, reference).info.run_name == f"mlp-s{best}"
        assert len(read) <= 10 + COUNT / 13 + 1
    with pytest.raises(ValueError, match="has data=kmnist; there are: mnist, mnist5k"):
        references.resolve(store, "best:data=kmnist")


def test_a_server_that_cannot_be_asked_for_a_missing_tag_has_the_same_best(store, monkeypatch):
    search = store.client.search_runs

    def older(experiments, filter_string, *args, **kwargs):
        if "IS NULL" in filter_string:
            raise MlflowException("Invalid clause(s) in filter string", INVALID_PARAMETER_VALUE)
        return search(experiments, filter_string, *args, **kwargs)

    monkeypatch.setattr(store.client, "search_runs", older)
    assert references.resolve(store, "best").info.run_name == "mlp-s39"


def test_reads_of_other_runs_only_those_that_shared_a_host_at_a_time(store, read):
    runs = every(store)
    read.clear()
    spans = {runs[n].info.run_id: (f"host{n % 4}", runs[n].info.start_time, runs[n].info.end_time) for n in (4, 36)}
    assert list(queries.concurrent_runs(store, spans).values()) == [BESIDE]
    assert len(read) == 1

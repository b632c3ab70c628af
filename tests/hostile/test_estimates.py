"""How long a sweep will take: what runs need once is not multiplied by epochs."""

import pytest

from digitlab.sweep.plan import SweepCell, estimate_seconds
from digitlab.tracking.store import Store


@pytest.fixture
def store(harness) -> Store:
    store = Store(harness.uri, "digitlab")
    store.open()
    return store


def record(store: Store, seconds: float, ends: list[float]) -> None:
    """Record a done run that took `seconds` in all, whose val/loss came at `ends`, in seconds."""
    tags = {"model": "mlp", "data": "mnist5k", "done": "true", "seconds": str(seconds)}
    run = store.client.create_run(store.experiment_id, tags=tags).info.run_id
    for step, end in enumerate(ends):
        store.client.log_metric(run, "val/loss", 1.0, timestamp=round(1e12 + end * 1000), step=step)
    store.client.set_terminated(run)


def estimate(store: Store, epochs: int, count: int = 1) -> float | None:
    return estimate_seconds(store, [SweepCell("", "", [], "mlp", "mnist5k", epochs)] * count)


def test_start_and_end_count_once_for_each_run(store):
    assert estimate(store, 12) is None
    record(store, 6.5, [0, 0.5])  # of one epoch
    assert estimate(store, 12, count=3) == pytest.approx(3 * (6 + 12 * 0.5))


def test_a_resumed_run_and_a_slow_one_do_not_spoil_the_pace(store):
    record(store, 7, [0, 0.5, 3600.5])  # stopped for an hour after the first epoch
    assert estimate(store, 10) == pytest.approx(6 + 10 * 0.5)
    record(store, 7, [0, 0.5, 1])
    record(store, 60, [0, 20, 40])  # beside many others
    assert estimate(store, 10) == pytest.approx(6 + 10 * 0.5)


def test_a_network_without_runs_counts_as_the_known_ones_on_its_data(store):
    record(store, 6.5, [0, 0.5])
    known, other = (SweepCell("", "", [], model, "mnist5k", 4) for model in ("mlp", "cnn"))
    elsewhere = SweepCell("", "", [], "cnn", "mnist", 4)
    assert estimate_seconds(store, [known, other]) == pytest.approx(2 * (6 + 4 * 0.5))
    assert estimate_seconds(store, [other], [known]) == pytest.approx(6 + 4 * 0.5)
    assert estimate_seconds(store, [other, elsewhere], [known]) is None

"""Compare a run with another one that is there when it starts, and say the verdict at its end: vs=RUN."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from digitlab.analysis.records import Result
from digitlab.config.errors import user_errors
from digitlab.config.leaves import flatten
from digitlab.data.datamodule import ImageData
from digitlab.platform import console
from digitlab.report.sides import find_side, is_alike, with_seeds
from digitlab.report.versus import MARGIN, predict_from, show
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training.setup import identify


@contextmanager
def compared(cfg: DictConfig) -> Iterator[None]:
    """Within this context the run of `cfg` is made; then print how it differs from `cfg.vs`.

    Raises UserError, before anything is recorded, where the two could not be compared.
    """
    console.prepare()
    checked, data, fingerprint = identify(cfg)
    with user_errors(f"vs={cfg.vs}"):
        store = Store(cfg.tracking.uri, cfg.tracking.experiment)
        store.open(create=False)
        there = find_side(store, cfg.vs)
        _check(checked, data, store, there)
    yield
    with user_errors(f"vs={cfg.vs}"):
        done, _ = queries.find(store, fingerprint)
        show(store, there, with_seeds(store, done), MARGIN)


def _check(cfg: DictConfig, data: ImageData, store: Store, there: Sequence[Result]) -> None:
    """Raise ValueError where a run of `cfg` and the runs that are there will not bear a comparison."""
    if cfg.evaluate_on == "none":
        raise ValueError("compares test accuracies, and evaluate_on=none tests nothing")
    if others := [run.name for run in there if not is_alike(run, there[0])]:
        raise ValueError(f"must be runs of one kind, such as {there[0].name} or {others[0]}")
    if there[0].settings["data digest"] != data.digest[:12] and not _same_test_set(cfg, data, store, there[0]):
        raise ValueError(f"was tested on other images: {there[0].data}, and this run is on {data.ready.name}, "
                         f"with digests {there[0].settings['data digest']} and {data.digest[:12]}")  # fmt: skip


def _same_test_set(cfg: DictConfig, data: ImageData, store: Store, there: Result) -> bool:
    """Say whether the data differ by their settings, and the test images do not."""
    settings = {key: value for key, value in flatten(cfg).items() if key.startswith("data.") and key in there.settings}
    stored, (images, labels) = predict_from(store)(there), (each.numpy() for each in data.splits["test"])
    is_split_otherwise = any(there.settings[key] != value for key, value in settings.items() if key != "data.seed")
    if not (is_split_otherwise and stored and len(stored.labels) == len(labels)):
        return False
    return stored.is_of(labels, {row: images[row] for row in stored.images})

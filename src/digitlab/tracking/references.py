"""Find the run that a user means: by id, the start of an id, name, `latest`, `best`, or a registered model."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from mlflow import entities
from mlflow.exceptions import MlflowException

from digitlab.tracking import queries
from digitlab.tracking.failures import is_missing
from digitlab.tracking.store import Store

SHOWN = 5  # candidates in a message
DONE = "tags.done = 'true'"
SHORTEST = 4  # characters of a run's id
FORMS = "an id or its first 4 characters, a name, latest, best, best:model=NAME, models:/NAME@ALIAS, ALIAS"


def resolve(store: Store, reference: str) -> entities.Run:
    """Return the run that `reference` means, one that is done if there are several of its name.

    What is no name may be an alias of one registered model, such as `champion`.
    `latest` is the last one done. `best` has the best validation accuracy of any epoch of those done and tested;
    `best:sweep=NAME` or `best:model=NAME,data=NAME` of some of them. Raises ValueError, with the candidates, where
    there is no such run or more than one.
    """
    if reference.startswith("models:/"):
        return _of_model(store, reference)
    if reference == "latest":
        return _latest(store)
    if reference == "best" or reference.startswith("best:"):
        return _best(store, reference)
    named = [run for run in queries.search(store, f"attributes.run_name = '{_safe(reference)}'") if is_run(run)]
    found = [run for run in named if queries.is_done(run)] or named
    if not found and re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", reference):
        found = [run for run in queries.search(store, f"attributes.run_id LIKE '{reference}%'") if is_run(run)]
    if not found and (addresses := [each for each in _model_addresses(store) if each.endswith(f"@{reference}")]):
        if len(addresses) > 1:
            raise ValueError(f"{reference}: {len(addresses)} models have this alias: {_shorten(addresses)}; give one")
        return _of_model(store, addresses[0])
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{reference}: {len(found)} runs are meant: {_list(found)}; give the id of one")
    alike = _alike(store, _safe(reference)) if _safe(reference) else []
    hint = f"alike are: {_list(alike)}" if alike else f"a run is named by {FORMS}"
    raise ValueError(f"{reference}: no such run; {hint}")


def is_run(run: entities.Run) -> bool:
    """Say whether this is a run of a network, not the parent of a sweep."""
    return "model" in run.data.params


def candidates(store: Store) -> list[str]:
    """Return every reference that there is to a run: words, names of runs that are done, of sweeps and of models."""
    done = list(_done(queries.search(store, DONE)))
    names = dict.fromkeys(str(run.info.run_name) for run in reversed(done))
    models = sorted({run.data.params["model"] for run in done})
    return [
        "latest",
        "best",
        *names,
        *(f"best:model={name}" for name in models),
        *(f"best:sweep={name}" for name in sorted(queries.sweeps(store))),
        *_model_addresses(store),
    ]


def _alike(store: Store, text: str) -> list[entities.Run]:
    """Return the runs whose name or id holds `text`."""
    found = (
        run
        for attribute in ("run_name", "run_id")
        for run in queries.search(store, f"attributes.{attribute} LIKE '%{text}%'")
        if is_run(run) and text in f"{run.info.run_id} {run.info.run_name}"  # _ and % stand for others in LIKE
    )
    return list({run.info.run_id: run for run in found}.values())


def _done(runs: Iterable[entities.Run]) -> Iterator[entities.Run]:
    """Yield those of the `runs` that a search for DONE finds that are of a network, and really done."""
    return (run for run in runs if is_run(run) and queries.is_done(run))


def _latest(store: Store) -> entities.Run:
    run = next(_done(queries.latest(store, DONE)), None)
    if run is None:
        raise ValueError("latest: no run is done yet")
    return run


def _best(store: Store, reference: str) -> entities.Run:
    conditions, cells = [], None
    for condition in filter(None, reference.removeprefix("best").removeprefix(":").split(",")):
        key, equals, value = condition.partition("=")
        if not (key and equals and value):
            raise ValueError(
                f"{reference}: {condition}: must be KEY=VALUE, such as model=mlp, data=mnist or sweep=NAME"
            )
        if key == "sweep":
            if cells is not None:
                raise ValueError(f"{reference}: sweep stands there twice")
            found = queries.cells_of(store, queries.sweep(store, value))
            cells = {cell["run_id"] for cell in found if cell["run_id"]}
        else:
            conditions.append((key, value))
    chosen = list(filter(_is_measured, _candidates(store, conditions, cells)))
    if not chosen:
        raise _none_of(store, reference, conditions, cells)
    highest = {run.info.run_id: float(run.data.tags.get(queries.BEST, "nan")) for run in chosen}
    older = [run_id for run_id, accuracy in highest.items() if math.isnan(accuracy)]
    for run_id, curve in queries.histories(store, older, "val/acc").items():
        highest[run_id] = max(filter(math.isfinite, curve.values()), default=-1.0)
    return min(chosen, key=lambda run: (-highest[run.info.run_id], run.info.start_time))


def _candidates(
    store: Store, conditions: Sequence[tuple[str, str]], cells: Collection[str] | None
) -> Iterator[entities.Run]:
    """Yield runs that are done and meet the conditions, the best among them: few, whatever the size of the store."""
    where = _where(conditions)
    if cells is not None:
        found = queries.fetch(store, list(cells))
        yield from _done(run for run in found if all(run.data.params.get(key) == value for key, value in conditions))
        return
    ranked = _done(queries.most_accurate(store, where))
    yield from islice(filter(_is_measured, ranked), 1)
    with suppress(ValueError):  # a server of an older MLflow does not know IS NULL
        yield from _done(queries.search(store, f"{where} and tags.{queries.BEST} IS NULL"))
        return
    yield from _done(queries.search(store, where))


def _is_measured(run: entities.Run) -> bool:
    return {"val/acc", "test/acc"} <= run.data.metrics.keys()


def _where(conditions: Sequence[tuple[str, str]]) -> str:
    return " and ".join([DONE, *(f"params.`{_safe(key)}` = '{_safe(value)}'" for key, value in conditions)])


def _none_of(
    store: Store, reference: str, conditions: Sequence[tuple[str, str]], cells: Collection[str] | None
) -> ValueError:
    """Return an error that names the first condition that no run meets, and what there is in its place."""
    measured = filter(_is_measured, _done(queries.search(store, DONE)))
    chosen = [run for run in measured if cells is None or run.info.run_id in cells]
    for key, value in conditions:
        there = sorted({run.data.params[key] for run in chosen if key in run.data.params})
        chosen = [run for run in chosen if run.data.params.get(key) == value]
        if not chosen:
            hint = f"there are: {_shorten(there)}" if there else "and none has such a key"
            return ValueError(f"{reference}: no run that is done and tested has {key}={value}; {hint}")
    return ValueError(f"{reference}: no run that is done and tested is of this kind")


def _of_model(store: Store, reference: str) -> entities.Run:
    name, at, alias = reference.removeprefix("models:/").partition("@")
    name, _, number = name.partition("/")
    try:
        version = (
            store.client.get_model_version_by_alias(name, alias) if at else store.client.get_model_version(name, number)
        )
        return store.client.get_run(str(version.run_id))
    except MlflowException as error:
        if not is_missing(error):
            raise
        there = _model_addresses(store)
        hint = f"there are: {_shorten(there)}" if there else "no model is registered; digitlab register RUN does that"
        raise ValueError(f"{reference}: no such model; {hint}") from error


def _model_addresses(store: Store) -> list[str]:
    """Return the address of every registered model by its aliases; by its versions where it has none."""
    found = []
    for model in store.client.search_registered_models():
        ends = [f"@{alias}" for alias in model.aliases] or [f"/{each.version}" for each in model.latest_versions or ()]
        found += [f"models:/{model.name}{end}" for end in ends]
    return found


def _safe(text: str) -> str:
    """Return `text` without what would end it in MLflow's filters; no name has any of it."""
    return re.sub(r"['`\"\\]", "", text)


def _list(runs: Sequence[entities.Run]) -> str:
    return _shorten([f"{run.info.run_id[:8]} ({run.info.run_name}, {run.info.status})" for run in runs])


def _shorten(texts: Iterable[str]) -> str:
    shown = list(texts)
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")

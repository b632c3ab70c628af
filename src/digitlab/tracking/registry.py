"""MLflow's registry of models: versions of a name, of which aliases name some."""

import re
from collections.abc import Iterator, Mapping

import mlflow
from mlflow.exceptions import MlflowException

from digitlab.tracking import queries
from digitlab.tracking.failures import is_missing
from digitlab.tracking.store import Store


def check_names(name: str, alias: str | None) -> None:
    """Raise ValueError for a name or an alias that MLflow does not take, or that an address cannot hold."""
    if not re.fullmatch(r"[\w. -]+", name):
        raise ValueError(f"--name {name}: must be of letters, digits, and _ . - or a space")
    if alias is not None and (not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE)):
        raise ValueError(f"--alias {alias}: must be of letters, digits, _ and -, and not latest, or v and a number")


def run_of(store: Store, name: str, alias: str) -> str | None:
    """Return the id of the run whose model `alias` of `name` is; None where there is none, or its run is gone."""
    try:
        run_id = str(store.client.get_model_version_by_alias(name, alias).run_id)
        return run_id if store.client.get_run(run_id).info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if not is_missing(error):  # then nobody knows what it is
            raise
        return None


def add(store: Store, name: str, model_uri: str, run_id: str, card: str) -> str:
    """Register a model, unless it is registered by `name`, with its card; return the number of its version."""
    client = store.client
    mlflow.set_tracking_uri(store.uri)  # where the registry looks for the model itself
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = _versions(store, name, run_id)
    model_id = model_uri.rpartition("/")[2]
    version = known[0] if known else client.create_model_version(name, model_uri, run_id, model_id=model_id)
    client.update_model_version(name, version.version, card)
    client.set_logged_model_tags(model_id, {"mlflow.note.content": card})
    return str(version.version)


def copy(source: Store, target: Store, ids: Mapping[str, str]) -> Iterator[str]:
    """Register the models of copied runs as they are in `source`, unless they are; yield a line on each.

    `ids` has the run in `target` by that in `source`. An alias that a model has in `target` stays where it is.
    """
    for model in source.client.search_registered_models():
        versions = source.client.search_model_versions(f"name = '{model.name}'")
        for version in sorted(versions, key=lambda each: int(each.version)):
            run_id = ids.get(str(version.run_id))
            if run_id is None or _versions(target, model.name, run_id):
                continue
            uri = queries.model_uri(target, run_id)
            if uri is None:
                continue
            number = add(target, model.name, uri, run_id, version.description or "")
            taken = target.client.get_registered_model(model.name).aliases
            aliases = [alias for alias, of in model.aliases.items() if str(of) == str(version.version)]
            for alias in set(aliases) - set(taken):
                target.client.set_registered_model_alias(model.name, alias, number)
            yield f"{model.name}: version {version.version} is {number} there"


def _versions(store: Store, name: str, run_id: str) -> list:
    return store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")

"""MLflow's registry of models: versions of a name, of which aliases name some."""

import re

import mlflow
from mlflow.exceptions import MlflowException

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
    except MlflowException:
        return None


def add(store: Store, name: str, model_uri: str, run_id: str, card: str) -> str:
    """Register a model, unless it is registered by `name`, with its card; return the number of its version."""
    client = store.client
    mlflow.set_tracking_uri(store.uri)  # where the registry looks for the model itself
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    model_id = model_uri.rpartition("/")[2]
    version = known[0] if known else client.create_model_version(name, model_uri, run_id, model_id=model_id)
    client.update_model_version(name, version.version, card)
    client.set_logged_model_tags(model_id, {"mlflow.note.content": card})
    return str(version.version)

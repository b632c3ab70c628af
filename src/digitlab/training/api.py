"""Train from Python what the command line would."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from digitlab.config.allowed import take_allowed
from digitlab.config.arguments import check_arguments, understood
from digitlab.config.check import check_alone, check_process, check_single_run
from digitlab.config.compose import choices_of, compose, configuration
from digitlab.config.errors import UserError, one_line
from digitlab.tracking import queries
from digitlab.tracking.store import Store
from digitlab.training import run
from digitlab.training.setup import identify


@dataclass(frozen=True)
class TrainedRun:
    """A run that is done.

    `metrics` are the last values of each, `best_val_acc` is the highest val/acc of any epoch. `artifacts` is the run's
    folder, or MLflow's address of it on a server; `model` the address for mlflow.pytorch.load_model, None for a run
    without; `store` the one for mlflow.set_tracking_uri.
    """

    id: str
    name: str
    fingerprint: str
    best_val_acc: float
    metrics: Mapping[str, float]
    artifacts: str
    model: str | None
    store: str


def train(*overrides: str, config_dir: str | Path | None = None, **keys: Any) -> TrainedRun:
    """Train what the overrides describe, or find it done; see digitlab.train."""
    typed = take_allowed([*overrides, *(f"{key}={_as_typed(value)}" for key, value in keys.items())])
    for override in typed:
        if override.startswith("sweep="):
            raise UserError(f"{override}: is many runs, and this trains one; digitlab sweep does them")
    check_alone("digitlab.train")
    check_arguments(typed)
    typed = understood(typed)
    if config_dir:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"config_dir={config_dir}: there is no such folder")
        typed.append(choices_of(folder))
    try:
        with configuration():
            cfg = compose(*typed)
        check_process(cfg)
        check_single_run(cfg)
        if cfg.vs:
            raise UserError(
                f"vs={cfg.vs}: is for the command line; digitlab compare {cfg.vs} RUN compares a run with it"
            )
        best_val_acc = run.train(cfg)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(one_line(error)) from error
    _, _, fingerprint = identify(cfg)
    store = Store(cfg.tracking.uri, cfg.tracking.experiment)
    store.open()
    done, _ = queries.find(store, fingerprint)
    assert done  # else the training has raised an error
    info = done.info
    artifacts = urlparse(str(info.artifact_uri))
    return TrainedRun(
        id=info.run_id,
        name=str(info.run_name),
        fingerprint=fingerprint,
        best_val_acc=best_val_acc,
        metrics=MappingProxyType(done.data.metrics),
        artifacts=url2pathname(artifacts.path) if artifacts.scheme == "file" else str(info.artifact_uri),
        model=queries.model_uri(store, info.run_id),
        store=store.uri,
    )


def _as_typed(value: Any) -> str:
    """Write a value by the grammar of the command line."""
    if isinstance(value, str | Path):
        is_word = re.fullmatch(r"(?!(true|false|null|inf|nan)$)[a-z_][\w./-]*", str(value), re.IGNORECASE)
        return str(value) if is_word else json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_as_typed(each)}' for key, each in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_as_typed, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)

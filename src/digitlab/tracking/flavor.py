"""Models as MLflow's PyTorch flavor saves them, except that they predict on the CPU wherever they are loaded.

An exported model stays on the device that it was exported on, the CPU. MLflow looks for it on the GPU where there is
one, and refuses to load it, unless the model's own configuration names the device.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
from mlflow import MlflowClient, pytorch
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput, Metric, RunInfo
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from torch import nn

NAME = "mlflow.pytorch"  # what MLflow's UI says of such models

NO_PICKLE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


class LoadedModel(NamedTuple):
    """A logged model on the CPU: the module, which maps uint8 images to probabilities, some images, its metadata."""

    module: nn.Module
    examples: np.ndarray
    metadata: Mapping[str, Any]


def load_model(uri: str, tracking_uri: str) -> LoadedModel:
    """Load the model of that address, and unpickle nothing; MlflowException where it would have to be."""
    before = {name: os.environ.get(name) for name in NO_PICKLE}
    os.environ.update(NO_PICKLE)
    mlflow.set_tracking_uri(tracking_uri)  # where a model is looked up, whatever is told to download_artifacts
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri)
            saved = Model.load(path)
            module = pytorch.load_model(path)
            example = np.asarray(saved.load_input_example(path), np.uint8)
            return LoadedModel(module, example, saved.metadata or {})
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def log_model(predictor: nn.Module, name: str, **settings: Any) -> None:
    """Record `predictor`, a module on the CPU, as a LoggedModel; `settings` are those of MLflow's `Model.log`."""
    Model.log(None, sys.modules[__name__], name=name, flavor_name=NAME, pytorch_model=predictor, **settings)


def save_model(path: str, mlflow_model: Model, **settings: Any) -> None:
    """Save a model into the folder `path`. MLflow calls this."""
    pytorch.save_model(path=path, mlflow_model=mlflow_model, **settings)
    mlflow_model.flavors["python_function"]["config"] = {"device": "cpu"}
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))


def prepare_model(predictor: nn.Module, folder: Path, run_id: str, metadata: Any, **settings: Any) -> None:
    """Save `predictor` as `log_model` would record it into `folder`, for `upload_model`."""
    save_model(str(folder), Model(run_id=run_id, metadata=metadata), pytorch_model=predictor, **settings)


def upload_model(
    client: MlflowClient,
    run: RunInfo,
    folder: str,
    name: str,
    step: int,
    points: Sequence[Sequence[Any]],
    params: Mapping[str, str],
) -> None:
    """Record a prepared model as the only LoggedModel of a run.

    `points` are those of the run at its step, as they are recorded: key, value, time in ms, step.
    """
    for model in client.search_logged_models([run.experiment_id], f"source_run_id = '{run.run_id}'"):
        client.delete_logged_model(model.model_id)
    model = client.create_logged_model(run.experiment_id, name, run.run_id, params=dict(params))
    saved = Model.load(folder)
    saved.model_id = saved.model_uuid = model.model_id
    saved.artifact_path, saved.run_id = model.artifact_location, run.run_id
    saved.save(str(Path(folder, MLMODEL_FILE_NAME)))
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step)])
    client.log_batch(run.run_id, metrics=[Metric(*point, model_id=model.model_id) for point in points])
    client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")

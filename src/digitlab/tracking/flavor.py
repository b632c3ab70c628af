"""Models as MLflow's PyTorch flavor saves them, except that they predict on the CPU wherever they are loaded.

An exported model stays on the device that it was exported on, the CPU. MLflow looks for it on the GPU where there is
one, and refuses to load it, unless the model's own configuration names the device.
"""

import sys
from pathlib import Path
from typing import Any

from mlflow import pytorch
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from torch import nn

NAME = "mlflow.pytorch"  # what MLflow's UI says of such models


def log_model(predictor: nn.Module, name: str, **settings: Any) -> None:
    """Record `predictor`, a module on the CPU, as a LoggedModel; `settings` are those of MLflow's `Model.log`."""
    Model.log(None, sys.modules[__name__], name=name, flavor_name=NAME, pytorch_model=predictor, **settings)


def save_model(path: str, mlflow_model: Model, **settings: Any) -> None:
    """Save a model into the folder `path`. MLflow calls this."""
    pytorch.save_model(path=path, mlflow_model=mlflow_model, **settings)
    mlflow_model.flavors["python_function"]["config"] = {"device": "cpu"}
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))

"""Runs whose models the tests use, made once."""

import tempfile
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
from conftest import Harness
from PIL import Image

TINY = ("model=mlp", "trainer=smoke", "model.hidden=[{units: 16}]", "data=mnist5k", "data.test_fraction=0.5")


@cache
def digits() -> Harness:
    """A store with one run, of a small network on MNIST's digits."""
    harness = Harness(Path(tempfile.mkdtemp(prefix="digitlab-tests-")) / "harness")
    harness.train(*TINY)
    return harness


def command(harness: Harness, *arguments: str) -> str | int | None:
    return harness.main(*arguments, entry_point="digitlab")


def plainly_resized(harness: Harness, files: list[Path]) -> list[int]:
    """Return what the newest model says of files that are only made gray and resized, by MLflow's own means."""
    mlflow.set_tracking_uri(harness.uri)
    (newest, *_) = harness.client.search_logged_models([harness.runs()[0].info.experiment_id])
    model = mlflow.pyfunc.load_model(newest.model_uri)
    pixels = [np.asarray(Image.open(file).convert("L").resize((28, 28))) for file in files]
    return model.predict(np.stack(pixels)).argmax(1).tolist()

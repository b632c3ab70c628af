"""What is printed: a live bar in a terminal, one line an epoch everywhere."""

import io
import re

import mlflow
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from digitlab.platform import console


@pytest.mark.slow
@pytest.mark.parametrize("is_terminal", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_bar_is_shown_in_a_terminal_only_and_the_lines_everywhere(harness, monkeypatch, is_terminal):
    screen = io.StringIO()
    monkeypatch.setattr(
        console, "console", Console(file=screen, force_terminal=is_terminal, width=150, highlight=False)
    )
    harness.train("data=mnist5k", "model=mlp", "trainer=cpu", "trainer.max_epochs=2")
    said = screen.getvalue()
    assert said.count("epoch 1/2  train loss") == said.count("epoch 2/2  train loss") == 1
    for word in ("loss 0.", "acc 0.", "images/s ETA"):
        assert (word in said.replace("\x1b[0m", "")) is (is_terminal or word != "images/s ETA")
    assert ("\x1b[" in said) is is_terminal
    for word in ("669,706", "95 % interval", "n = 500", "epoch 2 of 2 (best)", "10 classes", "checkpoint", "make ui"):
        assert word in said
    (run,) = harness.runs()
    assert f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in said
    described = run.data.tags["mlflow.note.content"]
    low, high = binomtest(round(500 * run.data.metrics["test/acc"]), 500).proportion_ci(method="wilson")
    accuracy = f"{run.data.metrics['test/acc']:.4f}  (95 % interval {low:.4f} to {high:.4f}, n = 500)"
    assert described.startswith(f"**Test accuracy {accuracy}, epoch 2 of 2 (best)**\n\n```bash\n")
    (loading,) = re.findall(r"load_model\(\"(.*)\"\)", described)
    mlflow.set_tracking_uri(harness.uri)
    images = np.zeros((2, 28, 28), np.uint8)
    assert mlflow.pyfunc.load_model(loading).predict(images).shape == (2, 10)

"""Losses that are modules: their values against plain formulas, and in a run."""

import numpy as np
import pytest
import torch
from torch import nn

from digitlab.training.binary_loss import SoftmaxBinaryLoss
from digitlab.training.quadratic_loss import QuadraticLoss

SMALL = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer=cpu", "model=mlp", "optim=sgd")
LOGITS, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 3, 0])


def test_the_quadratic_loss_is_half_the_squared_distance():
    outputs = 1 / (1 + np.exp(-LOGITS.numpy()))
    expected = np.mean([np.sum((row - np.eye(4)[label]) ** 2) / 2 for row, label in zip(outputs, LABELS, strict=True)])
    assert float(QuadraticLoss()(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)


def test_the_binary_loss_takes_each_class_for_itself():
    shares = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum(1, keepdims=True)
    wanted = np.eye(4)[LABELS]
    expected = -np.mean(wanted * np.log(shares) + (1 - wanted) * np.log(1 - shares))
    assert float(SoftmaxBinaryLoss()(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)
    sure = nn.functional.one_hot(LABELS, 4) * -2000.0
    assert torch.isfinite(SoftmaxBinaryLoss()(sure, LABELS))


def test_a_module_of_torch_is_a_loss_too(harness):
    harness.pictures = False
    for loss in (
        "{_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.2}",
        "{_target_: torch.nn.CrossEntropyLoss}",
    ):
        harness.train(*SMALL, f"loss={loss}", "trainer.max_epochs=1")
    harness.train(*SMALL, "trainer.max_epochs=1")
    plain, same, smooth = ([value for _, value in harness.history(run, "val/loss")] for run in harness.runs())
    assert plain == same != smooth


@pytest.mark.parametrize(
    ("loss", "line"),
    [
        ("cross", "loss=cross: must be cross_entropy or clipped_cross_entropy or a mapping with a _target_"),
        ("{_target_: torch.optim.SGD}", "loss._target_=torch.optim.SGD: must be a class of Module"),
        ("{_target_: torch.nn.CrossEntropyLoss, smoothing: 1}", "loss: smoothing: unknown key; allowed: weight,"),
        ("{_target_: torch.nn.CrossEntropyLoss, reduction: none}", "loss: makes a tensor (11,) of logits (11, 10) and"),
        ("{_target_: torch.nn.MSELoss}", "loss: fails at logits (11, 10) and labels (11), one number each: "),
        ("{_target_: torch.nn.BCEWithLogitsLoss}", "loss: fails at logits (11, 10) and labels (11), one number each: "),
    ],
)
def test_a_mistake_is_one_line(harness, loss, line):
    assert str(harness.main(*SMALL, f"loss={loss}")).startswith(f"error: {line}")
    assert not harness.folder.exists()

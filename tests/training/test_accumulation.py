"""Gradients of several batches make the step of one whole batch."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from digitlab.config.errors import UserError
from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.training.classifier import Classifier

IMAGES = 1000  # the last of the groups of 4 x 32 has 3 batches, of 32, 32 and 8 images


def fitted(batch: int, accumulate: int, steps_per_execution: int = 1, callbacks: tuple = ()):
    data = ImageData(sources.mnist5k, batch_size=batch, skip_first=4000 - IMAGES, val_fraction=0.1,
                     test_fraction=0.1, steps_per_execution=steps_per_execution)  # fmt: skip
    data.batches_per_step = accumulate
    data.setup()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 10))
    classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), clip=1.0,
                            accumulate=accumulate)  # fmt: skip
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks))  # fmt: skip
    trainer.fit(classifier, data)
    assert trainer.global_step == 2 * data.steps_per_epoch == 2 * math.ceil(data.sizes["train"] / (batch * accumulate))
    return network, {key: float(trainer.callback_metrics[key]) for key in ("train/loss", "train/acc")}


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_four_batches_of_32_are_one_of_128(steps_per_execution):
    whole, of_whole = fitted(128, 1)
    parts, of_parts = fitted(32, 4, steps_per_execution)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert of_parts == pytest.approx(of_whole, rel=1e-5)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_loader_that_gives_batches_one_by_one_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), accumulate=4)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(UserError, match="accumulate=4: needs an ImageData whose batches_per_step says so too"):
        trainer.fit(classifier, [(torch.rand(8, 1, 28, 28), torch.arange(8))] * 4)


def test_callbacks_see_each_backward_pass_and_one_step():
    calls = []

    class Watch(pl.Callback):
        def on_after_backward(self, trainer, module):
            calls.append("backward")

        def on_before_optimizer_step(self, trainer, module, optimizer):
            calls.append("step")

    fitted(32, 4, callbacks=(Watch(),))
    assert calls[:10] == [*["backward"] * 4, "step"] * 2

"""Classifier in a stranger's hands: what Lightning's test and predict give."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.training.classifier import Classifier


@pytest.fixture
def trainer():
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=1, accelerator="cpu", **quiet)


@pytest.fixture
def classifier():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1))


def test_test_returns_what_was_measured_and_predict_probabilities(trainer, classifier):
    data = ImageData(sources.mnist5k, batch_size=100, skip_first=4000)
    (found,) = trainer.test(classifier, data, verbose=False)
    assert found == pytest.approx(classifier.results)
    assert found.keys() == {"test/loss", "test/acc"}
    predicted = torch.cat(trainer.predict(classifier, data))
    torch.testing.assert_close(predicted, torch.from_numpy(classifier.probabilities))


@pytest.mark.parametrize("has_labels", [True, False])
def test_predict_takes_any_loader(trainer, classifier, has_labels):
    images = torch.rand(7, 1, 28, 28)
    tensors = (images, torch.zeros(7, dtype=torch.int64)) if has_labels else (images,)
    predicted = torch.cat(trainer.predict(classifier, DataLoader(TensorDataset(*tensors), batch_size=3)))
    torch.testing.assert_close(predicted, classifier.network(images).softmax(1).detach())
    predicted = torch.cat(trainer.predict(classifier, DataLoader(images, batch_size=3)))
    assert predicted.shape == (7, 10)

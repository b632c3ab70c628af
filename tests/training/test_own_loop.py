"""Classifier in a stranger's hands: what Lightning's test and predict give."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.training.classifier import Classifier


def make_trainer(logger=False) -> pl.Trainer:
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=1, accelerator="cpu", logger=logger, log_every_n_steps=1, **quiet)


@pytest.fixture
def trainer():
    return make_trainer()


@pytest.fixture
def classifier():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1))


@pytest.mark.parametrize("is_logged", [False, True])
def test_test_and_validate_return_what_was_measured(classifier, tmp_path, is_logged):
    trainer = make_trainer(CSVLogger(tmp_path) if is_logged else False)
    data = ImageData(sources.mnist5k, batch_size=100, skip_first=4000)
    (before,) = trainer.validate(classifier, data, verbose=False)
    assert before.keys() == {"val/loss", "val/acc"}
    trainer.fit(classifier, data)
    (after,) = trainer.validate(classifier, data, verbose=False)
    assert after["val/loss"] < before["val/loss"]
    (found,) = trainer.test(classifier, data, verbose=False)
    assert found == pytest.approx(classifier.results)
    assert found.keys() == {"test/loss", "test/acc"}
    if is_logged:
        rows = list(csv.DictReader((Path(trainer.log_dir) / "metrics.csv").read_text().splitlines()))
        assert [float(row["test/acc"]) for row in rows if row["test/acc"]] == [pytest.approx(found["test/acc"])]
        assert len([row for row in rows if row["val/loss"]]) == 3  # before, in and after the epoch
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

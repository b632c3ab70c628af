"""The LightningModule: losses against NumPy and scikit-learn, metrics at the right steps."""

from collections import defaultdict

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.models.networks import ConvNet
from digitlab.training.classifier import Classifier
from digitlab.training.losses import clipped_cross_entropy


class MemoryLogger(Logger):
    """Keep all points in memory: the module must not depend on our MLflow logger."""

    name, version = "memory", "0"

    def __init__(self):
        super().__init__()
        self.points = defaultdict(list)

    def log_metrics(self, metrics, step=None):
        for key, value in metrics.items():
            self.points[key].append((step, value))

    def log_hyperparams(self, *_, **__):
        pass


def trainer(**settings) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **settings,
    )


@pytest.fixture
def data() -> ImageData:
    data = ImageData(sources.mnist5k, batch_size=300)
    data.setup()
    return data


def linear(**settings) -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), **settings)


def test_the_clipped_loss_is_that_of_keras(data):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 20, (200, 10)).astype(np.float32)
    labels = generator.integers(0, 10, 200)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    softmax = np.clip(exponents / exponents.sum(1, keepdims=True), 1e-7, 1 - 1e-7)
    expected = -np.log(softmax[np.arange(200), labels]).mean()
    ours = clipped_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_clipped_probabilities_have_no_gradient():
    logits = torch.tensor([[100.0, 0.0], [1.0, 0.0]], requires_grad=True)
    clipped_cross_entropy(logits, torch.tensor([1, 1])).backward()
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1].abs().min() > 0


def test_metrics_match_scikit_learn_and_steps_count_epochs(data):
    classifier, logged = linear(), MemoryLogger()
    runner = trainer(max_epochs=2, logger=logged)
    runner.validate(classifier, data, verbose=False)
    runner.fit(classifier, data)
    runner.test(classifier, data, verbose=False)
    points = logged.points
    assert [step for step, _ in points["val/loss"]] == [0, 1, 2]
    assert [step for step, _ in points["val/acc"]] == [0, 1, 2]
    assert [step for step, _ in points["train/loss"]] == [1, 2]
    assert [step for step, _ in points["train/acc"]] == [1, 2]
    assert [step for step, _ in points["train/loss_step"]] == list(range(1, 29))
    assert points["val/loss"][0][1] > points["val/loss"][1][1] > points["val/loss"][2][1]

    images, labels = data.splits["test"]
    with torch.no_grad():
        probabilities = classifier(images.unsqueeze(1) / 255).double().softmax(1).numpy()
    np.testing.assert_allclose(classifier.probabilities, probabilities, atol=1e-6)
    assert np.array_equal(classifier.labels, labels.numpy())
    assert classifier.results["test/acc"] == accuracy_score(labels, probabilities.argmax(1))
    assert classifier.results["test/loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-5)


def test_epoch_means_are_weighted_by_batch_size(data):
    classifier, logged = linear(), MemoryLogger()
    trainer(max_epochs=1, logger=logged).fit(classifier, data)
    mean = np.average([loss for _, loss in logged.points["train/loss_step"]], weights=[300] * 13 + [100])
    ((_, loss),), ((_, accuracy),) = logged.points["train/loss"], logged.points["train/acc"]
    assert loss == pytest.approx(mean, rel=1e-6)
    assert 400 < accuracy * 4000 == pytest.approx(round(accuracy * 4000), abs=1e-6)  # a number of images


def test_training_works_without_a_logger(data):
    classifier = linear(loss="clipped_cross_entropy")
    runner = trainer(max_epochs=1, logger=False)
    runner.fit(classifier, data)
    assert 0 < float(runner.callback_metrics["val/loss"]) < 2.3


@pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
def test_an_epoch_without_validation_is_timed(data, settings):
    classifier, logged = linear(), MemoryLogger()
    trainer(max_epochs=2, logger=logged, **settings).fit(classifier, data)
    (_, first), (_, second) = logged.points["time/epoch_s"]
    assert first > 0 < second != first


def test_a_scheduler_steps_at_every_optimizer_step(data):
    classifier, logged = linear(), MemoryLogger()
    classifier.scheduler = torch.optim.lr_scheduler.LinearLR(classifier.optimizer, 1.0, 0.5, total_iters=28)
    trainer(max_epochs=2, logger=logged).fit(classifier, data)
    assert [value for _, value in logged.points["lr"]] == pytest.approx([0.075, 0.05])


def convolutional(**settings) -> Classifier:
    pl.seed_everything(0, verbose=False)
    network = ConvNet([{"channels": 4, "kernel": 5, "pool": 4, "dropout": 0.3}], [{"units": 16, "dropout": 0.5}])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
    return Classifier(network, optimizer, scheduler, **settings)


def test_steps_per_execution_changes_no_bit_of_the_results():
    def outcome(steps):
        data = ImageData(sources.mnist5k, batch_size=130, steps_per_execution=steps)
        classifier, logged = convolutional(clip=0.5), MemoryLogger()
        runner = trainer(max_epochs=2, logger=logged)
        runner.fit(classifier, data)
        points = {key: values for key, values in logged.points.items() if not key.startswith(("time", "images"))}
        return runner.global_step, points, [weight.detach() for weight in classifier.parameters()]

    steps, points, weights = outcome(1)
    assert steps == 2 * 31
    for several in (7, 1000):
        others = outcome(several)
        assert others[:2] == (steps, points)
        assert all(torch.equal(one, other) for one, other in zip(weights, others[2], strict=True))


def test_training_is_bit_identical_to_a_plain_loop():
    data = ImageData(sources.mnist5k, batch_size=130)
    classifier = convolutional(clip=0.5)
    trainer(max_epochs=1, logger=False).fit(classifier, data)
    plain = convolutional()
    loader = ImageData(sources.mnist5k, batch_size=130)
    loader.setup()
    plain.train()
    for images, labels in loader.train_dataloader():
        plain.optimizer.zero_grad()
        nn.functional.cross_entropy(plain.network(images), labels).backward()
        nn.utils.clip_grad_norm_(plain.network.parameters(), 0.5)
        plain.optimizer.step()
        plain.scheduler.step()
    assert all(torch.equal(a, b) for a, b in zip(classifier.parameters(), plain.parameters(), strict=True))


def test_batches_of_any_dataloader_can_be_trained_on(data):
    images, labels = data.splits["train"]
    pairs = torch.utils.data.TensorDataset(images[:900, None] / 255, labels[:900])
    classifier, logged = linear(), MemoryLogger()
    runner = trainer(max_epochs=1, logger=logged)
    loader = torch.utils.data.DataLoader(pairs, batch_size=300)
    runner.fit(classifier, loader, data.val_dataloader())
    assert runner.global_step == len(logged.points["train/loss_step"]) == 3

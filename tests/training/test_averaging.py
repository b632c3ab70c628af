"""Averages of the weights: against PyTorch's own in a plain loop, in runs, and where they cannot be."""

import mlflow
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.models.networks import ConvNet
from digitlab.training.averaging import Average
from digitlab.training.classifier import Classifier

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=3", "trainer=cpu")
TINY += ("data.batch_size=100", "model=mlp", "model.hidden=[{units: 8, batch_norm: before}]", "optim.lr=0.05")
EPOCHS = 4


def network_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ConvNet(hidden=[{"units": 8, "batch_norm": "before"}])


def data() -> ImageData:
    data = ImageData(sources.mnist5k, batch_size=130, skip_first=4000, steps_per_execution=3)
    data.setup()
    return data


def fitted(average: Average) -> tuple[nn.Module, float]:
    """Train by the Classifier; return the network with its average, and the last val/loss."""
    network = network_of(0)
    classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), average=average)
    trainer = pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1)  # fmt: skip
    trainer.fit(classifier, data())
    return network, float(trainer.callback_metrics["val/loss"])


def plainly(averaged: AveragedModel, network: nn.Module, is_by_step: bool, first: int) -> list[dict]:
    """Train in a plain loop, averaging by PyTorch; return the weights after each step."""
    optimizer, of, loader = torch.optim.SGD(network.parameters(), lr=0.1), [], data().train_dataloader()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        for images, labels in (pair for chunk in loader for pair in chunk):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.train()(images), labels).backward()
            optimizer.step()
            of.append({name: value.clone() for name, value in network.state_dict().items()})
            if is_by_step:
                averaged.update_parameters(network)
        if not is_by_step and epoch >= first:
            averaged.update_parameters(network)
    return of


def loss_of(network: nn.Module) -> float:
    images, labels = data().splits["val"]
    with torch.no_grad():
        return float(nn.functional.cross_entropy(network.eval()(images[:, None] / 255), labels))


@pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"val_check_interval": 0.5}])
def test_an_epoch_counts_once_in_a_mean_however_often_it_is_validated(settings):
    network = network_of(0)
    classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), average=Average("swa", start=0.5))
    trainer = pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, **settings)  # fmt: skip
    several = data()
    several.steps_per_execution = 1
    trainer.fit(classifier, several)
    expected, _ = fitted(Average("swa", start=0.5))
    trainer.validate(classifier, data(), verbose=False)  # of the average, which the network keeps
    averaged = network.state_dict()
    assert all(torch.equal(averaged[name], value) for name, value in expected.state_dict().items())


def test_an_ema_is_that_of_pytorch_to_the_last_bit():
    network, loss = fitted(Average("ema", decay=0.9))
    plain = network_of(0)
    averaged = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    steps = plainly(averaged, plain, is_by_step=True, first=0)
    for name, value in averaged.module.state_dict().items():
        if value.is_floating_point():  # PyTorch rounds an average of counts
            assert torch.equal(network.state_dict()[name], value), name
    assert loss == pytest.approx(loss_of(averaged.module), rel=1e-5)
    assert abs(loss - loss_of(plain)) > 1e-3

    mean = steps[0]["classifier.0.0.weight"].double().numpy()  # the same by its formula
    for weights in steps[1:]:
        mean = 0.9 * mean + 0.1 * weights["classifier.0.0.weight"].double().numpy()
    assert np.allclose(network.state_dict()["classifier.0.0.weight"], mean, atol=1e-6)


def test_a_swa_is_the_mean_of_the_last_epochs_with_statistics_of_its_own():
    network, loss = fitted(Average("swa", start=0.5))
    plain = network_of(0)
    averaged = AveragedModel(plain)
    steps = plainly(averaged, plain, is_by_step=False, first=2)
    of_epochs = [steps[len(steps) * (epoch + 1) // EPOCHS - 1] for epoch in (2, 3)]
    for name in ("classifier.0.0.weight", "classifier.1.bias"):
        mean = np.mean([weights[name].double().numpy() for weights in of_epochs], axis=0)
        assert np.allclose(network.state_dict()[name], mean, atol=1e-7)
    loader = data().train_dataloader()
    loader.sampler.set_epoch(EPOCHS)  # the order of the pass, which decides the batches
    update_bn((images for chunk in loader for images, _ in chunk), averaged.module)
    for name, value in averaged.module.state_dict().items():
        assert torch.allclose(network.state_dict()[name], value, atol=1e-6), name
    assert loss == pytest.approx(loss_of(averaged.module), rel=1e-5)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_training_goes_on_with_its_own_weights(kind):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            seen.append(module.network.state_dict()["classifier.1.bias"].clone())

    def losses(average):
        network = network_of(0)
        classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), average=average)
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch()])  # fmt: skip
        trainer.fit(classifier, data())

    losses(None)
    plain, seen = seen, []
    losses(Average(kind, decay=0.9, start=0.0))
    assert all(map(torch.equal, plain, seen))


@pytest.mark.parametrize("tested", ["best", "last"])
def test_what_a_run_keeps_tests_and_logs_is_the_average(harness, tested):
    harness.train(*TINY, "++averaging={kind: ema, decay: 0.8}", f"evaluate_on={tested}")
    harness.train(*TINY, f"evaluate_on={tested}")
    plain, averaged = harness.runs()
    assert harness.history(plain, "train/loss_step") == harness.history(averaged, "train/loss_step")
    assert plain.data.metrics["test/loss"] != averaged.data.metrics["test/loss"]
    assert plain.data.params["parameters"] == averaged.data.params["parameters"]
    folder = averaged.info.artifact_uri.removeprefix("file://")
    checkpoint = torch.load(f"{folder}/checkpoints/{tested}.ckpt", weights_only=True)
    name = "classifier.1.weight"
    assert not torch.equal(checkpoint["state_dict"][f"network.{name}"], checkpoint["trained"]["weights"][name])
    mlflow.set_tracking_uri(harness.uri)
    (logged,) = harness.client.search_logged_models([averaged.info.experiment_id],
                                                    f"source_run_id = '{averaged.info.run_id}'")  # fmt: skip
    model = mlflow.pytorch.load_model(logged.model_uri)
    weights = dict(model.named_parameters())
    assert torch.equal(weights[f"network.{name}"], checkpoint["state_dict"][f"network.{name}"])


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("averaging.kind=mean", "averaging.kind=mean: must be null or ema or swa"),
        ("averaging.decay=0.9", "averaging.decay=0.9: is of averaging.kind=ema"),
        ("averaging={kind: ema, start: 0.5}", "averaging.start=0.5: is of averaging.kind=swa"),
        (
            "averaging.kind=swa",
            "averaging.kind=swa: averages 1 of 3 epochs, by averaging.start=0.75; must be 2 or more: "
            "give a lower averaging.start or more epochs",
        ),
        ("averaging={kind: ema, decay: 1.0}", "averaging.decay=1.0: must be null or a number above 0 and below 1"),
    ],
)
def test_a_mistake_is_one_line(harness, told, line):
    assert harness.main(*TINY, told) == f"error: {line}"
    assert not harness.folder.exists()


def test_two_averages_are_refused(harness):
    other = "+trainer.callbacks.x={_target_: pytorch_lightning.callbacks.EMAWeightAveraging}"
    said = harness.main(*TINY, other, "averaging.kind=ema")
    assert said == "error: trainer.callbacks.x: averages the weights, as averaging.kind does; allowed: one of the two"


@pytest.mark.parametrize(
    ("start", "said"), [(0.5, "before there was an average"), (0.4, "with one epoch in the average, which is that")]
)
@pytest.mark.filterwarnings("default:averaging.kind=swa")
def test_a_run_that_ended_before_its_average_says_so(harness, capsys, start, said):
    harness.pictures = False
    few = ("averaging.kind=swa", f"averaging.start={start}", "trainer.max_epochs=4", "optim.lr=1e-30")
    assert harness.main(*TINY, *few, "early_stopping.patience=1") is None
    line = f"warning: averaging.kind=swa: training ended {said}; a lower averaging.start helps\n"
    assert capsys.readouterr().out.count(line) == 1

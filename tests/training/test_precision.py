"""float16 with scaled losses, and bfloat16 throughout: against PyTorch's own loop, in runs, and what runs leave."""

from itertools import islice

import mlflow
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.amp import GradScaler
from torch.optim.lr_scheduler import StepLR

from digitlab.data import sources
from digitlab.data.datamodule import ImageData
from digitlab.models.bfloat16 import compute_in_bfloat16
from digitlab.training.averaging import Average
from digitlab.training.classifier import Classifier

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=2", "trainer=cpu")
TINY += ("data.batch_size=100", "model=mlp", "model.hidden=[{units: 8, batch_norm: before}]", "optim.lr=0.05")
NAME = "classifier.1.weight"
OVERFLOWING = 2.0**24  # a scale with which the first steps overflow


def network_of(*_) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 10))


def data(accumulate: int = 1) -> ImageData:
    data = ImageData(sources.mnist5k, batch_size=100, skip_first=3000, steps_per_execution=3)
    data.batches_per_step = accumulate
    data.setup()
    return data


def optimizer_of(name: str, network: nn.Module) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(network.parameters(), fused=True)
    return torch.optim.Adadelta(network.parameters())


@pytest.mark.parametrize(("optim", "accumulate"), [("adam", 2), ("adadelta", 1)])
def test_float16_is_pytorchs_own_loop_to_the_last_bit_where_steps_overflow_too(optim, accumulate):
    network, plain = network_of(), network_of()
    optimizer = optimizer_of(optim, network)
    classifier = Classifier(network, optimizer, StepLR(optimizer, 5, 0.5), clip=0.5, accumulate=accumulate)
    plugin = MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=OVERFLOWING, growth_interval=2))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", plugins=[plugin], logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(classifier, data(accumulate))

    optimizer, scaler = optimizer_of(optim, plain), GradScaler("cpu", init_scale=OVERFLOWING, growth_interval=2)
    scales, batches = [], iter(data().training_batches())
    for step in range(data(accumulate).steps_per_epoch):
        optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * 0.5 ** (step // 5)
        optimizer.zero_grad()
        for images, labels in islice(batches, accumulate):
            with torch.autocast("cpu", torch.float16, cache_enabled=False):
                loss = nn.functional.cross_entropy(plain(images), labels)
                loss = loss / 2 if accumulate == 2 else loss
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert min(scales) < OVERFLOWING
    assert scales[-1] > min(scales)
    assert all(map(torch.equal, network.parameters(), plain.parameters()))
    assert plugin.state_dict() == scaler.state_dict()


def test_bfloat16_is_a_plain_loop_of_bfloat16_weights_with_losses_in_float32():
    network, plain = network_of(), network_of().bfloat16()
    compute_in_bfloat16(network)
    classifier = Classifier(network, torch.optim.SGD(network.parameters(), lr=0.1), average=Average("ema", 0.9))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(classifier, data())
    optimizer, losses, mean = torch.optim.SGD(plain.parameters(), lr=0.1), [], None
    for images, labels in data().training_batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(plain(images.bfloat16()).float(), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        own = plain[3].weight.detach().float()
        mean = own.clone() if mean is None else mean.lerp_(own, 1 - 0.9)
    assert torch.equal(network[3].weight, mean.bfloat16())  # kept in float32, or it would not move any more
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*emulated here")  # as it is on a processor without bf16
@pytest.mark.parametrize("average", ["{kind: ema}", "{kind: swa, start: 0.1}"])
def test_what_a_bfloat16_run_leaves_loads_and_predicts(harness, average):
    more = ("trainer.precision=bf16-true", f"averaging={average}", "trainer.accumulate_grad_batches=2")
    assert harness.main(*TINY, *more, "loss=clipped_cross_entropy") is None
    (run,) = harness.runs()
    folder = run.info.artifact_uri.removeprefix("file://")
    weights = torch.load(f"{folder}/checkpoints/best.ckpt", weights_only=True)
    assert weights["trained"]["weights"][NAME].dtype == torch.bfloat16
    images = ImageData(sources.mnist5k, test_fraction=0.6, val_fraction=0.3)
    images.setup()
    for key in ("train", "val"):  # shares of images, not rounded to 8 bits
        right = harness.history(run, f"{key}/acc")[-1][1] * images.sizes[key]
        assert right == pytest.approx(round(right), abs=1e-6)
    predicted = np.load(f"{folder}/predictions.npz")
    mlflow.set_tracking_uri(harness.uri)
    (logged,) = harness.client.search_logged_models([run.info.experiment_id])
    model = mlflow.pyfunc.load_model(logged.model_uri)
    found = model.predict(images.splits["test"][0].numpy())
    assert np.abs(found - predicted["probabilities"]).max() < 0.05
    module = mlflow.pytorch.load_model(logged.model_uri)
    logged, kept = (
        dict(each)[f"network.{NAME}"] for each in (module.named_parameters(), weights["state_dict"].items())
    )
    assert torch.equal(logged, kept.bfloat16().float())


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.filterwarnings("ignore:.*emulated here", "ignore:.*is for GPUs")
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true"])
def test_processes_that_share_a_run_give_what_one_gives(harness, precision):
    settings = (*TINY[:-2], "model.hidden=[{units: 8}]", "optim=sgd", f"trainer.precision={precision}")
    for devices in (1, 2):
        harness.train(*settings, f"++trainer.devices={devices}")
    two, one = (dict(harness.history(run, "train/loss")) for run in harness.runs())
    assert two == pytest.approx(one, rel=1e-2)


@pytest.mark.lean
@pytest.mark.filterwarnings("always:.*is for GPUs")
def test_float16_on_a_cpu_works_and_is_said_to_be_slow(harness, capsys):
    assert harness.main(*TINY, "trainer.precision=16-mixed", "averaging.kind=ema", "scheduler=cosine") is None
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: trainer.precision=16-mixed: is for GPUs; a CPU is up to 100 times slower in it" in said
    (run,) = harness.runs()
    folder = run.info.artifact_uri.removeprefix("file://")
    checkpoint = torch.load(f"{folder}/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["MixedPrecision"]["_growth_tracker"] == 10  # steps, in the checkpoint

"""No change of code changes a loss unnoticed: recorded ones for every network, optimizer and kind of recipe."""

import pytest
import recorded_losses
import torch
from recorded_losses import CASES, CURE, wrong
from torch.nn import functional as F

from digitlab.data.batches import EpochOrder
from digitlab.data.splits import Division
from digitlab.models import layers, networks
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.classifier import LOSSES

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, of small data


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_recorded(name):
    assert wrong(name) == ""


def order(patch) -> None:
    draw = EpochOrder.draw
    patch.setattr(EpochOrder, "draw", lambda self: draw(self).roll(1))


def noise(patch) -> None:
    start = ReseedEveryEpoch.on_train_epoch_start

    def other(self, trainer, module):
        start(self, trainer, module)
        torch.rand(1)

    patch.setattr(ReseedEveryEpoch, "on_train_epoch_start", other)


def initial_weights(patch) -> None:
    real = networks.initialize

    def scaled(network, init):
        real(network, init)
        with torch.no_grad():
            next(network.parameters()).mul_(1 + 1e-4)

    patch.setattr(networks, "initialize", scaled)


def split(patch) -> None:
    apply = Division.apply

    def swapped(self, images):
        splits = apply(self, images)
        splits.pairs["val"], splits.pairs["test"] = splits.pairs["test"], splits.pairs["val"]
        return splits

    patch.setattr(Division, "apply", swapped)


def dropout_scale(patch) -> None:
    draw = layers._draw_mask

    def off(values, p):
        mask, kept = draw(values, p)
        return mask, kept * (1 + 1e-4)

    patch.setattr(layers, "_draw_mask", off)


def loss(patch) -> None:
    patch.setitem(LOSSES, "cross_entropy", lambda logits, labels: F.cross_entropy(logits, labels) * (1 + 1e-4))


MUTANTS = (order, noise, initial_weights, split, dropout_scale, loss)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_change_of_results_is_seen_and_said_how_to_mean_it(mutant, monkeypatch):
    from digitlab.training import setup

    setup._load.cache_clear()
    mutant(monkeypatch)
    said = wrong("cnn_simple adam")
    monkeypatch.undo()
    setup._load.cache_clear()
    assert said.startswith("cnn_simple adam, ")
    assert said.endswith(CURE)
    assert "\n" not in CURE


def test_elsewhere_the_fifth_digit_counts(monkeypatch):
    found = recorded_losses.losses("mlp sgd")
    monkeypatch.setattr(recorded_losses, "machine", lambda: {"cpu": "another"})
    assert wrong("mlp sgd", {key: [value * (1 + 1e-6) for value in values] for key, values in found.items()}) == ""
    assert wrong("mlp sgd", {key: [value * (1 + 1e-4) for value in values] for key, values in found.items()})

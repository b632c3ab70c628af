"""Biases with a rate and a decay of their own, and rates that are a formula of the step."""

import pytest
import torch
import torch.nn.functional as F

from digitlab.training.parameter_groups import groups
from digitlab.training.setup import assemble, identify

SMALL = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer=cpu", "model=mlp", "optim=sgd")


def test_biases_have_their_own_rate_and_decay(harness):
    keys = ("optim.lr=0.1", "++optim.weight_decay=0.5", "++optim.bias={lr: 0.3, weight_decay: 0}")
    cfg, data, _ = identify(harness.compose(*SMALL, *keys, "model.init=torch", "model.dropout=false"))
    classifier, _ = assemble(cfg, data)
    before = {name: each.detach().clone() for name, each in classifier.network.named_parameters()}
    images, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    loss = F.cross_entropy(classifier.network.eval()(images), labels)
    gradients = dict(zip(before, torch.autograd.grad(loss, list(classifier.network.parameters())), strict=True))
    classifier._step(images, labels)
    for name, now in classifier.network.named_parameters():
        is_bias = name.endswith(".bias")
        step = 0.3 * gradients[name] if is_bias else 0.1 * (gradients[name] + 0.5 * before[name])
        torch.testing.assert_close(now.detach(), before[name] - step)


def test_biases_of_recurrent_and_attention_layers_are_biases():
    network = torch.nn.ModuleList([torch.nn.GRU(3, 2), torch.nn.MultiheadAttention(4, 2), torch.nn.BatchNorm1d(3)])
    weights, biases = groups(network, {"lr": 0.1})
    assert [tuple(each.shape) for each in biases["params"]] == [(6,), (6,), (12,), (4,), (3,)]
    assert [tuple(each.shape) for each in weights["params"]] == [(6, 3), (6, 2), (12, 4), (4, 4), (3,)]
    with pytest.raises(ValueError, match=r"bias\.lr: this network has no biases"):
        groups(torch.nn.Linear(3, 2, bias=False), {"lr": 0.1})


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["optim.bias.momentum=0.9"], "optim.bias.momentum: unknown key; allowed: optim.bias.lr, optim.bias.weight_de"),
        (["optim.bias.lr=0"], "optim.bias.lr=0: must be null or a number above 0"),
        (["~optim", "+optim={_target_: torch.optim.Rprop, _partial_: true, bias: {weight_decay: 0}}"], "optim: bias.w"),
        (
            ["optim.bias.lr=0.02", "scheduler=one_cycle"],
            "scheduler: sets one rate for all, so optim.bias.lr=0.02 has no",
        ),
    ],
)
def test_a_mistake_is_one_line(harness, keys, line):
    assert str(harness.main(*SMALL[:-1], *keys)).startswith(f"error: {line}")
    assert not harness.folder.exists()


def test_the_rate_is_the_formula_of_the_step(harness):
    harness.pictures = False
    formula = ("scheduler=inverse_time", "scheduler.gamma=0.05", "scheduler.power=0.75", "trainer.max_epochs=2")
    harness.train(*SMALL, *formula, "data.batch_size=50", "optim.lr=0.1", "++optim.bias.lr=0.2")
    rates = dict(harness.history(harness.runs()[0], "lr"))
    assert rates == pytest.approx({epoch: 0.1 * (1 + 0.05 * 10 * epoch) ** -0.75 for epoch in (1, 2)})

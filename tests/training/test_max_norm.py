"""SGD that limits the weights of hidden dense layers, against torch's step and Keras's formula."""

import numpy as np
import pytest
import test_capture
import torch
from capture_lint import LintedGraph
from torch import nn

from digitlab.models.networks import ConvNet
from digitlab.training.classifier import Classifier
from digitlab.training.cuda_graph import make_capturable
from digitlab.training.max_norm import MaxNormSGD

SETTINGS = {"lr": 0.5, "momentum": 0.9, "nesterov": True}


def network() -> nn.Module:
    torch.manual_seed(0)
    return ConvNet([{"channels": 4}], [{"units": 8}, {"units": 6}], input_shape=(1, 6, 6))


@pytest.mark.parametrize("fused", [True, False])
def test_each_step_is_torchs_and_then_kerass_constraint(fused):
    ours, theirs = network(), network()
    optimizer = MaxNormSGD(ours.parameters(), max_norm=0.4, **SETTINGS, fused=fused)
    plain = torch.optim.SGD(theirs.parameters(), **SETTINGS, fused=fused)
    for seed in range(3):
        images = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
        for each, steps in ((ours, optimizer), (theirs, plain)):
            steps.zero_grad()
            nn.functional.cross_entropy(each(images), torch.arange(16) % 10).backward()
            steps.step()
        for name, weights in theirs.named_parameters():
            if name in ("classifier.0.0.weight", "classifier.1.0.weight"):
                values = weights.detach().numpy()
                norms = np.sqrt((values**2).sum(1, keepdims=True))
                weights.data = torch.from_numpy(values * np.clip(norms, 0, 0.4) / (1e-7 + norms))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert ours.classifier[2].weight.norm(dim=1).max() > 0.4  # the output's are free


def test_its_steps_can_be_captured(monkeypatch):
    test_capture.stand_in(monkeypatch, "meta")
    with torch.device("meta"):
        built, images, labels = network(), torch.empty(16, 1, 6, 6), torch.empty(16, dtype=torch.int64)
    optimizer = MaxNormSGD(built.parameters(), max_norm=0.4, **SETTINGS, fused=True)
    assert make_capturable(optimizer, moves=True)
    graph = LintedGraph(Classifier(built, optimizer)._step, optimizer)
    for _ in range(5):
        graph(images, labels)
    assert graph.replays == 2

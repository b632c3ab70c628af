"""Batch normalization in networks made of blocks, against the same layers of plain PyTorch."""

import pytest
import torch
from torch import nn

from digitlab.models.input_norm import InputNormNet
from digitlab.models.networks import ConvNet

KERAS = {"place": "after", "eps": 1e-3, "momentum": 0.01}


def textbook(place: str, eps: float = 1e-5, momentum: float = 0.1) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inputs, channels in ((1, 8), (8, 6)):
        pair = [nn.ReLU(), nn.BatchNorm2d(channels, eps, momentum)]
        parts += [nn.Conv2d(inputs, channels, 3), *(pair if place == "after" else pair[::-1]), nn.MaxPool2d(2)]
    pair = [nn.ReLU(), nn.BatchNorm1d(20, eps, momentum)]
    # 14 -> 12 -> 6 -> 4 -> 2 rows
    return nn.Sequential(
        *parts, nn.Flatten(), nn.Linear(24, 20), *(pair if place == "after" else pair[::-1]), nn.Linear(20, 10)
    )


@pytest.mark.parametrize("batch_norm", ["before", "after", KERAS])
def test_same_function_gradients_and_statistics_as_the_textbook(batch_norm):
    """On 200 images: batch statistics are of all of them, not of those that are convolved at once."""
    torch.manual_seed(0)
    blocks = [{"channels": channels, "pool": 2, "batch_norm": batch_norm} for channels in (8, 6)]
    ours = ConvNet(blocks, [{"units": 20, "batch_norm": batch_norm}], input_shape=(1, 15, 15))
    place, *numbers = batch_norm.values() if isinstance(batch_norm, dict) else [batch_norm]
    theirs = textbook(place, *numbers)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert own.shape == other.shape
        other.data.copy_(own.data)
    dense = next(layer for layer in theirs if isinstance(layer, nn.Linear))
    order = torch.arange(24).view(2, 2, 6).permute(2, 0, 1).flatten()  # of channels-last features
    dense.weight.data = dense.weight.data[:, order]
    images = torch.rand(200, 1, 15, 15)
    for network in (ours, theirs):
        network(images)[:, 3].sum().backward()
        network.eval()
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
    first, other = ours.features[0][0], theirs[0]
    torch.testing.assert_close(first.weight.grad, other.weight.grad, rtol=1e-3, atol=1e-4)
    for own, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)


def test_without_running_statistics_it_tests_with_those_of_the_batch():
    keys = {"place": "after", "track_running_stats": False, "weights": "uniform"}
    torch.manual_seed(0)
    network = ConvNet([{"channels": 64, "batch_norm": keys}], input_shape=(1, 8, 8)).eval()
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    weights = norm.weight.detach()
    assert 0 <= float(weights.min()) < 0.1 < 0.9 < float(weights.max()) <= 1
    images = torch.rand(6, 1, 8, 8)
    assert not torch.allclose(network(images)[:3], network(images[:3]), atol=1e-3)
    torch.testing.assert_close(network(images), network.train()(images))


def test_dropout_comes_after_it():
    for keys in (
        {"units": 5, "dropout": 0.5, "batch_norm": "after"},
        {"units": 5, "dropout": 0.5, "batch_norm": "before"},
    ):
        kinds = [type(layer).__name__ for layer in ConvNet(hidden=[keys]).modules()]
        assert kinds.index("BatchNorm1d") < max(kinds.index(each) for each in kinds if "Dropout" in each)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"batch_norm": "behind"}, "batch_norm=behind: its place must be before or after"),
        ({"batch_norm": True}, "batch_norm=True: must be before, after or of place, eps"),
        ({"batch_norm": {"epsilon": 1}}, "batch_norm.epsilon: unknown key; allowed: place, eps, momentum"),
        ({"batch_norm": {"momentum": None}}, "batch_norm.momentum=None: must be a number from 0 to 1"),
    ],
)
def test_a_mistake_is_one_line(keys, words):
    with pytest.raises(ValueError, match=words):
        ConvNet([{"channels": 2} | keys])
    with pytest.raises(ValueError, match="batch_norm: unknown key of the output; allowed: activation, init"):
        ConvNet(output={"batch_norm": "before"})


@pytest.mark.parametrize(("axis", "over", "features"), [("channels", (0, 2, 3), 3), ("columns", (0, 1, 2), 16)])
def test_images_are_normalized_by_what_their_batch_has_along_an_axis(axis, over, features):
    network = InputNormNet(
        axis, eps=1e-12, momentum=0.01, num_classes=4, input_shape=(3, 15, 16), hidden=[{"units": 5}]
    )
    images = 5 + 3 * torch.rand(200, 3, 15, 16)
    mean, spread = images.mean(over, keepdim=True), images.std(over, unbiased=False, keepdim=True)
    torch.testing.assert_close(network(images), network.network((images - mean) / spread), rtol=1e-4, atol=1e-4)
    assert network.norm.running_mean.shape == (features,)
    torch.testing.assert_close(network.norm.running_mean, 0.01 * mean.flatten())
    with pytest.raises(ValueError, match="axis=rows: must be channels or columns"):
        InputNormNet("rows")

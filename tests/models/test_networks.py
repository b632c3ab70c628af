"""Networks: the tutorials' parameter counts, Keras's initial weights, the same function as plain PyTorch."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from digitlab.config.build import build
from digitlab.data.preprocess import Preprocess
from digitlab.models.layers import ReluDropout
from digitlab.models.networks import ConvNet
from digitlab.models.predictor import Predictor

TESTS = Path(__file__).parents[1]
CONF = TESTS.parent / "conf" / "model"

# The parameter counts that the tutorials print. Where one prints no total it is computed from the layers:
# (weights of a unit + its bias) * units for each.
FACTS = yaml.safe_load((TESTS / "claims" / "facts.yaml").read_text())
PRINTED = {name: network for document in FACTS.values() for name, network in document.get("networks", {}).items()}
PARAMETERS = {name: network["total"] for name, network in PRINTED.items() if "total" in network} | {
    "cnn_double_5x5": 26 * 32 + (32 * 25 + 1) * 64 + (64 * 10 * 10 + 1) * 128 + 129 * 10,
    "cnn_double_3x3": 10 * 32 + (32 * 9 + 1) * 64 + (64 * 12 * 12 + 1) * 128 + 129 * 10,
    "cnn_single_5x5": 26 * 32 + (32 * 12 * 12 + 1) * 128 + 129 * 10,
    "cnn_dense1000": 26 * 32 + (32 * 25 + 1) * 64 + (64 * 4 * 4 + 1) * 1000 + 1001 * 10,
    "cnn_simple": 10 * 32 + (32 * 9 + 1) * 64 + (64 * 5 * 5 + 1) * 10,
    "lenet": 26 * 6 + (6 * 25 + 1) * 16 + (16 * 5 * 5 + 1) * 120 + 121 * 84 + 85 * 10,
}


NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
CONV_NETS = {name for name in NAMES if OmegaConf.load(CONF / f"{name}.yaml")._target_.endswith(".ConvNet")}
SMALL_CONV_NETS = sorted(CONV_NETS - {"cnn_wide", "cnn_pool_wide"})
OF_THE_TUTORIALS = sorted(set(SMALL_CONV_NETS) - {"lenet"})  # unpadded, ReLU, max pooling


def make(name: str, num_classes: int = 10, input_shape: Sequence[int] = (1, 28, 28), **changes) -> nn.Module:
    """Build a network of conf/model, of whatever class, as a run does."""
    node = OmegaConf.load(CONF / f"{name}.yaml")
    cfg = OmegaConf.create({"model": OmegaConf.merge(node, changes)})
    return build(cfg, "model", num_classes=num_classes, input_shape=list(input_shape))


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_every_network_has_its_number_of_parameters():
    for name in NAMES:
        assert name in PARAMETERS, f"conf/model/{name}.yaml: work its parameters out, and give them in PARAMETERS here"
        assert count(make(name)) == PARAMETERS[name], name
    assert set(PARAMETERS) <= set(NAMES)


@pytest.mark.parametrize("name", PRINTED)
def test_layers_have_the_parameters_that_the_tutorials_print(name):
    counts = [count(layer) for layer in make(name).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    printed = PRINTED[name]["layers"]
    assert counts[: len(printed)] == printed
    assert len(counts) == len(printed) or "total" not in PRINTED[name]


@pytest.mark.parametrize("name", SMALL_CONV_NETS)
def test_networks_take_other_numbers_of_classes_and_image_shapes(name):
    network = make(name, num_classes=3, input_shape=[2, 24, 20])
    assert network(torch.rand(5, 2, 24, 20)).shape == (5, 3)


@pytest.mark.parametrize("name", ["mlp", "cnn_pool", "cnn_double_3x3", "cnn_simple"])
def test_one_switch_turns_all_dropout_off(name):
    def dropouts(network):
        return sum(isinstance(module, ReluDropout) for module in network.modules())

    assert dropouts(make(name)) > 0
    assert dropouts(make(name, dropout=False)) == 0
    assert count(make(name, dropout=False)) == PARAMETERS[name]


def test_networks_start_in_training_mode_and_dropout_draws_no_initial_random_numbers():
    torch.manual_seed(0)
    with_dropout = make("cnn_pool")
    torch.manual_seed(0)
    without = make("cnn_pool", dropout=False)
    assert all(module.training for module in with_dropout.modules())
    weights = zip(with_dropout.parameters(), without.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in weights)


def test_keras_init_is_glorot_uniform_with_zero_biases():
    network = make("cnn_double_3x3")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            field = math.prod(layer.weight.shape[2:])
            limit = math.sqrt(6 / (layer.weight.shape[1] * field + layer.weight.shape[0] * field))
            assert layer.bias.abs().max() == 0
            assert 0.95 * limit < layer.weight.abs().max() <= limit
            assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)


def textbook(name: str) -> nn.Sequential:
    """Build a network without dropout from PyTorch's own layers: NCHW, ReLU before pooling."""
    node = OmegaConf.load(CONF / f"{name}.yaml")
    parts, channels, size = [], 1, 28
    for block in node.get("blocks", []):
        parts += [nn.Conv2d(channels, block.channels, block.kernel), nn.ReLU()]
        channels, size = block.channels, size - block.kernel + 1
        if block.get("pool", 1) > 1:
            parts, size = [*parts, nn.MaxPool2d(block.pool)], size // block.pool
    parts, units = [*parts, nn.Flatten()], channels * size * size
    for layer in node.get("hidden", []):
        parts, units = [*parts, nn.Linear(units, layer.units), nn.ReLU()], layer.units
    return nn.Sequential(*parts, nn.Linear(units, 10))


def test_torch_init_is_pytorchs_own():
    torch.manual_seed(3)
    ours = make("cnn_simple", init="torch")
    torch.manual_seed(3)
    theirs = textbook("cnn_simple")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", OF_THE_TUTORIALS)
def test_same_function_and_gradients_as_the_textbook(name):
    ours, theirs = make(name, dropout=False), textbook(name)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(mine.data)
    flatten = next(i for i, layer in enumerate(theirs) if isinstance(layer, nn.Flatten))
    images = torch.rand(70, 1, 28, 28)  # more than one micro-batch
    channels, height, width = (theirs[:flatten](images[:1]).shape)[1:]
    theirs_as_ours = nn.Unflatten(1, (height, width, channels))  # ours flattens channels last, as Keras does
    order = theirs_as_ours(torch.arange(channels * height * width)[None])[0].permute(2, 0, 1).flatten()
    dense = theirs[flatten + 1]
    dense.weight.data = dense.weight.data[:, order]
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    ours(images).square().sum().backward()
    theirs(images).square().sum().backward()
    dense.weight.grad = dense.weight.grad[:, order.argsort()]
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)


def test_activations_stay_channels_last():
    hidden = make("cnn_pool").features[0](torch.rand(4, 1, 28, 28))
    assert hidden.is_contiguous(memory_format=torch.channels_last)
    assert not hidden.is_contiguous()


BLOCKS = {
    "padded, rising": (
        {"channels": 6, "kernel": 5, "padding": 2, "activation": "tanh", "pool": 2},
        lambda: [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2)],
    ),
    "padded alike, not rising, overlapping": (
        {"channels": 6, "kernel": 3, "padding": "same", "activation": "silu", "pool": 3, "pool_stride": 1},
        lambda: [nn.Conv2d(1, 6, 3, padding="same"), nn.SiLU(), nn.MaxPool2d(3, 1)],
    ),
    "averaged": (
        {"channels": 6, "kernel": 4, "activation": "sigmoid", "pool": 2, "pool_kind": "average"},
        lambda: [nn.Conv2d(1, 6, 4), nn.Sigmoid(), nn.AvgPool2d(2)],
    ),
    "bare, averaged, overlapping": (
        {"channels": 6, "activation": "none", "pool": 3, "pool_stride": 2, "pool_kind": "average"},
        lambda: [nn.Conv2d(1, 6, 3), nn.AvgPool2d(3, 2)],
    ),
    "over the edge": (
        {"channels": 6, "pool": 3, "pool_stride": 2, "pool_ceil_mode": True},
        lambda: [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)],
    ),
    "over the edge, average": (
        {"channels": 6, "kernel": 4, "pool": 2, "pool_ceil_mode": True, "pool_kind": "average"},
        lambda: [nn.Conv2d(1, 6, 4), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True)],
    ),
    "bent": ({"channels": 6, "activation": "elu"}, lambda: [nn.Conv2d(1, 6, 3), nn.ELU()]),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [(28, 28), (13, 16)])
def test_a_block_is_that_of_the_textbook(name, size):
    keys, layers = BLOCKS[name]
    images = torch.rand(65, 1, *size)  # more than one micro-batch
    theirs = nn.Sequential(*layers())
    pixels = theirs(images).permute(0, 2, 3, 1).flatten(1)
    ours = ConvNet(blocks=[keys], output={"activation": "tanh"}, num_classes=3, input_shape=[1, *size])
    convolution, output = (layer for layer in ours.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    convolution.load_state_dict(theirs[0].state_dict())
    torch.testing.assert_close(ours(images), output(pixels).tanh(), rtol=1e-4, atol=1e-5)


def test_dropout_is_of_what_was_pooled_and_leaves_with_the_others():
    keys = {"channels": 64, "activation": "sigmoid", "pool": 2, "pool_kind": "average", "dropout": 0.25}
    network = ConvNet(blocks=[keys], hidden=[{"units": 8, "activation": "tanh", "dropout": 0.5}])
    values = network.features(torch.rand(20, 1, 28, 28))
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert not any(isinstance(layer, nn.Dropout) for layer in ConvNet(blocks=[keys], dropout=False).modules())


@pytest.mark.parametrize(
    ("rule", "sd", "limit"),
    [
        ("glorot_uniform", math.sqrt(2 / 1500), math.sqrt(6 / 1500)),
        ("glorot_normal", math.sqrt(2 / 1500), 2 * math.sqrt(2 / 1500) / 0.87962566103423978),
        ("he_uniform", math.sqrt(2 / 1000), math.sqrt(6 / 1000)),
        ("he_normal", math.sqrt(2 / 1000), 2 * math.sqrt(2 / 1000) / 0.87962566103423978),
        ("lecun_uniform", math.sqrt(1 / 1000), math.sqrt(3 / 1000)),
        ("lecun_normal", math.sqrt(1 / 1000), 2 * math.sqrt(1 / 1000) / 0.87962566103423978),
        ("xavier_normal", math.sqrt(2 / 1500), None),
        ("kaiming_normal", math.sqrt(2 / 1000), None),
        ({"normal": 0.02}, 0.02, None),
        ({"truncated_normal": 0.02}, 0.02 * 0.87962566103423978, 0.04),
        ({"uniform": 0.05}, 0.05 / math.sqrt(3), 0.05),
        (0.1, 0, 0.1),
    ],
)
def test_initial_values_have_the_spread_and_the_limit_of_their_definition(rule, sd, limit):
    layer = ConvNet(hidden=[{"units": 500, "init": {"weights": rule, "biases": 0.25}}], input_shape=[1, 25, 40])
    weights = layer.classifier[0][0].weight
    assert weights.std().item() == pytest.approx(sd, rel=0.01, abs=1e-6)
    if limit is None:
        assert weights.abs().max() > 4 * sd
    else:
        assert 0.999 * limit < weights.abs().max() <= limit * (1 + 1e-6)
    assert (layer.classifier[0][0].bias == 0.25).all()
    assert layer.classifier[1].bias.abs().max() == 0  # the output's are those of the network


def test_a_convolutions_inputs_are_those_of_its_whole_field():
    rules = {"weights": "he_normal", "biases": {"normal": 1}}
    network = ConvNet(blocks=[{"channels": 64}, {"channels": 128, "kernel": 5}], init=rules, output={"init": "torch"})
    for convolution, inputs in zip(network.features[:2], (9, 64 * 25), strict=True):
        assert convolution[0].weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.1)
        assert convolution[0].bias.std().item() == pytest.approx(1, rel=0.3)
    output = network.classifier[0]
    assert output.weight.abs().max() <= 1 / math.sqrt(output.in_features)
    assert output.bias.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"blocks": [{"channels": 8, "size": 3}]},
            "size: unknown key of a block; allowed: channels, kernel, padding, ",
        ),
        ({"hidden": [{"units": 8, "drop": 0.5}]}, "drop: unknown key of a dense; allowed: units, activation, dropout"),
        ({"hidden": [{"units": 8, "dropout": 1.5}]}, "dropout=1.5: must be a number from 0 and below 1"),
        ({"init": "glorot"}, "init=glorot: must be keras or torch"),
        ({"init": {"weights": "he"}}, "init: he: must be a number, {uniform: NUMBER}, .* or of torch, glorot_uniform"),
        ({"init": {"weights": {"normal": 1, "uniform": 2}}}, "init: {'normal': 1, 'uniform': 2}: must be a number"),
        ({"init": {"weights": True}}, "init: True: must be a number"),
        ({"init": {"bias": 0}}, "init.bias: unknown key; allowed: weights, biases"),
        ({"blocks": [{"channels": 8, "padding": -1}]}, "padding=-1: must be a whole number from 0, or same"),
        ({"blocks": [{"channels": 8, "pool_kind": "min"}]}, "pool_kind=min: must be of max, average"),
        ({"hidden": [{"units": 8, "activation": "swish"}]}, "activation=swish: must be of relu, sigmoid, tanh"),
        ({"hidden": [{"units": 8, "activation": ["relu"]}]}, r"activation=\['relu'\]: must be of relu, sigmoid"),
        ({"hidden": [{"units": 8, "init": 0.5}]}, "init=0.5: must be keras or torch, or {weights, biases}"),
        ({"init": {"weights": {"uniform": -1}}}, "init: {'uniform': -1}: must be a number from 0"),
        ({"init": {"weights": {"constant": 1}}}, "init: {'constant': 1}: must be a number, {uniform: NUMBER}"),
        ({"blocks": [{"channels": 8, "pool_stride": 2}]}, "pool_stride: is of pooling, and pool=1 has none; give pool"),
        ({"blocks": [{"channels": 8, "pool_kind": "average"}]}, "pool_kind: is of pooling"),
        ({"blocks": [{"channels": 8, "pool_ceil_mode": True}]}, "pool_ceil_mode: is of pooling"),
        (
            {"blocks": [{"channels": 8, "batch_norm": {"momentum": 5}}]},
            "batch_norm.momentum=5: must be a number from 0 to",
        ),
        ({"hidden": [{"units": 8, "batch_norm": {"eps": True}}]}, "batch_norm.eps=True: must be a number from 0"),
        ({"output": {"units": 8}}, "units=8: the output has as many as there are classes"),
    ],
)
def test_bad_keywords_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        ConvNet(**changes)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_predictor_takes_stored_images(normalize):
    network = make("cnn_simple").eval()
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    pixels = images[:, None] / 255 if normalize else images[:, None].float()
    torch.testing.assert_close(Predictor(Preprocess(normalize), network)(images), network(pixels).softmax(1))

"""Build networks from configured blocks and layers."""

import copy
import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from digitlab.models.layers import Flatten, ReluDropout

MICRO_BATCH = {torch.float32: 64, torch.bfloat16: 128}  # images convolved at once: more do not fit a CPU's cache


class ConvNet(nn.Module):
    """Classify images with convolution blocks, then dense layers: float (N, C, H, W) -> logits (N, num_classes).

    - `blocks`: for each convolution block the keywords of `block`: channels, kernel, pool, dropout.
    - `hidden`: for each hidden layer the keywords of `dense`: units, dropout.
    - `dropout`: False leaves out every dropout.
    - `init`: "keras" is Glorot uniform with zero biases, "torch" is PyTorch's own.
    - `input_shape`: (C, H, W) of one image.

    Raises ValueError or TypeError for keywords that are unknown, missing or out of range.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping] = (),
        hidden: Sequence[Mapping] = (),
        dropout: bool = True,
        init: str = "keras",
        num_classes: int = 10,
        input_shape: Sequence[int] = (1, 28, 28),
    ):
        super().__init__()
        off = {} if dropout else {"dropout": 0.0}
        channels = input_shape[0]
        features = nn.Sequential()
        for keys in blocks:
            features.append(_layer(block, channels, {**keys, **off}))
            channels = keys["channels"]
        features.append(Flatten())
        units = _count_outputs(features, input_shape)
        self.receptive_extent = [_receptive_extent(features, axis, size) for axis, size in enumerate(input_shape[1:])]
        classifier = nn.Sequential()
        for keys in hidden:
            classifier.append(_layer(dense, units, {**keys, **off}))
            units = keys["units"]
        classifier.append(nn.Linear(units, num_classes))
        self.features, self.classifier = features, classifier
        initialize(self, init)
        # Convolutions on channels_last weights keep their activations in that layout, which pools several times faster.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.receptive_extent
        images = images[:, :, :rows, :columns]  # the same logits with up to 15 % less to compute
        if not self.training or images.device.type != "cpu" or len(self.features) == 1:  # 1: only Flatten
            return self.classifier(self.features(images))
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        parts = images.split(MICRO_BATCH.get(kind, MICRO_BATCH[torch.float32]))
        return self.classifier(torch.cat([self.features(part) for part in parts]))


def block(inputs: int, channels: int, kernel: int = 3, pool: int = 1, dropout: float = 0.0) -> nn.Sequential:
    """Stack an unpadded convolution, max pooling, ReLU and dropout; `pool=1` and `dropout=0` leave out theirs.

    Pooling comes before ReLU: the two commute, and ReLU then has fewer values to compute, a quarter for `pool=2`.
    """
    layers = nn.Sequential(nn.Conv2d(inputs, channels, kernel))
    if pool > 1:
        layers.append(nn.MaxPool2d(pool))
    return layers.append(_activation(dropout))


def dense(inputs: int, units: int, dropout: float = 0.0) -> nn.Sequential:
    """Stack a dense layer, ReLU and dropout."""
    return nn.Sequential(nn.Linear(inputs, units), _activation(dropout))


def _activation(dropout: float) -> nn.Module:
    return ReluDropout(dropout) if dropout else nn.ReLU()


def initialize(network: nn.Module, init: str) -> None:
    """Initialize the weights of every convolution and dense layer as "keras" does, or leave those of "torch"."""
    if init not in ("keras", "torch"):
        raise ValueError(f"init={init}: must be keras or torch")
    if init == "keras":
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _layer(make, inputs: int, keys: Mapping) -> nn.Sequential:
    allowed = list(inspect.signature(make).parameters)[1:]
    unknown = sorted(set(keys) - set(allowed))
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key of a {make.__name__}; allowed: {', '.join(allowed)}")
    for name, value in keys.items():
        if name == "dropout":
            is_valid, allowed = type(value) in (int, float) and 0 <= value < 1, "number from 0 and below 1"
        else:
            is_valid, allowed = type(value) is int and value >= 1, "whole number from 1"
        if not is_valid:
            raise ValueError(f"{name}={value}: must be a {allowed}")
    return make(inputs, **keys)


def _receptive_extent(features: nn.Module, axis: int, size: int) -> int:
    """Return how many of `size` pixels along an axis affect the output: pooling drops a last, incomplete window."""
    steps = []
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel = layer.kernel_size if isinstance(layer.kernel_size, int) else layer.kernel_size[axis]
            steps.append((isinstance(layer, nn.Conv2d), kernel))
    for is_convolution, kernel in steps:
        size = size - kernel + 1 if is_convolution else size // kernel
    for is_convolution, kernel in reversed(steps):
        size = size + kernel - 1 if is_convolution else size * kernel
    return size


def _count_outputs(features: nn.Module, input_shape: Sequence[int]) -> int:
    on_meta = copy.deepcopy(features).to("meta")  # computes shapes only, and draws no random numbers
    return on_meta(torch.empty(1, *input_shape, device="meta")).shape[1]

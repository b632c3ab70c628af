"""Build networks from configured blocks and layers."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from digitlab.models.blocks import block, dense, make
from digitlab.models.initial_values import initialize
from digitlab.models.layers import Flatten

MICRO_BATCH = {torch.float32: 64, torch.bfloat16: 128}  # images convolved at once: more do not fit a CPU's cache


class ConvNet(nn.Module):
    """Classify images with convolution blocks, then dense layers: float (N, C, H, W) -> logits (N, num_classes).

    - `blocks`: for each convolution block the keywords of `blocks.block`: channels, kernel, padding, activation, ...
    - `hidden`: for each hidden layer the keywords of `blocks.dense`: units, activation, dropout, batch_norm.
    - `output`: keywords of the layer of the classes: activation, none by default.
    - `dropout`: False leaves out every dropout.
    - `init`: see `initial_values.initialize`; a block, a hidden layer and the output may have an `init` of their own.
    - `input_shape`: (C, H, W) of one image.

    Raises ValueError or TypeError for keywords that are unknown, missing or out of range.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping] = (),
        hidden: Sequence[Mapping] = (),
        output: Mapping = MappingProxyType({}),
        dropout: bool = True,
        init: str | Mapping = "keras",
        num_classes: int = 10,
        input_shape: Sequence[int] = (1, 28, 28),
    ):
        super().__init__()
        initial = []  # of each layer; all are made before the first gets its values: the seed decides both

        def layer(kind: Callable[..., nn.Sequential], inputs: int, keys: Mapping) -> nn.Sequential:
            own = {name: value for name, value in keys.items() if name != "init"}
            dropped = {} if dropout else {name: 0.0 for name in own if name.endswith("dropout")}
            made = make(kind, inputs, own | dropped)
            initial.append((made[0], keys.get("init", init)))
            return made

        features, channels = nn.Sequential(), input_shape[0]
        for keys in blocks:
            features.append(layer(block, channels, keys))
            channels = keys["channels"]
        features.append(Flatten())
        units = _count_outputs(features, input_shape)
        self.receptive_extent = [_receptive_extent(features, axis, size) for axis, size in enumerate(input_shape[1:])]
        classifier = nn.Sequential()
        for keys in hidden:
            classifier.append(layer(dense, units, keys))
            units = keys["units"]
        if "units" in output:
            raise ValueError(f"units={output['units']}: the output has as many as there are classes")
        if unknown := sorted(set(output) - {"activation", "init"}):
            raise ValueError(f"{unknown[0]}: unknown key of the output; allowed: activation, init")
        last = layer(dense, units, {"activation": "none", **output, "units": num_classes})
        classifier.extend(last if output.get("activation", "none") != "none" else last[:1])
        self.features, self.classifier = features, classifier
        # Of flattened images there is nothing to save; batch statistics are of whole batches.
        self.is_split = len(features) > 1 and not any(isinstance(each, nn.BatchNorm2d) for each in features.modules())
        for module, values in initial:
            initialize(module, values)
        # Convolutions on channels_last weights keep their activations in that layout, which pools several times faster.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = self.receptive_extent
        images = images[:, :, :rows, :columns]  # the same logits with up to 15 % less to compute
        if not self.training or images.device.type != "cpu" or not self.is_split:
            return self.classifier(self.features(images))
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        parts = images.split(MICRO_BATCH.get(kind, MICRO_BATCH[torch.float32]))
        return self.classifier(torch.cat([self.features(part) for part in parts]))


def _receptive_extent(features: nn.Module, axis: int, size: int) -> int:
    """Return how many of `size` pixels along an axis are needed: pooling drops a last, incomplete window.

    All where anything is padded, since what is left out then would be padded in its place, where windows overlap or
    stand over the edge, or where what is left out is in the statistics of a batch.
    """
    steps = []
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            return size
        if isinstance(layer, nn.Conv2d):
            if layer.padding == "same" or any(layer.padding):
                return size
            steps.append((True, layer.kernel_size[axis]))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            if layer.stride != layer.kernel_size or layer.ceil_mode:
                return size
            steps.append((False, layer.kernel_size))
    for is_convolution, kernel in steps:
        size = size - kernel + 1 if is_convolution else size // kernel
    for is_convolution, kernel in reversed(steps):
        size = size + kernel - 1 if is_convolution else size * kernel
    return size


def _count_outputs(features: nn.Module, input_shape: Sequence[int]) -> int:
    on_meta = copy.deepcopy(features).to("meta")  # computes shapes only, and draws no random numbers
    with warnings.catch_warnings(action="ignore"):  # torch's, given once, of a copy that padding an even kernel takes
        return on_meta(torch.empty(2, *input_shape, device="meta")).shape[1]

"""Let networks of others, which are made for colour, take gray images."""

from torch import nn


def take_gray(network: nn.Module) -> None:
    """Have a network that takes three channels take one, as if it stood in all three: the first weights are added up.

    A network that begins with something else than a convolution of three channels stays as it is.
    """
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None and first.in_channels == 3:
        first.weight = nn.Parameter(first.weight.detach().sum(dim=1, keepdim=True))
        first.in_channels = 1

"""Give the biases of a network keys of their own in its optimizer."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer


def groups(network: nn.Module, bias: Mapping[str, Any]) -> list[Any]:
    """Return the parameters as an optimizer takes them: a plain list, or biases apart where they have keys, `bias`."""
    if not bias:
        return list(network.parameters())
    apart: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in network.named_parameters():
        apart[name.rpartition(".")[2] == "bias"].append(parameter)
    return [{"params": apart[False]}, {"params": apart[True], **bias}]


def check_keys(optimizer: Optimizer, bias: Mapping[str, Any]) -> None:
    """Raise ValueError for a key of `bias` that the optimizer does not have: torch would take it and read it never."""
    if unknown := sorted(bias.keys() - optimizer.defaults.keys()):
        raise ValueError(f"bias.{unknown[0]}: {type(optimizer).__name__} has no {unknown[0]}")

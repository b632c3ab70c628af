"""Give the biases of a network keys of their own in its optimizer."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from torch import nn
from torch.optim import Optimizer


def groups(network: nn.Module, bias: Mapping[str, Any]) -> list[Any]:
    """Return the parameters as an optimizer takes them: a plain list, or biases apart where they have keys, `bias`.

    Raises ValueError where they have keys and the network has none.
    """
    if not bias:
        return list(network.parameters())
    apart: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in network.named_parameters():
        apart[_is_bias(name.rpartition(".")[2], parameter)].append(parameter)
    if not apart[True]:
        raise ValueError(f"bias.{next(iter(bias))}: this network has no biases")
    return [{"params": apart[False]}, {"params": apart[True], **bias}]


def _is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Say whether a parameter is a bias, as `bias`, a GRU's `bias_ih_l0` and attention's `in_proj_bias` are."""
    return name == "bias" or (parameter.ndim == 1 and "bias" in name.split("_"))


def check_keys(optimizer: Optimizer, bias: Mapping[str, Any]) -> None:
    """Raise ValueError for a key of `bias` that the optimizer does not have: torch would take it and read it never."""
    if unknown := sorted(bias.keys() - optimizer.defaults.keys()):
        raise ValueError(f"bias.{unknown[0]}: {type(optimizer).__name__} has no {unknown[0]}")


def check_rates(optimizer: Optimizer, rate: float | None) -> None:
    """Raise ValueError where a scheduler has given the biases the rate of the weights, and not their own, `rate`."""
    if rate is None or isclose(rate, optimizer.defaults["lr"]):
        return
    weights, biases = (group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
    if isclose(weights, biases):
        raise ValueError(f"sets one rate for all, so optim.bias.lr={rate} has no effect; allowed: a list of two rates, "
                         "of weights and of biases")  # fmt: skip

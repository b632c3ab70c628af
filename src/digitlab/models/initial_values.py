"""Initial values of weights and biases, by the names that Keras and PyTorch have for them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

# What a variance is made of: its scale, and the inputs of a unit or their mean with its outputs.
SCALES = {"glorot": (1, "mean"), "he": (2, "inputs"), "lecun": (1, "inputs")}
TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal that is cut at 2
OF_NUMBER: dict[str, Callable[[Tensor, float], Any]] = {
    "constant": lambda values, value: nn.init.constant_(values, value),
    "uniform": lambda values, limit: nn.init.uniform_(values, -limit, limit),
    "normal": lambda values, sd: nn.init.normal_(values, std=sd),
    "truncated_normal": lambda values, sd: nn.init.trunc_normal_(values, std=sd, a=-2 * sd, b=2 * sd),
}
OF_KERAS = tuple(f"{name}_{shape}" for name in SCALES for shape in ("uniform", "normal"))
NAMES = ("torch", *OF_KERAS, "xavier_normal", "kaiming_normal")
WHOLE = {"keras": {"weights": "glorot_uniform", "biases": 0}, "torch": {"weights": "torch", "biases": "torch"}}

Rule = str | float | Mapping[str, float]


def initialize(layer: nn.Conv2d | nn.Linear, init: str | Mapping[str, Rule]) -> None:
    """Give a layer its initial values.

    `init` is "keras" (Glorot uniform, zero biases), "torch" (PyTorch's own, which every layer has already), or says
    each of `weights` and `biases`, "keras" where it is silent: a name of NAMES; a number, which every value then is; or
    a distribution, {uniform: its limit}, {normal: its standard deviation}, {truncated_normal: the same, cut at 2 of
    them}. The normal ones of Keras are cut at 2 standard deviations, PyTorch's xavier and kaiming are not. Raises
    ValueError for what is none of these. Sources: the initializers of Keras 3, and of torch.nn.init.
    """
    if not isinstance(init, Mapping) and init not in WHOLE:
        raise ValueError(f"init={init}: must be keras or torch, or {{weights, biases}}")
    rules = WHOLE[init] if isinstance(init, str) else {**WHOLE["keras"], **init}
    if unknown := set(rules) - {"weights", "biases"}:
        raise ValueError(f"init.{min(unknown)}: unknown key; allowed: weights, biases")
    field = math.prod(layer.weight.shape[2:])
    inputs, outputs = layer.weight.shape[1] * field, layer.weight.shape[0] * field
    fill(layer.weight, rules["weights"], inputs, outputs)
    if layer.bias is not None:
        fill(layer.bias, rules["biases"], inputs, outputs)


def fill(values: Tensor, rule: Rule, inputs: int, outputs: int) -> None:
    """Fill `values` of a layer whose units have so many `inputs` and `outputs` by a rule of `initialize`."""
    if rule == "torch":
        return
    if isinstance(rule, str) and rule in NAMES:
        family, _, shape = rule.rpartition("_")
        scale, of = SCALES[{"xavier": "glorot", "kaiming": "he"}.get(family, family)]
        sd = math.sqrt(scale / (inputs if of == "inputs" else (inputs + outputs) / 2))
        if family in SCALES and shape == "normal":
            OF_NUMBER["truncated_normal"](values, sd / TRUNCATED)
        else:
            OF_NUMBER[shape](values, math.sqrt(3) * sd if shape == "uniform" else sd)
        return
    numbers: Mapping[str, Any] = rule if isinstance(rule, Mapping) else {"constant": rule}
    names = {"constant"} if numbers is not rule else set(OF_NUMBER) - {"constant"}
    if len(numbers) != 1 or not set(numbers) <= names or not all(map(_is_number, numbers.values())):
        kinds = ", ".join(f"{{{name}: NUMBER}}" for name in OF_NUMBER if name != "constant")
        raise ValueError(f"init: {rule}: must be a number, {kinds} or of {', '.join(NAMES)}")
    ((name, number),) = numbers.items()
    if name != "constant" and number < 0:
        raise ValueError(f"init: {rule}: must be a number from 0")
    OF_NUMBER[name](values, number)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]

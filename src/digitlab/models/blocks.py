"""The blocks that networks are made of, each from the plain values of a line of configuration."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from digitlab.models.layers import ReluDropout

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "none": nn.Identity,
    "logsigmoid": nn.LogSigmoid,  # of the output: softmax then divides sigmoids by their sum
}
RISING = ("relu", "sigmoid", "tanh", "elu", "none", "logsigmoid")  # such an activation and max pooling commute
SHARE = (lambda value: type(value) in (int, float) and 0 <= value < 1, "a number from 0 and below 1")
WHOLE_FROM_0 = (lambda value: type(value) is int and value >= 0, "a whole number from 0")
NORMALIZATION = ("place", "eps", "momentum", "track_running_stats", "weights")
OF_NORMALIZATION: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "eps": (lambda value: type(value) in (int, float) and 0 <= value < 1, "a number from 0 and below 1"),
    "momentum": (lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1"),
    "track_running_stats": (lambda value: type(value) is bool, "true or false"),
}
WHOLE_FROM_1 = (lambda value: type(value) is int and value >= 1, "a whole number from 1")
ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "channels": WHOLE_FROM_1,
    "kernel": WHOLE_FROM_1,
    "units": WHOLE_FROM_1,
    "pool": WHOLE_FROM_1,
    "pool_stride": WHOLE_FROM_1,
    "pool_kind": (lambda value: value in ("max", "average"), "of max, average"),
    "pool_ceil_mode": (lambda value: type(value) is bool, "true or false"),
    "padding": (lambda value: value == "same" or WHOLE_FROM_0[0](value), "a whole number from 0, or same"),
    "activation": (lambda value: isinstance(value, str) and value in ACTIVATIONS, f"of {', '.join(ACTIVATIONS)}"),
    "dropout": SHARE,
    "spatial_dropout": SHARE,
    "batch_norm": (lambda value: isinstance(value, str | Mapping), f"before, after or of {', '.join(NORMALIZATION)}"),
}


def block(
    inputs: int,
    channels: int,
    kernel: int = 3,
    padding: int | str = 0,
    activation: str = "relu",
    pool: int = 1,
    pool_kind: str = "max",
    pool_stride: int | None = None,
    pool_ceil_mode: bool = False,
    dropout: float = 0.0,
    spatial_dropout: float = 0.0,
    batch_norm: str | Mapping | None = None,
) -> nn.Sequential:
    """Stack a convolution, its activation, pooling and dropout, with batch normalization where `normalize` has it.

    `padding` is so many zeros on each side, or "same": as many rows and columns as came in. `pool` is the side of the
    pooled squares, which follow each other at `pool_stride`, side by side by default; `pool_kind` is max or average.
    With `pool_ceil_mode` the last ones may stand over the edge, of which they see what there is.
    `pool=1` and `dropout=0` leave out theirs; `spatial_dropout` drops whole channels of what the block gives. Where it
    gives the same, pooling comes before the activation, which then has fewer values to compute: a quarter for `pool=2`.
    """
    of_pool = {"pool_kind": pool_kind != "max", "pool_stride": pool_stride, "pool_ceil_mode": pool_ceil_mode}
    if pool == 1 and any(of_pool.values()):
        name = next(name for name, is_given in of_pool.items() if is_given)
        raise ValueError(f"{name}: is of pooling, and pool=1 has none; give pool")
    convolution = nn.Conv2d(inputs, channels, kernel, padding=padding)
    pooling, whole = [], [nn.Dropout2d(spatial_dropout)] if spatial_dropout else []
    if pool > 1:
        kind = nn.MaxPool2d if pool_kind == "max" else nn.AvgPool2d
        pooling = [kind(pool, pool_stride, ceil_mode=pool_ceil_mode)]
    before, after = normalize(batch_norm, nn.BatchNorm2d, channels)
    rest = [activate(activation, dropout)]
    if pool_kind == "max" and activation in RISING and not after:
        return nn.Sequential(convolution, *before, *pooling, *rest, *whole)
    if dropout and (pooling or after):  # which is of what was pooled
        rest, pooling = [activate(activation, 0)], [*pooling, nn.Dropout(dropout)]
    return nn.Sequential(convolution, *before, *rest, *after, *pooling, *whole)


def dense(
    inputs: int,
    units: int,
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: str | Mapping | None = None,
) -> nn.Sequential:
    """Stack a dense layer, its activation and dropout, with batch normalization where `normalize` has it."""
    before, after = normalize(batch_norm, nn.BatchNorm1d, units)
    rest = [activate(activation, 0), *after, nn.Dropout(dropout)] if after else [activate(activation, dropout)]
    return nn.Sequential(nn.Linear(inputs, units), *before, *rest)


def normalize(batch_norm: str | Mapping | None, kind: type[nn.Module], features: int) -> tuple[list, list]:
    """Return the batch normalization before the activation and that after it; each a list of one layer or none.

    `batch_norm` is where it stands, before or after, or a mapping: `place`; `eps`, `momentum` and
    `track_running_stats` of torch's layer, which without running statistics tests with those of the test batch; and
    `weights`, ones to begin with, or uniform: from 0 to 1, as PyTorch had them before 1.2.
    """
    if batch_norm is None:
        return [], []
    told = {"place": batch_norm} if isinstance(batch_norm, str) else dict(batch_norm)
    if unknown := sorted(set(told) - set(NORMALIZATION)):
        raise ValueError(f"batch_norm.{unknown[0]}: unknown key; allowed: {', '.join(NORMALIZATION)}")
    place, weights = told.pop("place", "before"), told.pop("weights", "ones")
    if place not in ("before", "after") or weights not in ("ones", "uniform"):
        raise ValueError(f"batch_norm={batch_norm}: its place must be before or after, its weights ones or uniform")
    for name, value in told.items():
        is_valid, words = OF_NORMALIZATION[name]
        if not is_valid(value):
            raise ValueError(f"batch_norm.{name}={value}: must be {words}")
    layer: Any = kind(features, **told)
    if weights == "uniform":
        nn.init.uniform_(layer.weight)
    return ([layer], []) if place == "before" else ([], [layer])


def activate(name: str, dropout: float = 0.0) -> nn.Module:
    """Return an activation of ACTIVATIONS, and dropout after it where there is any."""
    if name == "relu" and dropout:
        return ReluDropout(dropout)
    return nn.Sequential(ACTIVATIONS[name](), nn.Dropout(dropout)) if dropout else ACTIVATIONS[name]()


def make(kind: Callable[..., nn.Sequential], inputs: int, keys: Mapping) -> nn.Sequential:
    """Return a `block` or a `dense` of a line of configuration; raise ValueError for keys that it cannot have."""
    allowed = [name for name in inspect.signature(kind).parameters if name != "inputs"]
    unknown = sorted(set(keys) - set(allowed))
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key of a {kind.__name__}; allowed: {', '.join(allowed)}")
    for name, value in keys.items():
        is_valid, words = ALLOWED[name]
        if not is_valid(value):
            raise ValueError(f"{name}={value}: must be {words}")
    return kind(inputs, **keys)

"""What `trainer.precision` asks of Lightning, and the scale of losses in float16."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins import MixedPrecision
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

OFF = GradScaler("cpu", enabled=False)  # does as if there were none


def settings(precision: str, device: str) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer for a precision on a type of device: precision, or a plugin.

    bf16-true is the network's own matter. 16-mixed is given as a plugin: on a CPU Lightning would take bf16-mixed.
    """
    if precision == "16-mixed":
        return {"precision": None, "plugins": [MixedPrecision(precision, device)]}
    return {"precision": "32-true" if precision == "bf16-true" else precision, "plugins": []}


def scaler_of(trainer: pl.Trainer) -> GradScaler:
    """Return what scales losses, so that gradients do not vanish in float16; in other precisions it does nothing.

    Its state is in Lightning's checkpoints.
    """
    return getattr(trainer.precision_plugin, "scaler", None) or OFF


def take_step(scaler: GradScaler, optimizer: Optimizer) -> None:
    """Take a step of `optimizer`, unless a scaled gradient overflowed, and adapt the scale."""
    scaler.step(optimizer)
    scaler.update()
    if scaler.is_enabled():  # else torch's schedulers take a first step that was left out for a mistake
        optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]


def scaler_of_a_trial(trainer: pl.Trainer) -> GradScaler:
    """Return a scaler of the same kind that begins with 1, with which no step overflows and is left out."""
    found = scaler_of(trainer)
    return GradScaler(trainer.strategy.root_device.type, init_scale=1.0, enabled=found.is_enabled())

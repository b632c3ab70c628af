"""Say whether a run can be shared by several processes, each of which sees some rows of every batch."""

from collections.abc import Callable, Mapping

import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from digitlab.config.errors import UserError, user_errors
from digitlab.platform import machine
from digitlab.training.callbacks import sees_steps


def check_devices(cfg: DictConfig) -> None:
    """Raise UserError where this machine has not the devices for its processes, or a batch not a row for each."""
    devices = cfg.trainer.get("devices", 1)
    there, what = machine.count_devices(cfg.trainer.accelerator)
    if devices > there:
        raise UserError(f"trainer.devices={devices}: this machine has {there} {what}")
    count = devices * cfg.trainer.get("num_nodes", 1)
    if cfg.data.batch_size < count:
        raise UserError(
            f"data.batch_size={cfg.data.batch_size}: {count} processes share each batch, so at least {count}"
        )


def check_layers(network: nn.Module) -> None:
    """Raise UserError for a layer that looks at a whole batch."""
    for name, layer in network.named_modules():
        if isinstance(layer, _BatchNorm) or getattr(layer, "running_mean", None) is not None:
            raise UserError(f"model: {name}: {type(layer).__name__} would see the rows of one process, not the batch; "
                            "allowed with trainer.devices=1")  # fmt: skip


def check_loss(loss: Callable[[Tensor, Tensor], Tensor], classes: int, alone: str) -> None:
    """Raise UserError where the loss of a batch is not the mean of its images'; with the key `alone` it need not be."""
    logits, labels = torch.randn(classes, classes, generator=torch.Generator().manual_seed(0)), torch.arange(classes)
    with user_errors("loss"):
        whole = loss(logits, labels)
        parts = torch.stack([loss(logits[[place]], labels[[place]]) for place in range(classes)])
    if not torch.allclose(whole, parts.mean(), rtol=1e-4):
        raise UserError("loss: of a batch it is not the mean of its images' losses, so a step cannot be made of parts; "
                        f"allowed with {alone}")  # fmt: skip


def check_callbacks(callbacks: Mapping[str, Callback]) -> None:
    """Raise UserError for a user's own callback that sees steps: one of Lightning's looks, and does nothing to them."""
    for key, callback in callbacks.items():
        if sees_steps(callback) and not type(callback).__module__.startswith("pytorch_lightning."):
            raise UserError(f"{key}: {type(callback).__name__} has hooks around steps, and would see the rows of one "
                            "process; allowed with trainer.devices=1")  # fmt: skip

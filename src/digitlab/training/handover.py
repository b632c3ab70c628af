"""What another process needs to go on with the training of a network: the state that one hands to the other."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def hand_over(
    network: nn.Module, optimizer: Optimizer, scheduler: LRScheduler | None, scaler: GradScaler
) -> dict[str, Any]:
    """Return the state of a training, which `take_over` takes."""
    return {
        "weights": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler and scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "is_trained": [each.requires_grad for each in network.parameters()],
    }


def take_over(
    handed: Mapping[str, Any],
    network: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    scaler: GradScaler,
) -> None:
    """Bring a training into the state that another one has `handed` over."""
    network.load_state_dict(handed["weights"])
    optimizer.load_state_dict(handed["optimizer"])
    if scheduler:
        scheduler.load_state_dict(handed["scheduler"])
    scaler.load_state_dict(handed["scaler"])
    for parameter, is_trained in zip(network.parameters(), handed["is_trained"], strict=True):
        parameter.requires_grad = is_trained

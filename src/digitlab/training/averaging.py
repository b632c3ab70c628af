"""Average the weights of a network while it trains, and evaluate the average."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from digitlab.config.errors import UserError


class Average:
    """The average of a network's weights, which the network has while it is evaluated.

    - `ema`: after each optimizer step decay * average + (1 - decay) * weights, running statistics of batches included.
    - `swa`: the mean of the weights after each epoch, of those later than the share `start` of all epochs; statistics
      of batches are then the average's own, of one more pass over the training images.

    What is not averaged yet is evaluated as it is. The average is kept in float32, and its numbers are those of
    torch.optim.swa_utils.AveragedModel, which would wait for a GPU at each step.
    """

    def __init__(self, kind: str, decay: float = 0.999, start: float = 0.75):
        self.kind, self.decay, self.start = kind, decay, start
        self.epoch = 0  # that a mean has the weights of, the last one
        self.count = 0  # of the weights in a mean; of an ema it says whether there are any
        self.values: dict[str, Tensor] = {}  # the average, by name
        self.weights: dict[str, Tensor] = {}  # the network's own, in the memory that it trains on
        self.kept: list[Tensor] = []  # the network's own, while it has the average

    def check(self, epochs: int) -> None:
        """Raise UserError where a run of so many epochs would give the mean of fewer than two."""
        count = sum(self._is_in_mean(epoch, epochs) for epoch in range(1, epochs + 1))
        if self.kind == "swa" and count < 2:
            raise UserError(
                f"averaging.kind=swa: averages {count} of {epochs} epochs, by averaging.start={self.start}; must be 2 "
                "or more: give a lower averaging.start or more epochs"
            )

    def _is_in_mean(self, epoch: int, epochs: int) -> bool:
        return epoch / epochs > self.start

    def follow(self, network: nn.Module) -> None:
        """Average the weights of `network` from now on, which may not move to other memory."""
        self.weights = dict(network.state_dict())
        before, self.values = self.values, {}
        for name, own in self.weights.items():
            kind = torch.float32 if own.is_floating_point() else own.dtype
            self.values[name] = before.get(name, own).to(own.device, kind, copy=True)

    def end_step(self) -> None:
        """Take the weights after an optimizer step into an ema."""
        if self.kind == "ema" and self.weights:
            self._add(1 - self.decay)

    @torch.no_grad()
    def end_epoch(self, epoch: int, epochs: int, network: nn.Module, batches: Iterable[Tensor]) -> None:
        """Take the weights after `epoch` of all `epochs` into a mean, once; `batches` are of training images."""
        if self.kind == "ema" or not self._is_in_mean(epoch, epochs) or epoch == self.epoch:
            return
        self.epoch = epoch
        self._add(1 / (self.count + 1))
        if any(isinstance(layer, _BatchNorm) for layer in network.modules()):
            self.lend()
            update_bn(batches, network)
            for name in dict(network.named_buffers()).keys() & self.values.keys():
                self.values[name].copy_(self.weights[name])
            self.take_back()

    def _add(self, share: float) -> None:
        """Move the average by `share` of its distance to the weights; the first ones are copied."""
        floats = [name for name, own in self.weights.items() if own.is_floating_point()]
        own = [self.weights[name].float() for name in floats]
        averages = [self.values[name] for name in floats]
        torch._foreach_lerp_(averages, own, share if self.count else 1.0)  # pyright: ignore[reportPrivateImportUsage]
        for name, own in self.weights.items():
            if not own.is_floating_point():
                self.values[name].copy_(own)
        self.count += 1

    def end(self) -> None:
        """Give the network the average for good; warn where it is none, as of a run that was stopped early."""
        if self.kind == "swa" and self.count < 2:
            mean = "before there was an average" if not self.count else "with one epoch in the average, which is that"
            warnings.warn(f"averaging.kind=swa: training ended {mean}; a lower averaging.start helps", stacklevel=2)
        self.lend()

    @torch.no_grad()
    def lend(self) -> None:
        """Give the network the average."""
        if self.count:
            self.kept = [own.clone() for own in self.weights.values()]
            _copy(self.values.values(), self.weights.values())

    @torch.no_grad()
    def take_back(self) -> None:
        """Give the network its own weights again."""
        if self.kept:
            _copy(self.kept, self.weights.values())
            self.kept = []

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Have `checkpoint` hold the average as the weights, and beside it those that training goes on with."""
        if self.count:
            own = dict(zip(self.weights, self.kept, strict=True)) if self.kept else self.weights
            checkpoint["trained"] = {"count": self.count, "weights": own}
            checkpoint["state_dict"] |= {f"network.{name}": value for name, value in self.values.items()}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take the average out of `checkpoint`, and leave in it the weights that training goes on with."""
        if saved := checkpoint.get("trained"):
            self.count, weights = saved["count"], saved["weights"]
            self.values = {name: checkpoint["state_dict"][f"network.{name}"] for name in weights}
            checkpoint["state_dict"] |= {f"network.{name}": own for name, own in weights.items()}


def _copy(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)

"""A learning rate that falls with one over the number of steps."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class InverseTimeDecay(LambdaLR):
    """Set the learning rate to lr / (1 + gamma * t) ** power at step t, counted from 0.

    With a power of 1 this is the `decay` of Keras's old optimizers, and otherwise Caffe's policy "inv". Raises
    ValueError for a gamma below 0, at which the rate would grow until it is none.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, power: float = 1.0):
        if not gamma >= 0:
            raise ValueError(f"gamma={gamma}: must be a number from 0")
        super().__init__(optimizer, lambda step: (1 + gamma * step) ** -power)

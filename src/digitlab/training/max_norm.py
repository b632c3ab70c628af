"""Stochastic gradient descent that limits the weights of hidden dense layers."""

from typing import Any

import torch
from torch.optim import SGD


class MaxNormSGD(SGD):
    """Take torch's step, then shorten the weights of each unit of a hidden dense layer to a norm of `max_norm`.

    Dense are weights (units, inputs), and the last of them are the output's, which stay as they are. `settings` are
    those of SGD. Source: kernel_constraint=maxnorm(...) of Keras.
    """

    def __init__(self, params: Any, max_norm: float = 3.0, **settings: Any):
        super().__init__(params, **settings)
        self.max_norm = max_norm

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        dense = [each for group in self.param_groups for each in group["params"] if each.ndim == 2]
        with torch.no_grad():
            for weights in dense[:-1]:
                weights.renorm_(2, 0, self.max_norm)
        return result

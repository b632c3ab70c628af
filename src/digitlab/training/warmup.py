"""A learning rate that rises first and then falls along half a cosine."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


class WarmupCosine(SequentialLR):
    """Raise the learning rate to its full value over the share `warmup` of `steps`, then let it fall to almost 0.

    It is PyTorch's LinearLR, then its CosineAnnealingLR over the steps that are left.
    """

    def __init__(self, optimizer: Optimizer, steps: int, warmup: float = 0.1):
        if not 0 < warmup < 1:
            raise ValueError(f"warmup={warmup}: must be above 0 and below 1")
        first = max(1, round(warmup * steps))
        rise = LinearLR(optimizer, start_factor=1 / (first + 1), total_iters=first)
        fall = CosineAnnealingLR(optimizer, T_max=max(1, steps - first))
        super().__init__(optimizer, [rise, fall], milestones=[first])

"""Layers that compute the same as PyTorch's own, in less time on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


class Flatten(nn.Module):
    """Flatten (N, C, H, W) to (N, H * W * C), channels last as in Keras; a channels_last tensor is not copied."""

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).flatten(1)


class ReluDropout(nn.Module):
    """Apply ReLU, then dropout with probability `p`, to a tensor of any shape and memory layout.

    On a CPU nn.Dropout spends most of its time drawing one Bernoulli number for each value. This layer draws 8 or 16
    bits of torch's default generator instead, so `p` is rounded to a multiple of 1/65536; the scale follows it. Raises
    ValueError where `p` is not between 0 and 1.
    """

    def __init__(self, p: float):
        super().__init__()
        nn.Dropout(p)  # checks p
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.p and values.device.type == "cpu":
            return _ReluDropout.apply(values, self.p)
        return F.dropout(F.relu(values), self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout without a stored mask: the gradient passes exactly where the output is above 0."""

    @staticmethod
    def forward(ctx, values: Tensor, p: float) -> Tensor:
        mask, kept = _draw_mask(values, p)
        ctx.scale = 1 / kept if kept else 0.0
        output = _scale_where_positive(values, ctx.scale, mask).relu_()
        ctx.save_for_backward(output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (output,) = ctx.saved_tensors
        return _scale_where_positive(gradient, ctx.scale, output), None


def _draw_mask(values: Tensor, p: float) -> tuple[Tensor, float]:
    """Draw 1 with probability 1 - p, else 0, in the layout of `values`; return it with the rounded probability of 1."""
    mask = torch.empty_like(values)
    kind = torch.int8 if (p * 256).is_integer() else torch.int16
    levels = 256 if kind is torch.int8 else 65536
    dropped = round(p * levels)
    words = torch.empty(-(-values.numel() * kind.itemsize // 8), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(kind)[: values.numel()].as_strided(mask.shape, mask.stride())
    return torch.ge(bits, dropped - levels // 2, out=mask), 1 - dropped / levels


def _scale_where_positive(values: Tensor, scale: float, where: Tensor) -> Tensor:
    """Return values * scale where `where` is above 0, else 0. One pass: it is the gradient of ELU with alpha 0."""
    return aten.elu_backward(values, 0, scale, 1, True, where)

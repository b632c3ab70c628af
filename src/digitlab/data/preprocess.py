"""Turn stored pixels into network input: the same module for batches, the logged model and serving."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from digitlab.data.layout import channels_first


class Preprocess(nn.Module):
    """Turn stored pixels into network input: uint8 (N, H, W) or (N, H, W, C) -> float32 (N, C, H, W).

    `normalize` scales 0..255 to 0..1. Then `mean` is subtracted and the result divided by `std`; each is one number, or
    one for each channel.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        normalize: bool = True,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ):
        super().__init__()
        self.scale = 255.0 if normalize else 1.0
        for name, values in {"mean": mean, "std": std}.items():
            column = None if values is None else torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)

    def check(self, channels: int) -> None:
        """Raise ValueError where `mean` or `std` are not one number, nor one for each of so many channels."""
        for name, values in self.named_buffers():
            if len(values) not in (1, channels):
                allowed = "one" if channels == 1 else f"one, or {channels}, one for each channel"
                raise ValueError(f"{name}: has {len(values)} numbers; must be {allowed}")

    def forward(self, pixels: Tensor) -> Tensor:
        images = channels_first(pixels).to(torch.float32, copy=True).div_(self.scale)
        if self.mean is not None:
            images = images - self.mean
        return images if self.std is None else images / self.std

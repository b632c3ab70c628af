"""The layouts of a batch of images: as it is stored, and with channels first, as networks and torchvision have it."""

from collections.abc import Sequence

from torch import Tensor


def is_stored_shape(shape: Sequence[int]) -> bool:
    """Say whether it is (N, H, W) or (N, H, W, 3)."""
    return len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)


def channels_first(pixels: Tensor) -> Tensor:
    """Return (N, H, W) or (N, H, W, C) as (N, C, H, W), without a copy."""
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def as_stored(channels: Tensor, like: Tensor) -> Tensor:
    """Return (N, C, H, W) with the dimensions of `like`, of which they were made by `channels_first`."""
    return channels[:, 0] if like.ndim == 3 else channels.permute(0, 2, 3, 1).contiguous()

"""Corrupt stored images in six ways, each in five strengths, to see what a model withstands."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from digitlab.data.layout import as_stored, channels_first
from digitlab.data.warp import warp

STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(pixels: Tensor, kind: str, strength: int, seed: int = 0) -> Tensor:
    """Return uint8 images (N, H, W) or (N, H, W, 3), corrupted; `kind` is one of KINDS, `strength` of STRENGTHS.

    The same seed gives the same images. Lengths are shares of the shorter side, so that images of all sizes suffer
    alike.
    """
    random = torch.Generator().manual_seed(seed)
    changed = KINDS[kind](channels_first(pixels) / 255, strength, random)
    return as_stored(changed.clamp(0, 1).mul(255).round().to(torch.uint8), pixels)


def _noise(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Add Gaussian noise of 0.08 to 0.4 of the full range."""
    return images + 0.08 * strength * torch.randn(images.shape, generator=random)


def _blur(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Blur by a Gaussian of 1.5 to 7.5 % of the side."""
    from torchvision.transforms.v2.functional import gaussian_blur

    side = min(images.shape[-2:])
    sigma = 0.015 * strength * side
    return gaussian_blur(images, [2 * min(math.ceil(3 * sigma), side - 1) + 1] * 2, [sigma, sigma])


def _shift(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Shift by 4 to 20 % of the width and the height, in any direction."""
    angle = 2 * math.pi * torch.rand(len(images), generator=random)
    return warp(images, torch.zeros(len(images)), 0.04 * strength * angle.cos(), 0.04 * strength * angle.sin())


def _rotation(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Rotate by 10 to 50 degrees to either side."""
    side = 2 * torch.randint(2, (len(images),), generator=random) - 1
    none = torch.zeros(len(images))
    return warp(images, side * math.radians(10 * strength), none, none)


def _contrast(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Bring values closer to the image's mean, by 18 to 90 %."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 - 0.18 * strength)


def _occlusion(images: Tensor, strength: int, random: torch.Generator) -> Tensor:
    """Cover a square of 12 to 60 % of the side with gray, somewhere."""
    size = images.shape[-2:]
    side = round(0.12 * strength * min(size))
    inside = []
    for length, share in zip(size, torch.rand(2, len(images), 1, generator=random), strict=True):
        start, here = (share * (length - side)).round(), torch.arange(length)
        inside.append((here >= start) & (here < start + side))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.5)


KINDS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "shift": _shift,
    "rotation": _rotation,
    "contrast": _contrast,
    "occlusion": _occlusion,
}

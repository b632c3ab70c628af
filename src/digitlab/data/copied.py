"""Training images and copies of them that are turned and mirrored, as one fixed set."""

from pathlib import Path

import torch
from torch import Tensor

from digitlab.data.layout import as_stored, channels_first
from digitlab.data.sources import Images, torchvision_mnist
from digitlab.data.warp import warp

DEGREES = 10.0  # to each side, at most


def copied(root: Path, dataset: str = "FashionMNIST", name: str = "fashion_copied", copies: int = 2) -> Images:
    """Read a set in MNIST's format with so many `copies` of each training image behind all of these.

    A copy is turned by up to DEGREES and mirrored half of the time, drawn once; the nearest pixels fill its edge. Where
    validation images are drawn, images and their copies fall to both sides. Source: cmasch/zalando-fashion-mnist.
    """
    images = torchvision_mnist(root, dataset, name)
    pixels, labels = images.train
    assert isinstance(pixels, Tensor)  # as MNIST's format is read
    noise = torch.Generator().manual_seed(0)
    more = [_copy(part, noise) for _ in range(copies) for part in pixels.split(10_000)]
    return images._replace(train=(torch.cat([pixels, *more]), labels.repeat(1 + copies)))


def _copy(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """Turn and mirror images, uint8 (N, H, W), at random."""
    angle = torch.deg2rad((2 * torch.rand(len(pixels), generator=noise) - 1) * DEGREES)
    side = 1 - 2 * (torch.rand(len(pixels), generator=noise) < 0.5).float()
    nothing = torch.zeros_like(angle)
    turned = warp(channels_first(pixels).float(), angle, nothing, nothing, side, "nearest", "border")
    return as_stored(turned, pixels).byte()

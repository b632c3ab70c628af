"""Augment training images by random shifts and rotations, a whole batch at once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_augment(images: Tensor, shift: float = 0, rotate: float = 0) -> Tensor:
    """Shift each image by up to `shift` pixels and rotate it by up to `rotate` degrees, at random.

    `images` are float (B, C, H, W), as is the result. They stay on their device; the random numbers are those of
    torch's default generator. Pixels that come from outside the image are 0.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has too few digits for coordinates
        return _warp(images, shift, rotate)


def _warp(images: Tensor, shift: float, rotate: float) -> Tensor:
    count, _, height, width = images.shape
    angle, across, down = torch.rand(3, count, device=images.device).mul_(2).sub_(1)
    angle = angle * math.radians(rotate)
    cos, sin = angle.cos(), angle.sin()
    # affine_grid's unit is half of the image's width or height.
    rows = [cos, -sin, across * 2 * shift / width, sin, cos, down * 2 * shift / height]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)

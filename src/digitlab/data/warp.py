"""Turn, move and mirror the images of a batch, each by another amount."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(
    images: Tensor,
    angle: Tensor,
    across: Tensor,
    down: Tensor,
    side: Tensor | float = 1.0,
    mode: str = "bilinear",
    padding: str = "zeros",
) -> Tensor:
    """Return float images (N, C, H, W), each turned by its `angle` in radians and moved.

    `across` and `down` are shares of width and height, (N,); a `side` of -1 mirrors. `mode` and `padding` are those of
    torch's grid_sample.
    """
    count, _, height, width = images.shape
    cos, sin = angle.cos(), angle.sin()
    # affine_grid's unit is half of the image's width or height, so that a turn has to go by their ratio.
    rows = [side * cos, -sin * (height / width), 2 * across, side * sin * (width / height), cos, 2 * down]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode=padding, align_corners=False)

"""Augment training images at random, a whole batch at once and on its device.

The random numbers are those of torch's default generator. What is not asked for draws none.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from digitlab.data.warp import warp

FILLS = {"zero": "zeros", "nearest": "border"}  # names of Keras, and of grid_sample
AREA, RATIO, TRIES = (0.02, 0.33), (0.3, 3.3), 10  # of torchvision's RandomErasing


@dataclass(frozen=True)
class Augment:
    """Change the training images of a batch at random; 0 leaves a change out.

    - `flip`: probability that an image is mirrored, as torchvision's RandomHorizontalFlip does.
    - `crop`: pixels of black that are put on each side before the old size is cut out somewhere, as RandomCrop does.
    - `shift`, `rotate`, `fill`: see `affine_augment`.
    - `erase`: probability that a rectangle is set to 0, as RandomErasing does with its own sizes.
    """

    flip: float = 0
    crop: float = 0
    shift: float = 0
    rotate: float = 0
    fill: str = "zero"
    erase: float = 0

    def __post_init__(self) -> None:
        if self.fill != "zero" and not (self.shift or self.rotate):
            raise ValueError(
                f"augment.fill={self.fill}: is for images that are moved; give augment.shift or augment.rotate"
            )

    def stored(self, pixels: Tensor) -> Tensor:
        """Flip and crop pixels as they are stored, uint8 (B, H, W) or (B, H, W, C), where black is 0."""
        pixels = _crop(pixels, int(self.crop)) if self.crop else pixels
        return _flip(pixels, self.flip) if self.flip else pixels

    def input(self, images: Tensor) -> Tensor:
        """Move and erase network input, float (B, C, H, W)."""
        images = affine_augment(images, self.shift, self.rotate, self.fill) if self.shift or self.rotate else images
        return _erase(images, self.erase) if self.erase else images


def affine_augment(images: Tensor, shift: float = 0, rotate: float = 0, fill: str = "zero") -> Tensor:
    """Shift each image by up to `shift` pixels and rotate it by up to `rotate` degrees, at random.

    `images` are float (B, C, H, W), as is the result. Pixels from outside the image are, by `fill`, zero or those
    of its nearest edge.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has too few digits for coordinates
        count, _, height, width = images.shape
        angle, across, down = torch.rand(3, count, device=images.device).mul_(2).sub_(1)
        angle = angle * math.radians(rotate)
        return warp(images, angle, across * shift / width, down * shift / height, padding=FILLS[fill])


def _flip(pixels: Tensor, probability: float) -> Tensor:
    drawn = torch.rand(len(pixels), device=pixels.device) < probability
    return torch.where(drawn.view(-1, *[1] * (pixels.ndim - 1)), pixels.flip(2), pixels)


def _crop(pixels: Tensor, margin: int) -> Tensor:
    count, height, width = pixels.shape[:3]
    around = F.pad(pixels, [0, 0] * (pixels.ndim - 3) + [margin] * 4)
    top, left = torch.randint(0, 2 * margin + 1, (2, count, 1), device=pixels.device)
    rows = top + torch.arange(height, device=pixels.device)
    columns = left + torch.arange(width, device=pixels.device)
    return around[torch.arange(count, device=pixels.device)[:, None, None], rows[:, :, None], columns[:, None]]


def _erase(images: Tensor, probability: float) -> Tensor:
    count, _, *size = images.shape
    drawn = torch.rand(count, device=images.device) < probability
    # Every try of every image at once: the first one that gives a rectangle smaller than the image counts.
    area, ratio = torch.rand(2, TRIES, count, device=images.device)
    area = (area * (AREA[1] - AREA[0]) + AREA[0]) * math.prod(size)
    ratio = (ratio * math.log(RATIO[1] / RATIO[0]) + math.log(RATIO[0])).exp()
    sides = torch.stack([(area * ratio).sqrt().round(), (area / ratio).sqrt().round()])
    fits = (sides[0] < size[0]) & (sides[1] < size[1])
    first = fits.int().argmax(dim=0)
    places = torch.rand(2, count, device=images.device)
    inside = (drawn & fits.any(dim=0)).view(-1, 1)
    masks = []
    for length, side, place in zip(size, sides.gather(1, first.expand(2, 1, -1))[:, 0], places, strict=True):
        start = (place * (length - side + 1)).floor()
        at = torch.arange(length, device=images.device)
        masks.append((at >= start[:, None]) & (at < (start + side)[:, None]) & inside)
    return images.masked_fill((masks[0][:, :, None] & masks[1][:, None])[:, None], 0)

"""Images that are not square: turned and moved as others do it, and no larger than they are."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from digitlab.data.augment import affine_augment
from digitlab.data.corrupt import KINDS, STRENGTHS, corrupt
from digitlab.data.resize import resize_pixels


@pytest.fixture
def bar() -> torch.Tensor:
    """A bar in the middle of images of 40 x 60, uint8 (8, 40, 60)."""
    pixels = torch.zeros(8, 40, 60, dtype=torch.uint8)
    pixels[:, 17:23, 15:45] = 255
    return pixels


def turned(image: torch.Tensor, degrees: float) -> np.ndarray:
    return ndimage.rotate(image.numpy().astype(float), degrees, reshape=False, order=1)


def test_augmentation_turns_by_the_angle_that_scipy_turns_by(bar, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(shape))  # always the largest angle
    found = affine_augment(bar[:, None].float(), rotate=30)[0, 0].numpy()
    assert np.abs(found - turned(bar[0], 30)).mean() < 1
    assert np.abs(found - turned(bar[0], 15)).mean() > 10


def test_corruption_turns_by_the_angle_that_scipy_turns_by(bar):
    for image in corrupt(bar, "rotation", 3).numpy():
        assert min(np.abs(image - turned(bar[0], degrees)).mean() for degrees in (30, -30)) < 1


@pytest.mark.parametrize("shape", [(20, 40), (40, 20), (8, 64), (2, 3), (1, 1)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_corruption_takes_every_shape(shape, channels):
    pixels = torch.randint(256, (3, *shape, *channels), dtype=torch.uint8)
    for kind in KINDS:
        for strength in STRENGTHS:
            found = corrupt(pixels, kind, strength)
            assert (found.shape, found.dtype) == (pixels.shape, torch.uint8)


def test_a_square_is_cut_out_of_wide_images(bar):
    for image in corrupt(bar, "occlusion", 3):
        rows, columns = (image == 128).any(1).sum(), (image == 128).any(0).sum()
        assert (rows, columns) == (14, 14)  # 36 % of 40


def test_height_and_width_are_in_this_order(bar):
    assert resize_pixels(bar, (20, 90)).shape == (8, 20, 90)

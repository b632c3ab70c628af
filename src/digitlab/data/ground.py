"""The ground of images: whether what they show lies on black."""

import numpy as np
import torch

from digitlab.data.on_disk import Stored, at_once

ASKED = 10_000  # images
FEW = 0.001  # of them: two of Fashion-MNIST's 60,000 fill their rim with a bright piece of clothing


def have_light_rims(images: np.ndarray) -> np.ndarray:
    """Say of each image, uint8 (N, H, W) or (N, H, W, 3), whether most of its rim is light: (N,)."""
    rim = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    return np.median(rim.reshape(len(rim), -1), axis=1) > 127


def is_on_black(images: Stored) -> bool:
    """Say whether images are all on black, but for FEW; of many ASKED are asked, drawn from all."""
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:ASKED])
    light = sum(have_light_rims(images[some].numpy()).sum() for some in rows.split(at_once(images.shape[1:])))
    return bool(light < FEW * len(rows))

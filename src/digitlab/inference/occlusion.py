"""Say which parts of an image a network's answer hangs on, by covering them.

Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014).
"""

import numpy as np
import torch

from digitlab.inference.model import TrackedModel

PATCH, STRIDES = 1 / 4, 1 / 14  # of the image's shorter side


def importance(model: TrackedModel, image: np.ndarray, label: int) -> np.ndarray:
    """Return by how much the probability of class `label` falls where a patch covers each pixel, (H, W), on average.

    `image` is uint8 (H, W) or (H, W, 3), of the model's size. A negative value is where covering helps the class.
    """
    side = min(model.shape)
    patch, stride = max(round(side * PATCH), 1), max(round(side * STRIDES), 1)
    tops, lefts = (range(1 - patch, length, stride) for length in model.shape)
    ground = 0 if model.is_on_black else np.median(image, axis=(0, 1)).astype(np.uint8)
    covers = np.zeros((len(tops) * len(lefts), *model.shape), bool)
    for index, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        covers[index, max(top, 0) : top + patch, max(left, 0) : left + patch] = True
    covered = np.repeat(image[None], len(covers), axis=0)
    covered[covers] = ground
    whole, *parts = model.predict(torch.from_numpy(np.concatenate([image[None], covered])))[:, label]
    falls = whole - np.array(parts)
    return np.tensordot(falls, covers, axes=1) / covers.sum(axis=0)

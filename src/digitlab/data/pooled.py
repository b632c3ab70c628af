"""Read training and test images of a set as one, to be divided anew."""

from pathlib import Path

import torch

from digitlab.data.sources import Images, torchvision_mnist


def pooled(root: Path, dataset: str = "MNIST", name: str = "mnist_pooled") -> Images:
    """Read all images of one of torchvision's sets in MNIST's format, those of the test after the others.

    There is no test set then, so data.test_fraction draws one. Raises what `torchvision_mnist` does.
    """
    images = torchvision_mnist(root, dataset, name)
    assert images.test  # which MNIST's format has
    pixels, labels = (torch.cat([a.cpu(), b.cpu()]) for a, b in zip(images.train, images.test, strict=True))
    return Images(name, images.classes, (pixels, labels))

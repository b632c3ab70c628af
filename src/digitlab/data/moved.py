"""Training images and their copies moved by one pixel, as one fixed set."""

from pathlib import Path

import torch

from digitlab.data.sources import Images, torchvision_mnist

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # rows and columns


def moved(root: Path, dataset: str = "MNIST", name: str = "mnist_moved", count: int = 50_000) -> Images:
    """Read a set in MNIST's format whose first `count` training images come with four copies each; others validate.

    A copy is moved up, down, left or right by a pixel, and black comes in. Their order is drawn once, so that it suits
    data.shuffle=false. Source: M. Nielsen, Neural Networks and Deep Learning, src/expand_mnist.py.
    """
    images = torchvision_mnist(root, dataset, name)
    pixels, labels = images.train
    first = pixels[:count]
    copies = [first]
    for rows, columns in SIDES:
        copy = first.roll((rows, columns), (1, 2))
        edge = (slice(None), 0 if rows > 0 else -1) if rows else (..., 0 if columns > 0 else -1)
        copy[edge] = 0
        copies.append(copy)
    order = torch.randperm(len(first) * len(copies), generator=torch.Generator().manual_seed(0))
    train = torch.cat(copies)[order], labels[:count].repeat(len(copies))[order]
    return images._replace(train=train, val=(pixels[count:], labels[count:]))

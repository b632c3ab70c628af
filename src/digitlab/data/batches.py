"""Iterate over a split in batches, in an order made from (seed, epoch)."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from digitlab.data.augment import affine_augment
from digitlab.data.sources import Pairs


class EpochOrder:
    """Give each epoch an order of its own, a function of (seed, epoch) alone; epochs follow one another unless set."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Continue with `epoch`. Lightning calls this before each epoch."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the next epoch's permutation, int64 (length,)."""
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        self.epoch += 1
        return torch.randperm(self.length, generator=torch.Generator().manual_seed(int(words[0] >> 1)))


class Gather:
    """Give the (images, labels) of any rows of a split, float32 (B, 1, H, W) and int64 (B,), where the split lies."""

    def __init__(self, images: Tensor, labels: Tensor, normalize: bool, augment: Mapping[str, float] | None = None):
        self.images, self.labels = images, labels
        self.scale = 255.0 if normalize else 1.0
        self.augment = augment if augment and any(augment.values()) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __call__(self, rows: Tensor | slice) -> Pairs:
        images = self.images[rows].unsqueeze(1).float().div_(self.scale)
        return (affine_augment(images, **self.augment) if self.augment else images), self.labels[rows]


class Batches:
    """Iterate over a split in batches, as it lies."""

    def __init__(self, take: Gather, batch_size: int):
        self.take, self.batch_size = take, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.take) / self.batch_size)

    def __iter__(self) -> Iterator[Pairs]:
        for start in range(0, len(self.take), self.batch_size):
            yield self.take(slice(start, start + self.batch_size))


class Block:
    """Some training batches of equal size: `rows` int64 (K, B), and `take` for a row's (images, labels)."""

    def __init__(self, rows: Tensor, take: Gather):
        self.rows, self.take = rows, take

    def __iter__(self) -> Iterator[Pairs]:
        return map(self.take, self.rows)


class Blocks:
    """Iterate over a split in blocks of up to `block` batches, in each epoch's own order; the rest comes last."""

    def __init__(self, take: Gather, order: EpochOrder, batch_size: int, block: int):
        self.take, self.batch_size, self.block = take, batch_size, block
        self.sampler, self.batch_sampler = order, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        whole, left = divmod(len(self.take), self.batch_size)
        return math.ceil(whole / self.block) + bool(left)

    def __iter__(self) -> Iterator[Block]:
        # Drawn at the first block, not when the iterator is made: Lightning sets the epoch in between.
        order = self.sampler.draw().to(self.take.labels.device)
        left = len(order) % self.batch_size
        whole = order[: len(order) - left].view(-1, self.batch_size)
        for rows in whole.split(self.block) if len(whole) else ():
            yield Block(rows, self.take)
        if left:
            yield Block(order[None, -left:], self.take)

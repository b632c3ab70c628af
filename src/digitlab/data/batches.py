"""Batches of a split that is on one device, in an order made from (seed, epoch)."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from digitlab.data.augment import affine_augment
from digitlab.data.preprocess import Preprocess
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


class Batches:
    """Iterate over a split, (images, labels), in its own order or in the `order` of each epoch; the rest comes last.

    Batches are float32 (B, C, H, W) and int64 (B,) on the split's device, `augment` being `affine_augment`'s keywords.
    """

    def __init__(
        self,
        split: Pairs,
        preprocess: Preprocess,
        batch_size: int,
        order: EpochOrder | None = None,
        augment: Mapping[str, float] | None = None,
    ):
        self.images, self.labels = split
        self.preprocess, self.batch_size = preprocess.to(self.labels.device), batch_size
        self.augment = augment if augment and any(augment.values()) else None
        self.sampler, self.batch_sampler = order, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[Pairs]:
        for rows in self._rows():
            images = self.preprocess(self.images[rows])
            yield affine_augment(images, **self.augment) if self.augment else images, self.labels[rows]

    def _rows(self) -> Iterable[Tensor | slice]:
        # Drawn at the first batch, not when the iterator is made: Lightning sets the epoch in between.
        if self.sampler:
            return self.sampler.draw().to(self.labels.device).split(self.batch_size)
        starts = range(0, len(self.labels), self.batch_size)
        return (slice(start, start + self.batch_size) for start in starts)


class Chunk:
    """Some successive batches that a training loop takes as one; each is made when it is taken, still in the cache."""

    def __init__(self, batches: Iterator[Pairs], count: int):
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Pairs]:
        return islice(self.batches, self.count)


class Chunks:
    """Iterate over the batches of a loader in chunks of up to `steps`, which are to be taken in order."""

    def __init__(self, loader: Batches, steps: int):
        self.loader, self.steps = loader, steps
        self.sampler, self.batch_sampler = loader.sampler, None

    def __len__(self) -> int:
        return math.ceil(len(self.loader) / self.steps)

    def __iter__(self) -> Iterator[Chunk]:
        batches = iter(self.loader)
        for taken in range(0, len(self.loader), self.steps):
            yield Chunk(batches, min(self.steps, len(self.loader) - taken))
